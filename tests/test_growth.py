"""Beside traffic, too, a round of learning or a scrape costs no more in a long log than in a short one. Counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from decider.learn.leader import Leader
from decider.learn.versions import Versions
from decider.log.log_totals import LogTotals
from decider.log.protocol import END, NewReward, Tick
from decider.log.sqlite import action_counts
from decider.log.sqlite.sealed import PAGE_VALUES, InTimeRows, Place, sealed_page
from decider.log.sqlite.writer import SqliteLog
from decider.metrics.shared_totals import SharedTotals
from decider.serving.current import Current
from decider.serving.follower import Copies, Follower
from decider.types import START, ActionId, Context, ExperimentId, Time
from tests.long_logs import PastClock, shop, write_past
from tests.processes import PACE
from tests.sqlite_steps import steps
from tests.two_writers import decision

SHORT, LONG = 1_000, 9_000
NEWS = 200
"""Decisions between two rounds, a fourth of them with a reward."""


class Traffic:
    """A log in which things go on. Every window lasts a second."""

    def __init__(self, log: SqliteLog, clock: PastClock) -> None:
        self.log, self._clock = log, clock
        self._version = log.versions()[0]
        self._number = 0

    def go_on(self) -> None:
        """New decisions and rewards; the windows of those before are over."""
        self._clock.advance(2.0)
        self._number += 1
        marks = self.log.append([decision(self._version, f"new-{self._number}-{n}") for n in range(NEWS)])
        self.log.append([NewReward(mark.position, "click", 1.0) for mark in marks[::4] if mark])


@contextmanager
def traffic_on(path: Path, decisions: int) -> Iterator[Traffic]:
    """On a log of so many decisions, all of them sealed and no longer new."""
    write_past(path, decisions, shop(), pause=2.0)
    clock = PastClock(3_600.0)
    with closing(SqliteLog(path, clock=clock)) as log:
        yield Traffic(log, clock)


def learn(log: SqliteLog) -> Callable[[], object]:
    """A round of the leader."""
    leader = Leader(log, log.lease(), Copies(), clock=lambda: log.head().time, pace=PACE)
    leader.catch_up()
    return leader.step


def scrape(log: SqliteLog) -> Callable[[], object]:
    """What a scrape counts."""
    totals = LogTotals(log)
    totals.catch_up()
    return totals.catch_up


def store_totals(log: SqliteLog) -> Callable[[], object]:
    """What the leader counts and stores for the next start."""
    shared = SharedTotals(log)
    with shared.read():
        pass

    def count_and_store() -> None:
        with shared.read():
            pass
        shared.store()

    return count_and_store


def follow(log: SqliteLog) -> Callable[[], object]:
    """What a worker reads every 50 ms."""
    follower = Follower(log, Current(), Copies())
    return follower.follow


def maintain(log: SqliteLog) -> Callable[[], object]:
    """Housekeeping, once it has counted what a log from before this release has, a piece a round."""
    for _ in range(LONG // action_counts.PIECE + 2):
        log.maintain()
    return log.maintain


@pytest.mark.parametrize("task", [learn, scrape, store_totals, follow, maintain])
def test_a_long_log_is_no_more_work(tmp_path: Path, task: Callable[[SqliteLog], Callable[[], object]]) -> None:
    """A query that looks at all decisions to find the new ones is quick in every test, and after an hour of traffic
    takes a server's whole core."""
    counts = []
    for decisions in (SHORT, LONG):
        with traffic_on(tmp_path / f"{decisions}.db", decisions) as traffic:
            do = task(traffic.log)
            traffic.go_on()
            do()
            traffic.go_on()
            counts.append(steps(traffic.log, do, every=100))
    short, long = counts
    assert long <= 1.3 * short + 20


def test_wide_decisions_are_read_a_few_at_a_time(tmp_path: Path) -> None:
    """A call may bring a price for each of 1,000 actions: a thousand such decisions at once took 300 MB."""
    clock = PastClock(3_600.0)
    with closing(SqliteLog(tmp_path / "log.db", clock=clock)) as log:
        prices = {f"price-{number}": float(number) for number in range(1_000)}
        version = Versions(log).apply(shop()).version
        wide = [
            decision(version, f"wide-{n}", context=Context(features=prices), action_features={ActionId("a"): prices})
            for n in range(120)
        ]
        log.append(wide)
        clock.advance(2.0)
        log.append([Tick()])
        with log._snapshot() as connection:
            place, end = Place(Time(0), END), log.head().time
            page = sealed_page(
                connection, log.version_at, ExperimentId("shop"), InTimeRows(), beyond=place, until=end, cut=START
            )
        assert 0 < len(page.decisions) <= PAGE_VALUES // 2_000 + 1
        read = log.sealed_decisions(ExperimentId("shop"), after=Time(0), until=end)
        assert [one.decision.decision_id for one in read] == [one.decision_id for one in wide]
