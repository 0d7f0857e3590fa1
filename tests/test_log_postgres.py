"""What only the log in PostgreSQL promises: the same as SQLite to the last bit, several processes, least privileges.

What it shares with every log is in the suites that take the fixture `log`; faults are in test_postgres_faults.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from decider.errors import LogCorrupt, LogError
from decider.experiment.definition import Attribution, RewardDefinition
from decider.experiment.origin import Origin
from decider.log.open import LogUrl, copy_log, open_log
from decider.log.place import name_of
from decider.log.postgres import sealed, writer
from decider.log.postgres.reader import PostgresReader
from decider.log.postgres.writer import PostgresLog
from decider.log.protocol import (
    EventLog,
    Mark,
    ModelName,
    NewActivation,
    NewBuild,
    NewLeaveOut,
    NewLink,
    NewModel,
    NewReward,
    NewRewardChange,
    NewUnitReward,
    NewUnitRewardChange,
    NewVersion,
    Tick,
    TotalsCheckpoint,
    UnitDecision,
)
from decider.server.command import main
from decider.types import START, ActionId, DecisionId, ExperimentId, Position, Time, now
from tests.conftest import SECOND, Clock, sample_experiment
from tests.postgres import administer, damages
from tests.postgres_writer import append_groups
from tests.two_writers import decision

ROLES = Path(writer.__file__).with_name("roles.sql")


@pytest.fixture
def url(postgres_url: str) -> str:
    """Of a log that is not there yet."""
    return postgres_url


def apply(log: EventLog) -> None:
    """The version that `decision` is of."""
    log.append([NewVersion(sample_experiment(), 1)])


WRITERS = 3


def test_several_processes_leave_no_gap(url: str) -> None:
    """Each machine has writers of its own: one order, one chain, nothing lost and nothing twice."""
    with closing(PostgresLog(url)) as log:
        apply(log)
        with get_context("spawn").Pool(WRITERS) as pool:
            written = pool.starmap(append_groups, [(url, name) for name in range(WRITERS)])
        assert log.count_decisions() == sum(written) == log.head().position - 1
        assert damages(log) == []


def entries_of_many_kinds(log: EventLog, clock: Clock) -> None:
    """Appends some of them, in commits of several sizes."""
    log.append([NewVersion(sample_experiment(), 1)])
    (version,) = log.versions()
    log.name_build({"decider": "0"})
    marks = log.append([decision(version, f"d{number}") for number in range(40)])
    positions = [mark.position for mark in marks if mark]
    clock.advance(1)
    log.append([NewReward(one, "click", -0.0, reward_id="r") for one in positions[:30]])
    log.append([NewReward(positions[0], "click", 1.0, reward_id="r"), Tick()])
    log.append([NewRewardChange(positions[1], "r", 2.5, "click")])
    log.append([NewReward(positions[2], "buy", 9.5, final=True), NewActivation(positions[3], ActionId("sale"))])
    log.append([NewModel(ModelName(ExperimentId("home"), positions[5], "signature"), 3), NewBuild({"again": 1})])


@pytest.mark.parametrize("copy_from", [24, writer.COPY_FROM], ids=["streamed", "in statements"])
def test_the_chain_is_that_of_sqlite(url: str, tmp_path: Path, copy_from: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a log that is copied from one to the other stays what was acknowledged."""
    monkeypatch.setattr(writer, "COPY_FROM", copy_from)
    chains = []
    for log, clock in (
        (PostgresLog(url, clock=(one := Clock())), one),
        (open_log(tmp_path / "l", clock=(two := Clock())), two),
    ):
        with closing(log):
            entries_of_many_kinds(log, clock)
            chains.append(log.head())
    assert chains[0] == chains[1]


VIEWS = (
    "entries", "changes", "withheld_actions", "decision_windows", "decision_rewards", "joined_rewards",
    "joined_changes", "reward_history", "credited_rewards", "named_rewards", "reward_summary", "sealed_decisions",
    "rewarded_decisions", "action_summary",
)  # fmt: skip


def rows_of(connection: Any, view: str) -> list[dict[str, Any]]:
    """Of either database, in one order; a truth value is a number in SQLite."""
    cursor = connection.execute(f"select * from {view}")  # noqa: S608 - our names
    names = [one[0] for one in cursor.description]
    rows = [[int(value) if isinstance(value, bool) else value for value in row] for row in cursor.fetchall()]
    return sorted((dict(sorted(zip(names, row, strict=True))) for row in rows), key=str)


def test_views_show_what_those_of_sqlite_show(url: str, tmp_path: Path) -> None:
    """A query for one is a query for the other."""
    one, other = Clock(), Clock()
    with closing(PostgresLog(url, clock=one)) as ours, closing(open_log(tmp_path / "log", clock=other)) as theirs:
        for log, clock in ((ours, one), (theirs, other)):
            entries_of_many_kinds(log, clock)
            more_entries(log, clock)
    with psycopg.connect(url) as connection, closing(sqlite3.connect(tmp_path / "log")) as file:
        for view in VIEWS:
            found = rows_of(connection, view)
            assert found == rows_of(file, view), view
            assert found, f"{view} is empty"


def test_totals_and_seals_are_those_of_sqlite(url: str, tmp_path: Path) -> None:
    """To the last bit: metrics and learners must not depend on the database."""
    one, other = Clock(), Clock()
    with closing(PostgresLog(url, clock=one)) as ours, closing(open_log(tmp_path / "log", clock=other)) as theirs:
        for log, clock in ((ours, one), (theirs, other)):
            entries_of_many_kinds(log, clock)
            more_entries(log, clock)
        begin, end = Mark(START, Time(0)), ours.head().mark
        quarter, middle = [
            Mark(place, ours.time_at(place)) for place in (Position(end.position // 4), Position(end.position // 2))
        ]
        for after, until in ((begin, end), (begin, middle), (middle, end)):
            assert ours.totals(after, until) == theirs.totals(after, until)
        for id_ in (ExperimentId("home"), ExperimentId("shop")):
            span = {"after": Time(0), "until": end.time}
            found = list(ours.sealed_decisions(id_, **span))
            assert found == list(theirs.sealed_decisions(id_, **span)) != []
            for after, until in combinations((begin, quarter, middle, end), 2):
                decided = ours.count_decided(id_, after=after, until=until)
                assert decided == theirs.count_decided(id_, after=after, until=until)
            assert ours.count_decided(id_, after=begin, until=end) > 0
            late = list(ours.sealed_with_late(id_, **span, late=end))
            assert late == list(theirs.sealed_with_late(id_, **span, late=end))


def test_pages_of_sealed_decisions_join_without_a_seam(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Learning reads them in pages; decisions of one moment may lie on both sides of a page's end."""
    clock = Clock()
    with closing(PostgresLog(url, clock=clock)) as log:
        entries_of_many_kinds(log, clock)
        clock.advance(20)
        log.append([Tick()])
        span = {"after": Time(0), "until": log.head().time}
        whole = list(log.sealed_decisions(ExperimentId("home"), **span))
        for size in (1, 3, 7):
            monkeypatch.setattr(sealed, "FIRST_PAGE", size)
            monkeypatch.setattr(sealed, "PAGE", size)
            assert list(log.sealed_decisions(ExperimentId("home"), **span)) == whole
        assert len(whole) == 40


def test_stored_totals_are_used_where_they_fit_the_log(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A start counts on from there; in another log, or a changed one, it counts anew."""
    clock = Clock()
    with closing(PostgresLog(url, clock=clock)) as log:
        entries_of_many_kinds(log, clock)
        head = log.head()
        log.append([Tick()])
        stored = TotalsCheckpoint(head.mark, head.chain, "{}")
        log.store_totals(stored)
        assert log.totals_checkpoint() == stored
        assert log.totals_checkpoint(Mark(START, Time(0))) is None
        log.store_totals(stored._replace(mark=log.head().mark))  # with the chain of another place
        assert log.totals_checkpoint() == stored
        assert "counting from an earlier place" in caplog.text


def more_entries(log: EventLog, clock: Clock) -> None:
    """Of the kinds that views show beside those."""
    shop = ExperimentId("shop")
    reward = RewardDefinition(window=10 * SECOND, maximum=50.0, attribution=Attribution.LAST)
    log.append([NewVersion(sample_experiment(id=shop, reward=reward), 1, origin=Origin("ann", "api", "why not"))])
    version = log.versions()[-1]
    log.append([UnitDecision(decision(version, "u", "visitor"), withheld={ActionId("sale"): "caps"})])
    log.append([NewLink("visitor", "customer"), NewUnitReward("customer", "buy", 12.5, reward_id="till")])
    log.append([NewUnitRewardChange("customer", "till", None, "buy")])
    log.append([NewLeaveOut(shop, Time(0), clock())])
    clock.advance(20)
    log.append([Tick()])


@pytest.mark.parametrize("sql", [
    "update decisions set unit_id = 'another' where position = 3",
    "delete from decisions where position = 4",
    "update head set time = time + 1",
    "insert into ticks (position, time) values (99, 1)",
])  # fmt: skip
def test_what_was_changed_is_found(url: str, clock: Clock, sql: str) -> None:
    """Whoever may write the database can change the log, but not without a trace."""
    with closing(PostgresLog(url, clock=clock)) as log:
        apply(log)
        log.append([decision(log.versions()[0], f"d{number}") for number in range(5)])
        assert damages(log) == []
        administer(url, sql)
        assert damages(log)


def test_every_character_is_kept(url: str) -> None:
    """PostgreSQL's text has no U+0000; ids of units may."""
    texts = ["\0", "a\0b", "\x1a", "\x1a0", "\x1a1\0", "plain"]
    with closing(PostgresLog(url)) as log:
        apply(log)
        version = log.versions()[0]
        log.append([decision(version, text, unit_id=text) for text in texts])
        log.append([decision(version, f"more {text}", unit_id=text) for text in texts * 5][:6])
        found = [log.find(DecisionId(text)) for text in texts]
        assert [one.decision.unit_id for one in found if one] == texts
        log.append([NewLink("a\x01", "a\0b"), NewLink("a\x01", "plain")])
        assert log.persons() == dict.fromkeys(log.units_of("plain"), "a\0b")
        assert list(log.units_of("plain")) == ["a\0b", "a\x01", "plain"]
        assert damages(log) == []


# --- who may do what


@pytest.fixture
def worker_url(url: str) -> Iterator[str]:
    """The same log for somebody who may only do what a worker does."""
    with closing(PostgresLog(url)) as log:
        apply(log)
    administer(url, ROLES.read_text())
    administer(url, "drop role if exists shop_worker; create role shop_worker login in role decider_worker")
    yield url.replace("user=postgres", "user=shop_worker")
    administer(url, "drop owned by shop_worker; drop role shop_worker")


def test_views_take_every_character_of_a_definition(url: str) -> None:
    """One text of one version must not keep people from seeing all others."""
    odd = ["a\0\0b", r"\u0000", "\\\0", "\x1a", '"state": "no"']
    with closing(PostgresLog(url)) as log:
        for number, text in enumerate(odd, 1):
            log.append([NewVersion(replace(sample_experiment(), description=text, ended=number == 2), number)])
    with psycopg.connect(url) as connection:
        states = [row[0] for row in connection.execute("select state from changes order by number").fetchall()]
        assert states == ["active", "ended", "active", "active", "active"]
        connection.execute("select * from holdout_summary").fetchall()


def test_a_command_on_a_machine_whose_clock_is_ahead_ends_no_window(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives the log its time, which is that of all."""
    monkeypatch.setattr(writer, "now", lambda: Time(now() + 3600 * SECOND))
    with closing(open_log(LogUrl(url))) as log:
        log.append([NewBuild({})])
        assert abs(log.head().time - now()) < 600 * SECOND


PUBLISH = "insert into published select position + 1, time, 'home', 1, position, 1 from head"


def test_a_worker_adds_entries_and_changes_none(worker_url: str, clock: Clock) -> None:
    """A worker that was taken over must not be able to rewrite what was acknowledged."""
    with closing(PostgresLog(worker_url, clock=clock)) as log:
        version = log.versions()[0]
        (mark, *_) = log.append([decision(version, "d"), decision(version, "e")])
        assert mark is not None
        log.append([NewActivation(mark.position)])
        log.append([NewReward(mark.position, "click", 1.0, final=True)])
        log.maintain()
        assert damages(log) == []
        with pytest.raises(LogError, match=r"may not do that.*roles\.sql"):
            log.lease()
    refused = ("delete from decisions", "update rewards set value = 2", "truncate seals", "drop table links")
    for sql in (*refused, PUBLISH):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            administer(worker_url, sql)


def test_a_worker_learns_nothing(worker_url: str, url: str) -> None:
    """It may not store what it learns; nor does it keep a part from those who may."""
    home = [ExperimentId("home")]
    with closing(PostgresLog(worker_url)) as worker, closing(PostgresLog(url)) as leader:
        may_not, may = worker.share(), leader.share()
        assert not may_not.own(home)
        assert {*may.own(home)} == {*home}
        assert not may_not.own(home)


def test_roles_are_given_again_after_an_upgrade(url: str, worker_url: str) -> None:
    """The file is run after every upgrade."""
    administer(url, ROLES.read_text())
    with closing(PostgresLog(worker_url)) as log:
        assert log.append([NewBuild({})]) != [None]


# --- opening


def test_reading_makes_no_log(url: str) -> None:
    """Who mistypes an address must be told."""
    with pytest.raises(LogError, match="there is no log"):
        PostgresReader(url)


def test_another_application_s_database_is_not_written_to(url: str) -> None:
    """Its tables must not get mixed with ours."""
    administer(url, "create table orders (id bigint)")
    with pytest.raises(LogCorrupt, match=r"another application's database, with orders"):
        PostgresLog(url)


def test_a_log_of_a_newer_release_is_refused(url: str, tmp_path: Path) -> None:
    """It may mean something that this release does not know."""
    PostgresLog(url).close()
    administer(url, "insert into migrations (name) values ('add_tomorrow')")
    with pytest.raises(LogError, match=r"newer release \(it has add_tomorrow\)"):
        PostgresLog(url)
    with pytest.raises(LogError, match=r"newer release \(it has add_tomorrow\)"):
        copy_log(LogUrl(url), tmp_path / "copy.db", say=lambda _: None)


def test_views_are_made_anew_where_they_have_changed(url: str) -> None:
    """An upgrade brings new views without a migration of the tables."""
    PostgresLog(url).close()
    administer(url, "drop view sealed_decisions; update migrations set name = 'views older' where name like 'views %'")
    with closing(PostgresLog(url)) as log:
        apply(log)
        assert list(log.sealed_decisions(ExperimentId("home"), after=log.head().time, until=log.head().time)) == []
    administer(url, "select * from sealed_decisions")


def test_views_of_others_stay(url: str) -> None:
    """Those of an extension, which nobody else can drop, and those of whoever looks at the log. Also ours in a schema
    behind the log's."""
    administer(url, """create view "pg stat" as select 1 as one; create view dashboard as select * from pg_class""")
    with closing(PostgresLog(url)):
        administer(url, "update migrations set name = 'views older' where name like 'views %'")
    administer(url, "create schema in_front")
    both = url.replace("search_path%3D", "search_path%3Din_front,")
    try:
        with closing(PostgresLog(url)), closing(PostgresLog(both)):
            administer(url, """select * from "pg stat", dashboard, sealed_decisions""")
    finally:
        administer(url, "drop schema in_front cascade")


def test_a_log_is_in_the_first_schema(url: str) -> None:
    """Whoever reads must find no other log than whoever writes."""
    PostgresLog(url).close()
    administer(url, "create schema in_front")
    try:
        with pytest.raises(LogError, match="there is no log"):
            PostgresReader(url.replace("search_path%3D", "search_path%3Din_front,"))
        with pytest.raises(LogError, match="there is no log"):
            PostgresReader(url.replace("search_path%3D", "search_path%3Dnot_there_"))
    finally:
        administer(url, "drop schema in_front")


def test_a_closed_log_leaves_nothing_of_its_writer(url: str) -> None:
    """Rows of writers would heap up with every start."""
    PostgresLog(url).close()
    with psycopg.connect(url) as connection:
        assert connection.execute("select count(*) from writers").fetchone() == (0,)


@pytest.mark.parametrize(
    "text",
    [
        "POSTGRESQL://ann:secret@db/shop",
        "postgresql:/ann:secret@db/shop",
        " postgresql://ann:secret@db/shop",
        "postgresql+psycopg://ann:secret@db/shop",
        "host=db user=ann password=secret dbname=shop",
    ],
)
def test_what_others_take_as_an_address_is_no_file(text: str) -> None:
    """It would be made, and its name shows the password."""
    for command in (["check", "--db", text], ["copy", "shop.db", text], ["copy", text, "shop.db"]):
        ran = CliRunner().invoke(main, command)
        assert ran.exit_code
        assert "secret" not in ran.output
    ran = CliRunner().invoke(main, ["check", "--db", text])
    assert "the address cannot be read" in ran.output


def test_passwords_are_in_no_message() -> None:
    """Messages are logged and shown."""
    assert name_of("postgresql://ann:secret@db/shop?passfile=x") == "postgresql://ann@db/shop"
    for sign in "/?#@:":
        assert "sec" not in name_of(f"postgresql://ann:sec{sign}ret@db/shop")


@pytest.mark.parametrize(
    "options", ["-csearch_path%3Dnorth", "-c%20search_path%3Dnorth", "--search_path=north%20-cx=1"]
)
def test_two_logs_of_one_database_have_two_names(options: str) -> None:
    """Messages name the log that is meant, and so does what its processes on one machine share."""
    url = LogUrl(f"postgresql://ann:secret@db/shop?options={options}")
    assert str(url) == "postgresql://ann@db/shop?options=-csearch_path%3Dnorth"
    assert name_of(str(url)) == str(url), "it is an address"
