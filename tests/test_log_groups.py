"""What is written together is what each would have written alone; no call waits for another, none leaves a trace."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from decider.experiment.attribution import MOST_CREDITED
from decider.log.group_commit import Call, CommitExecutor
from decider.log.memory import MemoryLog
from decider.log.protocol import (
    MOST_ROWS,
    Awaited,
    Caller,
    DecisionRef,
    Entry,
    EventLog,
    Mark,
    NewActivation,
    NewReward,
    NewRewardChange,
    NewUnitReward,
    NewVersion,
    Orphan,
    Tick,
)
from decider.log.sqlite.writer import SqliteLog
from decider.types import DecisionId, Position
from tests.conftest import Clock, sample_experiment
from tests.rpc_clients import until
from tests.two_writers import decision

WAITING, GONE = Caller(math.inf, lambda: True), Caller(0.0, lambda: True)
KINDS = ("decision", "awaited", "given up", "reward", "unnamed", "change", "activation", "orphan", "tick")
GROUPS = st.lists(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3)), min_size=1, max_size=14), min_size=1, max_size=5
)


def entries_of(log: EventLog, group: Sequence[tuple[str, int]]) -> list[Entry]:
    """Entries, of which the log's keys refuse some."""
    version = log.versions()[-1]
    made: dict[str, list[Entry]] = {
        "decision": [decision(version, f"d{number}") for number in range(4)],
        "awaited": [Awaited(decision(version, f"d{number}"), WAITING) for number in range(4)],
        "given up": [Awaited(decision(version, f"d{number}"), GONE) for number in range(4)],
        "reward": [NewReward(Position(2 + n % 2), f"n{n % 2}", 0.5, reward_id=f"r{n}") for n in range(4)],
        "unnamed": [NewReward(Position(2), "click", float(number)) for number in range(4)],
        "change": [
            NewRewardChange(Position(2 + n % 2), f"r{n}", None if n % 2 else 0.25, f"n{n % 2}") for n in range(4)
        ],
        "activation": [NewActivation(Position(2 + number)) for number in range(4)],
        "orphan": [Orphan(f"o{number % 2}") for number in range(4)],
        "tick": [Tick()] * 4,
    }
    return [made[kind][number] for kind, number in group]


@settings(max_examples=40, deadline=None)
@given(GROUPS)
def test_a_group_is_written_as_its_entries_would_be_one_by_one(groups: list[list[tuple[str, int]]]) -> None:
    """Entries of one kind share a statement. A refused one must leave no gap, and nothing may change places."""
    with TemporaryDirectory() as folder, closing(SqliteLog(Path(folder, "log"), clock=Clock())) as log:
        alone = MemoryLog(clock=Clock())
        for each in (log, alone):
            each.append([NewVersion(sample_experiment(), 1)])
        for group in groups:
            single = [alone.append([entry])[0] for entry in entries_of(alone, group)]
            assert [mark and mark.position for mark in log.append(entries_of(log, group))] == [
                mark and mark.position for mark in single
            ]
        assert log.refused_rewards() == alone.refused_rewards()
        assert log.head().position == alone.head().position
        assert list(log.decisions_between("", "z")) == list(alone.decisions_between("", "z"))
        assert list(log.rewards_between("", "z")) == list(alone.rewards_between("", "z"))
        assert log.check(lambda _: None) == [], "chain, and the checksum over refused rewards"


def test_a_group_of_rewards_is_a_handful_of_statements(tmp_path: Path) -> None:
    """Each statement gives the interpreter lock away and has to win it back, which costs more than its work."""
    with closing(SqliteLog(tmp_path / "log")) as log:
        (version,) = log.append([NewVersion(sample_experiment(), 1)])
        assert version is not None
        log.append([decision(log.version_at(version.position), "d")])
        statements: list[str] = []
        log._writer.set_trace_callback(statements.append)
        log.append([NewReward(Position(2), "click", 1.0, reward_id=f"r{number}") for number in range(100)])
        assert len({*statements}) <= 6, "begin, head, rewards, head (with its trigger), commit"


class Counted:
    """A log's append and look-up that count how often they are asked."""

    def __init__(self) -> None:
        self.appends = self.lookups = 0

    def append(self, entries: Sequence[Entry]) -> list[Mark | None]:
        """Takes everything."""
        self.appends += 1
        return [None for _ in entries]

    def locate_all(self, ids: Sequence[DecisionId]) -> list[DecisionRef | None]:
        """Knows nothing."""
        self.lookups += 1
        return [None for _ in ids]


def test_calls_of_a_thread_share_look_ups_and_then_a_commit() -> None:
    """Thirty rewards in flight must not be thirty queries."""
    log, begin, ended = Counted(), threading.Event(), threading.Semaphore(0)
    executor = CommitExecutor(log.append, threads=1)
    locate_all = executor.share(log.locate_all)

    def reward(number: int) -> None:
        assert locate_all([DecisionId(f"d{number}")] * number) == [None] * number
        assert executor.append([Tick()] * number) == [None] * number
        ended.release()

    executor.run(Call(begin.wait, ()))
    for number in range(30):
        executor.run(Call(reward, (number,)))
    begin.set()
    for _ in range(30):
        assert ended.acquire(timeout=30)
    executor.shutdown()
    assert (log.lookups, log.appends) == (1, 1)


class Request:
    """What a call is about."""


def test_pieces_of_large_batches_share_no_commit_and_let_others_in_between() -> None:
    """Two imports of purchases must not hold up a visitor's page until both are done."""
    commits: list[list[object]] = []

    def append(entries: Sequence[Entry]) -> list[Mark | None]:
        commits.append([getattr(entry, "unit", "") or getattr(entry, "name", "") for entry in entries])
        if len(commits) == 1:
            executor.run(Call(lambda: executor.append([Orphan("page")]), ()))
        return [None] * len(entries)

    executor = CommitExecutor(append, threads=1)
    piece = [NewUnitReward("till", "purchase", 1.0) for _ in range(MOST_ROWS // MOST_CREDITED)]

    def send_all() -> None:
        for _ in range(5):
            executor.append(piece)

    for _ in range(2):
        executor.run(Call(send_all, ()))
    until(lambda: sum("till" in one for one in commits) == 10, what="all pieces are written")
    executor.shutdown()
    assert [one.count("till") for one in commits if "till" in one] == [len(piece)] * 10
    assert "page" in commits[1]


def test_an_idle_thread_keeps_no_request() -> None:
    """A request may have megabytes: those that were answered must not stay until the next one comes."""
    executor, request = CommitExecutor(Counted().append, threads=1), Request()
    gone = weakref.ref(request)

    def handle(_: Request) -> None:
        executor.append([Tick()])

    executor.run(Call(handle, (request,)))
    del request
    until(lambda: gone() is None, what="the request is forgotten")
    executor.shutdown()


def test_a_failed_commit_reaches_each_of_its_calls_and_the_next_ones_go_on() -> None:
    """Greenlets are used again: an error must not stay in one."""
    failures: list[bool] = [True, False]
    outcomes: list[str] = []
    begin, ended = threading.Event(), threading.Semaphore(0)

    def append(entries: Sequence[Entry]) -> list[Mark | None]:
        if failures.pop(0):
            raise OSError("disk full")
        return [None for _ in entries]

    executor = CommitExecutor(append, threads=1)

    def call() -> None:
        try:
            executor.append([Tick()])
            outcomes.append("written")
        except OSError as error:
            outcomes.append(str(error))
        ended.release()

    for _ in range(2):
        begin.clear()
        executor.run(Call(begin.wait, ()))
        for _ in range(3):
            executor.run(Call(call, ()))
        begin.set()
        for _ in range(3):
            assert ended.acquire(timeout=30)
    executor.shutdown()
    assert outcomes == ["disk full"] * 3 + ["written"] * 3
