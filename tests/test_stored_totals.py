"""Totals that a log stores: what they save a start, when they are not used, and that counting never depends on them."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from decider.errors import EntriesArchived, LogError
from decider.experiment.definition import ExperimentVersion
from decider.experiment.strata import measures_of_all, strata_of_all
from decider.learn.versions import Versions
from decider.log.exact_sum import ZERO, ExactSum
from decider.log.log_totals import SLICE, LogTotals
from decider.log.open import open_log
from decider.log.protocol import EventLog, Mark, Tick
from decider.log.sqlite import checkpoints
from decider.log.sqlite.totals import Grouped, count_totals
from decider.log.totals import (
    MAX_REWARD_NAMES,
    ActionNames,
    Labels,
    LabelTotals,
    RewardTotals,
    Totals,
    names_of,
)
from decider.metrics import shared_totals
from decider.metrics.alarms import propensity_evidence
from decider.metrics.shared_totals import SharedTotals
from decider.types import START, ActionId, Position, Reason, RewardOutcome, Time
from tests.long_logs import PastClock, shop, write_past
from tests.rpc_clients import InProcessClient, experiment, until
from tests.sqlite_steps import steps
from tests.two_writers import decision

DECISIONS = 2_000


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A closed log whose totals are not stored."""
    write_past(tmp_path / "log.db", DECISIONS, shop())
    return tmp_path / "log.db"


@pytest.fixture
def log(db: Path) -> Iterator[EventLog]:
    """The same, with totals of two places stored, the second of its end."""
    with closing(open_log(db)) as opened:
        counted = LogTotals(opened)
        counted.advance(1_024)
        opened.store_totals(counted.checkpoint())
        counted.catch_up()
        opened.store_totals(counted.checkpoint())
        yield opened


def anew(log: EventLog) -> LabelTotals:
    """Counted from the first entry on."""
    counted, totals = log.totals(Mark(START, Time(0)), log.head().mark), LabelTotals()
    totals.add(counted, {version.position: version.experiment.id for version in log.versions()})
    return totals


def places(db: Path) -> list[int]:
    """The positions up to which totals are stored."""
    with closing(sqlite3.connect(db)) as other:
        return [row[0] for row in other.execute("select position from totals_checkpoints order by position")]


def rows_read(log: EventLog) -> int:
    """About how many steps SQLite takes for a scrape's counting."""
    return steps(log, LogTotals(log).catch_up, every=100)


def test_counting_on_costs_what_is_new(db: Path, log: EventLog) -> None:
    """Prometheus gives up after ten seconds: neither a start nor a scrape may take longer in a longer log."""
    log.append([Tick()])
    after_checkpoint = rows_read(log)
    with closing(sqlite3.connect(db)) as other:
        other.execute("delete from totals_checkpoints")
        other.commit()
    assert rows_read(log) > 100 * max(1, after_checkpoint)


DAMAGES = {
    "content": "update totals_checkpoints set content = replace(content, '1', '2')",
    "format": "update totals_checkpoints set format = 99",
    "chain": "update totals_checkpoints set chain = zeroblob(32)",
    "beyond the end": "update totals_checkpoints set position = position + 1000000",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_totals_that_do_not_fit_are_not_used(
    db: Path, log: EventLog, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong number must not be taken on for ever; counting it all again is only slow."""
    expected = anew(log)
    with closing(sqlite3.connect(db)) as other:
        other.execute(DAMAGES[damage])
        other.commit()
    counted = LogTotals(log)
    assert counted.mark.position == START
    counted.catch_up()
    assert counted.totals == expected
    assert len(caplog.messages) == 2, "one line for each that is not used"
    assert "are not used" in caplog.text
    assert log.check(lambda _: None) != []


def test_totals_of_another_log_are_not_used(log: EventLog, tmp_path: Path) -> None:
    """Somebody restores an older copy, and the server goes on differently from there: positions are the same, the
    entries are not."""
    checkpoint = log.totals_checkpoint()
    assert checkpoint is not None
    write_past(tmp_path / "other.db", DECISIONS + 500, shop())
    with closing(open_log(tmp_path / "other.db")) as other:
        assert other.head().position > checkpoint.mark.position
        other.store_totals(checkpoint)
        assert other.totals_checkpoint() is None
        assert len(other.check(lambda _: None)) == 1


def test_the_older_totals_are_used_where_the_newest_are_damaged(db: Path, log: EventLog) -> None:
    """A second place costs little and saves a long count."""
    expected = anew(log)
    with closing(sqlite3.connect(db)) as other:
        other.execute("update totals_checkpoints set content = '{}' where position > 1024")
        other.commit()
    counted = LogTotals(log)
    assert 0 < counted.mark.position <= 1_024
    counted.catch_up()
    assert counted.totals == expected


def test_names_of_rewards_are_counted_on_from_stored_totals() -> None:
    """Callers invent names: how many have a label must not begin anew with each start."""
    totals = LabelTotals()

    def add(*names: str) -> None:
        counted = Totals()
        counted.rewards = {(Position(1), name, RewardOutcome.JOINED): RewardTotals(1, ZERO, ZERO) for name in names}
        totals.add(counted, {Position(1): "shop"})

    add(*[f"name-{number}" for number in range(MAX_REWARD_NAMES - 1)])
    totals = LabelTotals.from_json(totals.to_json())
    add("last", "beyond", "name-0")
    assert totals.rewards["shop", "last", "joined"] == 1
    assert totals.rewards["shop", "other", "joined"] == 1
    assert totals.rewards["shop", "name-0", "joined"] == 2
    assert len(totals.rewards) == MAX_REWARD_NAMES + 1


def test_actions_of_all_versions_have_so_many_labels_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who offers other actions every day must not fill Prometheus in a year; and which of them have a label must not
    depend on when the server was started."""
    monkeypatch.setattr("decider.log.totals.MAX_ACTION_NAMES", 10)
    days = [[ActionId(f"article-{(7 * day + index) % 60}") for index in range(5)] for day in range(12)]

    def add(totals: LabelTotals, *actions: ActionId) -> None:
        counted = Totals()
        counted.decisions.update((Position(1), action, Reason.EXPLORE) for action in actions)
        counted.possible.update((Position(1), action) for action in actions)
        counted.inverse_propensity.update({(Position(1), action): ExactSum.of(5.0) for action in actions})
        counted.excess.update({(Position(1), action, 3): 800_000 for action in actions})
        counted.variance.update({(Position(1), action, 3): 160_000_000 for action in actions})
        totals.add(counted, {Position(1): "shop"})

    whole, restarted = LabelTotals(), LabelTotals()
    for actions in days:
        add(whole, *actions)
        restarted = LabelTotals.from_json(restarted.to_json())
        for action in reversed(actions):
            add(restarted, action)
    assert restarted == whole
    assert {name for _, name, _ in whole.decisions} == {*sorted({name for day in days for name in day})[:10], "(other)"}
    assert sum(whole.decisions.values()) == sum(whole.possible.values()) == 60
    assert float(sum(whole.inverse_propensity.values(), ZERO)) == 300
    assert propensity_evidence(whole).keys() == {"shop"}


class Passes(Counter[Labels]):
    """Labels that count how often somebody goes over all of them."""

    passes = 0

    def __iter__(self) -> Iterator[Labels]:
        self.passes += 1
        return super().__iter__()


def passes(experiments: int) -> int:
    """Over the labels, for a scrape that finds something new of so many experiments."""
    totals = LabelTotals(excess=Passes(), decisions=Passes(), possible=Passes(), rewarded=Passes())
    versions = [Position(number) for number in range(1, experiments + 1)]
    counted = Totals()
    for version in versions:
        counted.decisions[version, ActionId("a"), Reason.EXPLORE] = 1
        counted.possible[version, ActionId("a")] = 1
        counted.excess[version, ActionId("a"), 3] = 500_000
        counted.rewarded[version, "click", "policy", 3] = 1
    totals.add(counted, {version: f"experiment-{version}" for version in versions})
    return sum(one.passes for one in (totals.excess, totals.decisions, totals.possible, totals.rewarded))  # type: ignore[attr-defined]


def test_a_scrape_goes_over_the_labels_as_often_for_many_experiments_as_for_two() -> None:
    """With a pass for each experiment a scrape of 200 busy ones took six seconds."""
    assert passes(2) == passes(50)


def test_only_the_newest_totals_stay(db: Path, log: EventLog) -> None:
    """They must not grow with the log."""
    for _ in range(5):
        log.append([Tick()])
        counted = LogTotals(log)
        counted.catch_up()
        log.store_totals(counted.checkpoint())
    end = log.head().position
    assert places(db) == [end - 1, end]


def test_totals_that_are_kept_stay_and_nothing_before_them_is_counted(db: Path, log: EventLog) -> None:
    """Once entries are archived their totals are nowhere else."""
    expected = anew(log)
    end = log.head().position
    with closing(sqlite3.connect(db)) as other:
        assert not checkpoints.keep_checkpoint(other, type(end)(end + 1))
        assert checkpoints.keep_checkpoint(other, type(end)(end - 5))
        other.commit()
        assert log.check(lambda _: None) == []
        log.store_totals(LogTotals(log).checkpoint())
        assert places(db) == [end], "the same place is not stored as one that may be forgotten"
        behind = LogTotals(log)
        other.execute("delete from decisions")
        other.execute("delete from rewards")
        other.commit()
    assert behind.totals == expected
    with pytest.raises(EntriesArchived):
        log.totals(Mark(START, Time(0)), log.head().mark)
    for _ in range(4):
        log.append([Tick()])
        counted = LogTotals(log)
        counted.catch_up()
        log.store_totals(counted.checkpoint())
        assert counted.totals == expected
    assert places(db) == [end, end + 3, end + 4]
    assert not [one for one in log.check(lambda _: None) if "totals" in str(one)]


def test_who_counts_while_entries_are_archived_goes_on_from_the_totals(db: Path, log: EventLog) -> None:
    """Nobody has scraped for long, and what was not counted yet is archived meanwhile."""
    expected = anew(log)
    late = LogTotals(log)
    late._restore(None)
    late.advance(100)
    with closing(sqlite3.connect(db)) as other:
        assert checkpoints.keep_checkpoint(other, log.head().position)
        other.execute("delete from decisions")
        other.commit()
    late.catch_up()
    assert late.totals == expected


KILLED_WHILE_STORING = """
import os, signal, sys
from pathlib import Path
from decider.log.open import open_log
from decider.log.log_totals import SLICE, LogTotals
from decider.log.sqlite import checkpoints

log = open_log(Path(sys.argv[1]))
counted = LogTotals(log)
counted.catch_up()
if sys.argv[2] == "in the midst":
    checkpoints._FORGET = "select kill(?)"
    log._writer.create_function("kill", 1, lambda _: os.kill(os.getpid(), signal.SIGKILL))
log.store_totals(counted.checkpoint())
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["right after", "in the midst"])
def test_totals_of_a_killed_process_are_whole_or_not_there(db: Path, when: str) -> None:
    """A half-written one would be counted on from."""
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_STORING, str(db), when], check=False, cwd=Path.cwd())
    assert done.returncode == -signal.SIGKILL
    with closing(open_log(db)) as log:
        counted = LogTotals(log)
        assert (counted.mark.position > START) == (when == "right after")
        counted.catch_up()
        assert counted.totals == anew(log)
        assert log.check(lambda _: None) == []


def test_the_leader_stores_totals_now_and_then_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody need scrape for it: what a start has to count stays small."""
    monkeypatch.setattr(shared_totals, "STORE_EVERY", 10)
    client = InProcessClient(tmp_path / "log.db")
    client.apply(experiment("e"))
    for number in range(40):
        client.decide("e", f"unit-{number}")
    until(lambda: places(client.db), what="totals are stored")
    client.close()
    with closing(open_log(tmp_path / "log.db")) as log:
        assert places(client.db)[-1] == log.head().position
        assert LogTotals(log).totals == anew(log)


def test_counting_an_old_log_goes_on_slice_by_slice(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader that is told so makes no pause between them."""
    monkeypatch.setattr(shared_totals, "STORE_EVERY", 2)
    totals = SharedTotals(log)
    for _ in range(3):
        log.append([Tick()] * SLICE)
    assert [totals.store_if_due() for _ in range(4)] == [True, True, False, False]
    checkpoint = log.totals_checkpoint()
    assert checkpoint is not None
    assert checkpoint.mark == log.head().mark


def test_a_scrape_of_an_old_log_ends_when_the_server_stops(log: EventLog) -> None:
    """A stop waits for answers under way: counting a long log would take all of its grace period."""
    totals = SharedTotals(log, stopping=lambda: True)
    for _ in range(3):
        log.append([Tick()] * SLICE)
    with pytest.raises(LogError, match="the server stops"), totals.read():
        pass
    with SharedTotals(log).read() as counted:
        assert counted.mark == log.head().mark


def test_totals_with_many_labels_are_stored_more_rarely(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written for totals is bounded by what is written for entries."""
    monkeypatch.setattr(shared_totals, "STORE_EVERY", 1)
    monkeypatch.setattr(shared_totals, "BYTES_PER_ENTRY", 1)
    totals = SharedTotals(log)
    log.append([Tick()])
    totals.store_if_due()
    before = log.totals_checkpoint()
    assert before is not None
    assert before.mark == log.head().mark
    log.append([Tick()] * (len(before.content) - 1))
    totals.store_if_due()
    assert log.totals_checkpoint() == before
    log.append([Tick()])
    totals.store_if_due()
    assert log.totals_checkpoint() != before


def counted_by_hand(path: Path, seconds: Sequence[int], experiments: int) -> tuple[int, Totals]:
    """Of a log with so many experiments and these windows: statements that count its totals, and the totals."""
    clock = PastClock(86_400.0)
    with closing(open_log(path, clock=clock)) as log:
        for number in range(experiments):
            made = shop(f"e{number}", holdout=0.2, baseline_action="a")
            window = seconds[number % len(seconds)] * 1_000_000
            Versions(log).apply(replace(made, reward=replace(made.reward, window=window)))
        versions = {one.position: one for one in log.versions()}
        for position, version in versions.items():
            log.append([decision(version, f"{position}-{n}", f"u{n}") for n in range(5)])
        clock.advance(60)
        log.append([Tick()])
        all_, expected = (Mark(START, Time(0)), log.head().mark), log.totals(Mark(START, Time(0)), log.head().mark)
    grouped = Grouped(strata_of_all(versions.values()).get, measures_of_all(versions.values()).__getitem__)
    statements: list[str] = []
    with closing(sqlite3.connect(path)) as connection:
        connection.set_trace_callback(statements.append)
        names = partial(_names, versions)
        found = count_totals(connection, names, versions, grouped=grouped, after=all_[0], until=all_[1])
    assert found == expected
    return len(statements), found


def _names(versions: Mapping[Position, ExperimentVersion], at: Position) -> ActionNames:
    return names_of(versions[at])


@pytest.mark.parametrize("seconds", [(1,), (1, 2, 3)])
def test_statements_do_not_grow_with_versions(seconds: Sequence[int], tmp_path: Path) -> None:
    """A look at the totals of a thousand experiments must not cost a thousand times as much."""
    few, _ = counted_by_hand(tmp_path / "few.db", seconds, 4)
    many, found = counted_by_hand(tmp_path / "many.db", seconds, 40)
    assert sum(one.count for one in found.sealed.values()) == 200
    assert few == many
