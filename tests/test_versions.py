"""Superseded versions cost nothing: not a step, not a scrape, not a start, not the next version. Counts, not times."""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from decider.experiment.definition import ExperimentVersion
from decider.learn.versions import Versions
from decider.log import version_cache
from decider.log.log_totals import LogTotals
from decider.log.memory import MemoryLog
from decider.log.open import open_log
from decider.log.protocol import Entry, EventLog, Mark, NewModel, NewVersion, SealedDecision, Tick
from decider.log.sqlite.writer import SqliteLog
from decider.log.version_cache import VersionCache
from decider.serving.current import Current
from decider.serving.follower import Copies, Follower
from decider.serving.lineup import Lineup
from decider.types import START, ExperimentId, Position, Time
from tests.conftest import Clock, sample_experiment
from tests.processes import Process
from tests.sqlite_steps import steps
from tests.two_writers import decision

HOME = ExperimentId("home")
FEW, MANY = 20, 200


@contextmanager
def log_of(path: Path, versions: int) -> Iterator[tuple[SqliteLog, Clock]]:
    """A log with so many versions, one decision each, all windows over and closed."""
    clock = Clock()
    with closing(SqliteLog(path, clock=clock)) as log:
        for number in range(1, versions + 1):
            log.append([NewVersion(sample_experiment(salt=str(number)), number)])
            log.append([decision(log.versions()[-1], f"id-{number}")])
        clock.advance(7200)
        log.append([Tick()])
        log.maintain()
        yield log, clock


def work(log: SqliteLog, do: Callable[[], object]) -> int:
    """How many steps SQLite's machine takes for it, on all connections."""
    do()  # whatever is done once only
    return steps(log, do)


def step_of(log: SqliteLog) -> Callable[[], object]:
    """What a step of the leader asks."""

    def step() -> None:
        head = log.head()
        log.first_deadlines(after=head.time)
        log.next_deadline(after=head.time)
        list(log.sealed_decisions(HOME, after=head.time, until=head.time))
        log.follow(head.position)

    return step


def scrape_of(log: SqliteLog) -> Callable[[], object]:
    """What a scrape asks, once the log was counted."""
    totals = LogTotals(log)
    totals.catch_up()
    return totals.catch_up


def apply_to(log: SqliteLog) -> Callable[[], object]:
    """A new version of the same length each time."""
    versions = Versions(log)
    numbers = iter(range(100, 999))

    def apply() -> None:
        assert versions.apply(sample_experiment(salt=f"n{next(numbers)}")).changed

    return apply


@pytest.mark.parametrize("task", [step_of, scrape_of, apply_to])
def test_old_versions_are_no_work(tmp_path: Path, task: Callable[[SqliteLog], Callable[[], object]]) -> None:
    """A pause is a version, too: after a year there are thousands, and a step is made twice a second."""
    counts = []
    for versions in (FEW, MANY):
        with log_of(tmp_path / f"{versions}.db", versions) as (log, _):
            counts.append(work(log, task(log)))
    few, many = counts
    assert few > 0
    assert many <= few + 40, "a search in a tree that is a level higher"


def test_a_start_reads_the_definitions_that_serve(tmp_path: Path) -> None:
    """A definition takes a millisecond to read: 5,000 of them would be a start of five seconds, in each thread."""
    path = tmp_path / "log.db"
    with log_of(path, MANY):
        pass
    with closing(SqliteLog(path)) as log:
        statements: list[str] = []
        connection = log._take()
        log._idle.append(connection)
        connection.set_trace_callback(statements.append)
        follower = Follower(log, current := Current(), Copies())
        follower.follow()
        Versions(log).set_paused(HOME, paused=True)
        assert current[HOME].version.number == MANY
        assert len([sql for sql in statements if "definition from experiments" in sql]) <= 2


def test_versions_that_nobody_uses_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some 10 kB each; what serves is the same object for everybody, however many others are read meanwhile."""
    monkeypatch.setattr(version_cache, "CACHE_BYTES", 50_000)
    cache = VersionCache()
    serving = cache.put(_version(1), characters=1_000)
    for position in range(2, 30):
        cache.put(_version(position), characters=1_000)
    gc.collect()
    assert cache.get(Position(1)) is serving
    assert cache.put(_version(1), characters=1_000) is serving
    assert [position for position in range(2, 30) if cache.get(Position(position))] == [26, 27, 28, 29]


def _version(position: int) -> ExperimentVersion:
    return ExperimentVersion(sample_experiment(), number=position, position=Position(position), time=Time(0))


def test_a_closed_version_opens_again_with_a_decision(tmp_path: Path) -> None:
    """A worker that has not followed yet decides for the version before; what it decided is sealed like any other."""
    with log_of(tmp_path / "log.db", FEW) as (log, clock):
        old = log.versions()[0]
        before = log.head()
        assert log.first_deadlines(after=before.time) == {}
        log.append([decision(old, "late"), decision(old, "later")])
        end = Time(log.head().time + old.experiment.reward.window)
        assert log.next_deadline(after=before.time) == end
        clock.advance(60)
        log.append([Tick()])
        found = list(log.sealed_decisions(HOME, after=before.time, until=log.head().time))
        assert [one.decision.decision_id for one in found] == ["late", "later"]
        assert log.check(lambda _: None) == []


def test_who_learns_from_the_start_gets_every_version(tmp_path: Path) -> None:
    """Closed versions are over, not gone: a changed policy, `verify` and a first scrape read all of them."""
    with log_of(tmp_path / "log.db", FEW) as (log, _):
        assert len(list(log.sealed_decisions(HOME, after=Time(0), until=log.head().time))) == FEW
        assert log.first_deadlines(after=Time(0)) == {HOME: log.time_at(Position(2)) + 10_000_000}
        assert sum(one.count for one in log.totals(Mark(START, Time(0)), log.head().mark).sealed.values()) == FEW


def test_another_process_opens_what_this_one_has_closed(tmp_path: Path) -> None:
    """Workers write beside the leader."""
    with log_of(tmp_path / "log.db", FEW) as (log, clock), closing(SqliteLog(log.path, clock=clock)) as other:
        old = other.versions()[0]
        other.append([decision(old, "first")])
        clock.advance(7200)
        log.append([Tick()])
        log._closed_at = float("-inf")
        log.maintain()
        before = log.head()
        assert log.first_deadlines(after=before.time) == {}
        other.append([decision(old, "second")])
        assert list(log.first_deadlines(after=before.time)) == [HOME]
        assert log.check(lambda _: None) == []


def test_an_action_keeps_its_kind_after_a_thousand_versions(tmp_path: Path) -> None:
    """The kinds of removed actions are known without a look at the old definitions."""
    with closing(open_log(tmp_path / "log.db")) as log:
        first = sample_experiment()
        log.append([NewVersion(first, 1), NewVersion(sample_experiment(actions=first.actions[1:]), 2)])
        assert log.action_kinds(HOME) == {action.id: action.kind for action in first.actions}
        assert log.action_kinds(ExperimentId("other")) == {}


class Counting(MemoryLog):
    """Says whom it was asked for, and what was published together."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.asked: list[ExperimentId] = []
        self.published: list[int] = []

    def sealed_decisions(self, experiment: ExperimentId, *, after: Time, until: Time) -> Iterator[SealedDecision]:
        self.asked.append(experiment)
        return super().sealed_decisions(experiment, after=after, until=until)

    def append(self, entries: Sequence[Entry]) -> list[Mark | None]:
        models = sum(isinstance(entry, NewModel) for entry in entries)
        if models:
            self.published.append(models)
        return super().append(entries)


@pytest.fixture
def ten(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Process:
    """Ten experiments in one process."""
    monkeypatch.setattr("decider.learn.learner.PUBLISH_INTERVAL", 1e9)  # however slow the machine is
    process = Process(Counting(clock), clock)
    for number in range(10):
        process.apply(sample_experiment(id=ExperimentId(f"e{number}")))
    process.step()
    return process


def visit(process: Process, ids: Sequence[str], name: str) -> None:
    """A decision of each of these experiments, and the end of its window."""
    process.log.append([decision(process.current[ExperimentId(id_)].version, f"{name}-{id_}") for id_ in ids])
    process.clock.advance(11)


def test_an_experiment_without_news_is_not_asked(ten: Process) -> None:
    """With 200 experiments most have nothing to learn in most rounds; they must not cost the others their second."""
    log = ten.log
    assert isinstance(log, Counting)
    visit(ten, ["e3"], "a")
    log.asked.clear()
    ten.step()
    assert set(log.asked) == {"e3"}
    assert ten.heard == [("e3", 1)]
    visit(ten, ["e4", "e3"], "b")
    log.asked.clear()
    ten.step()
    assert set(log.asked) == {"e3", "e4"}
    assert sorted(ten.heard) == [("e3", 1), ("e3", 1), ("e4", 1)]


def test_the_models_of_a_round_are_published_in_one_commit(ten: Process) -> None:
    """A commit has a price of its own: 200 of them a round would be most of the learner's work."""
    log = ten.log
    assert isinstance(log, Counting)
    visit(ten, [f"e{number}" for number in range(10)], "a")
    ten.step()
    assert log.published == [10]
    assert {serving.model.position for serving in ten.current.all()} == {log.head().position - 10}


def test_a_lineup_knows_versions_by_name_alone(clock: Clock) -> None:
    """A waiting version, one that serves and one whose model is warm: no other definition is read."""
    read: list[Position] = []

    class Reading(MemoryLog):
        def version_at(self, position: Position) -> ExperimentVersion:
            read.append(position)
            return super().version_at(position)

    log: EventLog = Reading(clock=clock)
    log.append([NewVersion(sample_experiment(salt=str(number)), number) for number in range(1, 50)])
    log.append([NewVersion(sample_experiment(salt="waits"), 50, waits=True)])
    lineup = Lineup(log)
    lineup.follow(log.follow(START))
    assert (lineup[HOME].serving.number, lineup[HOME].newest.number) == (49, 50)
    assert len(read) == 3


def test_who_learns_a_long_log_keeps_no_state_of_it(tmp_path: Path) -> None:
    """A read transaction of some minutes would keep the write-ahead log growing for as long."""
    with closing(SqliteLog(tmp_path / "log.db", clock=(clock := Clock()))) as log:
        log.append([NewVersion(sample_experiment(), 1)])
        version = log.versions()[0]
        log.append([decision(version, f"id-{number}") for number in range(300)])
        clock.advance(20)
        log.append([Tick()])
        stream = log.sealed_decisions(HOME, after=Time(0), until=log.head().time)
        first = [next(stream) for _ in range(3)]
        log.append([Tick()])
        with closing(sqlite3.connect(log.path)) as beside:
            busy, pages, written = beside.execute("pragma wal_checkpoint(truncate)").fetchone()
        assert (busy, pages, written) == (0, 0, 0)
        ids = [one.decision.decision_id for one in [*first, *stream]]
        assert ids == [f"id-{number}" for number in range(300)]
