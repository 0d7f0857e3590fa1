"""What an operator does with a log in PostgreSQL: check it, forget a unit, dump it and load the dump."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from decider.log.forgotten import KEY, MADE_UP
from decider.log.open import LogUrl, copy_log, open_log, open_reader, open_to_forget
from decider.log.protocol import ModelName, NewReward, Tick
from decider.server.backup_commands import DUMP, LOAD
from decider.server.command import main
from decider.types import ExperimentId
from simulator.commands.group import main as simulator
from simulator.studies.faults.databases import programs
from simulator.verify import verify
from tests.copied_logs import content, quiet, write_odd_rows
from tests.postgres import USER, administer, damages
from tests.test_forget import forget as forget_in_file

UNIT = "unit-5"

README = Path(__file__).parents[1] / "decider" / "README.md"


@pytest.fixture
def url(full_log: Path, postgres_url: str) -> LogUrl:
    """A log in which much has happened."""
    copy_log(full_log, LogUrl(postgres_url), say=quiet)
    return LogUrl(postgres_url)


def decider(*arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(main, arguments)


def rows(url: str, sql: str) -> list[tuple[object, ...]]:
    """Of a query."""
    with psycopg.connect(url) as connection:
        return connection.execute(sql.encode()).fetchall()


# --- check


def test_the_check_says_that_all_is_well(url: LogUrl) -> None:
    """Also that the newest decisions come out as they were."""
    ran = decider("check", "--db", url, "--last", "30d")
    assert ran.exit_code == 0, ran.output
    assert re.search(r"whole up to position \d+", ran.output)
    assert re.search(r"(\d\d+) of \1 decisions of the last 30 days equal", ran.output)


def test_the_check_tells_of_damage(url: LogUrl) -> None:
    """With the way out, and another exit code."""
    administer(url, "update decisions set action = 'none' where position = (select min(position) from decisions)")
    ran = decider("check", "--db", url)
    assert ran.exit_code == 2
    assert "damaged: positions" in ran.output
    assert "pg_restore" in ran.output


# --- forget


@pytest.mark.parametrize("options", [[], ["--pseudonym"], ["--context"], ["--rebuild"]], ids=str)
def test_a_unit_is_forgotten_as_in_a_file(url: LogUrl, full_log: Path, tmp_path: Path, options: list[str]) -> None:
    """The same is removed, the same is kept, the same is proved and counted by `verify`."""
    here = tmp_path / "shop.db"
    copy_log(full_log, here, say=quiet)
    for place in (here, url):
        with closing(open_log(place)) as log:  # of which the last second is the present one
            (first, *_) = [one for one in log.decisions_between("", "~") if one.decision.unit_id == UNIT]
            log.append([NewReward(first.position, "click", 0.5, reward_id=f"order-of-{UNIT}")])
    ran, there = forget_in_file(here, *options, unit=UNIT), decider("forget", UNIT, "--db", url, *options)
    assert (ran.exit_code, there.exit_code) == (0, 0), there.output
    assert re.sub(f"{MADE_UP}[0-9a-f]+", "", ran.output.splitlines()[0]) == re.sub(
        f"{MADE_UP}[0-9a-f]+", "", there.output.splitlines()[0]
    )
    with closing(open_reader(here)) as one, closing(open_reader(url)) as other:
        assert other.check(lambda _: None) == []
        expected, found = verify(one), verify(other)
        assert (found.first, found.equal, found.forgotten, found.unlearned) == (
            None, expected.equal, expected.forgotten, expected.unlearned,
        )  # fmt: skip
        ours, theirs = other.removals()[-1], one.removals()[-1]
        assert (ours.decisions, ours.sealed) == (theirs.decisions, theirs.sealed)
        assert [(c.first, c.last) for c in ours.commits] == [(c.first, c.last) for c in theirs.commits]
        assert other.persons() == one.persons()
    assert UNIT not in str(content(url)).replace(f"{UNIT}0", "")
    assert decider("forget", UNIT, "--db", url).output.startswith("the log has no decision of this unit")


def test_every_kind_of_row_forgets_a_unit(postgres_url: str, tmp_path: Path) -> None:
    """Links, rewards by unit, caps, histories, what units keep: the check compares them with what the entries say."""
    write_odd_rows(tmp_path / "log.db")
    place = LogUrl(postgres_url)
    copy_log(tmp_path / "log.db", place, say=quiet)
    for unit in ("unit-0", "person-2", "visitor-of-1", "visitor-3"):
        assert decider("forget", unit, "--db", place, "--context").exit_code == 0
        with closing(open_reader(place)) as log:
            assert log.check(lambda _: None) == []
        assert f"'{unit}'" not in str(content(place)).replace('"', "'")
    with closing(open_log(place)) as log:
        log.append([Tick()])
        log.maintain()
        assert damages(log) == []


def test_a_row_that_was_changed_otherwise_is_damage_as_before(url: LogUrl) -> None:
    """Forgetting must not become the way to change a log unnoticed."""
    decider("forget", UNIT, "--db", url)
    for sql in (
        f"update decisions set action = 'none' where unit_id like '{MADE_UP}%'",  # noqa: S608 - a constant
        f"delete from builds where build like '%{KEY}%'",  # noqa: S608 - a constant
    ):
        administer(url, sql)
        with closing(open_reader(url)) as log:
            assert log.check(lambda _: None)


def test_forgetting_takes_the_owner(url: LogUrl) -> None:
    """A worker that was taken over can rewrite nothing."""
    administer(url, (Path(__file__).parents[1] / "decider/log/postgres/roles.sql").read_text())
    administer(url, "drop role if exists forgetful; create role forgetful login in role decider_leader")
    try:
        other = LogUrl("".join(url).replace(f"user={USER}", "user=forgetful"))
        ran = decider("forget", UNIT, "--db", other)
        assert ran.exit_code == 1
        assert "the user may not do that" in ran.output
    finally:
        administer(url, "drop owned by forgetful; drop role forgetful")


def test_no_log_is_made_where_there_is_none(postgres_url: str) -> None:
    """Who mistypes an address must be told."""
    assert "there is no log" in decider("forget", UNIT, "--db", postgres_url).output
    assert rows(postgres_url, "select to_regclass('head')") == [(None,)]


_OFTEN = """
select unit_id, count(*) from decisions
where unit_id like 'unit-%' and unit_id not in (select unit_id from links union select same_as from links)
group by 1 order by 2 desc limit 1
"""


def test_a_killed_run_is_finished_by_the_next_one(url: LogUrl, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was removed before is removed, and the log is whole."""
    monkeypatch.setattr("decider.log.postgres.forgetting.AT_ONCE", 1)
    ((unit, count),) = rows(url, _OFTEN)
    assert isinstance(count, int)
    assert count > 1

    class Killed(Exception):
        pass

    with closing(open_to_forget(url)) as log, monkeypatch.context() as patch:
        removed = log._remove  # type: ignore[attr-defined]
        patch.setattr(log, "_remove", lambda change: (removed(change), patch.setattr(log, "_remove", fail))[0])

        def fail(_: object) -> None:
            raise Killed

        with pytest.raises(Killed):
            log.forget(str(unit), pseudonym=False, context=False, rebuild=False)
        assert damages(log) == []
    assert f"{count - 1} decisions forgotten" in decider("forget", str(unit), "--db", url).output
    with closing(open_reader(url)) as reader:
        assert reader.check(lambda _: None) == []
        assert verify(reader).first is None


# --- models


def test_models_take_only_so_many_bytes(url: LogUrl) -> None:
    """`--keep-bytes` holds for what was copied as well."""
    home = ExperimentId("home")
    with closing(open_log(url)) as log:
        before = log.sizes().models
        found = [(one, log.models.newest(home, one)) for one in log.models.signatures(home)]
        signature, newest = next((one, stored) for one, stored in found if stored is not None)
        log.models.store(ModelName(home, newest[0], signature), newest[1], keep_bytes=1)
        assert 0 < log.sizes().models < before
        assert len(rows(url, "select 1 from models where experiment = 'home'")) == 1
        assert damages(log) == []


# --- backup and restore


def test_backup_and_restore_name_what_does_it_here(url: LogUrl, tmp_path: Path) -> None:
    """With the command to type, and without the password."""
    secret = "postgresql://ann:secret@db/shop"
    for arguments, way in (
        (["backup", str(tmp_path / "b.db"), "--db", secret], DUMP),
        (["restore", str(tmp_path / "b.db"), "--db", secret], LOAD),
        (["archive", "--db", secret, "--before", "30d", str(tmp_path)], "`decider copy` the log into a file"),
    ):
        ran = decider(*arguments)
        assert ran.exit_code == 2
        assert "postgresql://ann@db/shop: this is for a log in a file. " in " ".join(ran.output.split())
        assert " ".join(way.split()) in " ".join(ran.output.split())
        assert "secret" not in ran.output
    assert url


def test_a_dump_is_a_backup(url: LogUrl, tmp_path: Path) -> None:
    """The commands of the README, word by word: dumped while a writer goes on, loaded into an empty database."""
    bin_ = programs()
    assert bin_ is not None
    administer(url, "drop database if exists restored")
    administer(url, "create database restored")
    restored = LogUrl("".join(url).replace("/postgres?", "/restored?"))
    with closing(open_log(url)) as log:
        run_as_told(DUMP, url, bin_, tmp_path)
        end = log.head()
        log.append([Tick()])
    run_as_told(LOAD, restored, bin_, tmp_path)
    ran = CliRunner().invoke(simulator, ["verify", restored])
    assert ran.exit_code == 0, ran.output
    assert re.search(r"(\d\d+) of \1 decisions equal", ran.output)
    with closing(open_log(restored)) as log:  # and it is written on
        assert log.head() == end
        log.append([Tick()])
        assert damages(log) == []
    text = README.read_text(encoding="utf-8")
    assert DUMP in text
    assert LOAD in text


def run_as_told(command: str, url: LogUrl, bin_: Path, folder: Path) -> None:
    """A command of the README, with the address put in."""
    words = command.replace("'postgresql://...'", '"$ADDRESS"')
    subprocess.run(
        ["sh", "-ec", words], cwd=folder, check=True,
        env={**os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", "ADDRESS": "".join(url)},
    )  # fmt: skip
