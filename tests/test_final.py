"""A final reward seals its decision at once: on every log, for every reader, and to the last bit in a replay.

Learning goes by the ends of windows. An end that comes earlier than it was foreseen must lie behind everything that
was learned before, or the same log would teach something else when it is read again.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.experiment.definition import RewardDefinition
from decider.learn.archive import archive as archive_old
from decider.log.archive.part import DECISIONS_FILE
from decider.log.memory import MemoryLog
from decider.log.open import open_log, open_reader, open_to_cut
from decider.log.protocol import (
    Entry,
    EventLog,
    LogReader,
    Mark,
    NewActivation,
    NewReward,
    NewRewardChange,
    NewVersion,
    SealedDecision,
    Tick,
)
from decider.log.sqlite.writer import SqliteLog
from decider.types import START, ActionId, DecisionId, Position, Time
from simulator.verify import verify
from tests.archives import archive, ends, raw_rows
from tests.conftest import SECOND, Clock, sample_experiment, spec
from tests.test_log_readers import plain
from tests.test_reward_changes import apply, decide, sealed
from tests.test_verify import HOME, Drive, assert_equal

WINDOW = 10 * SECOND
WHOLE = RewardDefinition(window=WINDOW, maximum=500.0)


def final(at: Position, value: float = 5.0, id_: str | None = None) -> NewReward:
    """The last word about a decision."""
    return NewReward(at, "purchase", value, 1.0, id_, final=True)


def due(log: LogReader, until: int) -> list[tuple[Position, Time]]:
    """What is sealed at a time, in the order of learning."""
    found = log.sealed_decisions(HOME, after=Time(0), until=Time(until))
    return [(one.position, one.deadline) for one in found]


def test_a_final_reward_seals_its_decision_at_the_next_microsecond(log: EventLog, clock: Clock) -> None:
    """A shop that knows the end need not wait a day to learn. Not at the very time: that may have been learned."""
    version = apply(log, WHOLE)
    first, second = decide(log, version), decide(log, version, "b")
    clock.advance(2)
    log.append([final(second)])
    assert due(log, clock.now) == []
    assert due(log, clock.now + 1) == [(second, clock.now + 1)]
    assert [one.rewards for one in sealed(log, version)] == [(5.0,), ()]
    assert log.seals([first, second]) == {second: Position(5)}
    assert log.next_deadline(after=Time(clock.now)) == clock.now + 1


def test_a_writer_that_knows_of_no_seals_sees_those_of_another_one(tmp_path: Path, clock: Clock) -> None:
    """It need not ask a log that has none; but another process may close a decision at any moment."""
    path = tmp_path / "log.db"
    with closing(SqliteLog(path, clock=clock)) as log, closing(SqliteLog(path, clock=clock)) as other:
        at = decide(log, apply(log, WHOLE))
        (before,) = log.append([NewReward(at, "purchase", 1.0)])
        other.append([final(at)])
        (after,) = log.append([NewReward(at, "purchase", 1.0)])
        assert before is not None
        assert after is not None
        assert log.seals([at], until=before.position) == {}
        assert log.seals([at], until=after.position) == log.seals([at]) == {at: Position(before.position + 2)}
        assert log.seals([at], until=Position(before.position + 1)) == {}


def test_nothing_behind_it_counts_also_of_its_own_commit(log: EventLog, clock: Clock) -> None:
    """One batch has one time; the order in it is what the caller meant."""
    version = apply(log, WHOLE)
    at = decide(log, version)
    before, change = NewReward(at, "click", 1.0, 1.0, "x"), NewRewardChange(at, "x", 2.0, "click")
    log.append([before, final(at), change, NewReward(at, "click", 64.0), NewActivation(at, ActionId("none"))])
    clock.advance(1)
    log.append([NewReward(at, "click", 128.0), NewRewardChange(at, "x", None, "click")])
    (one,) = sealed(log, version)
    assert (one.rewards, one.activated, one.overridden) == ((1.0, 5.0), False, False)
    assert [str(reward.outcome) for reward in log.rewards_between("", "z")] == ["joined", "joined", "late", "late"]
    totals = log.totals(Mark(START, Time(0)), log.head().mark)
    counted = Counter({"joined": 0})
    for (_, _, outcome), rewards in totals.rewards.items():
        counted[outcome] += rewards.count
    assert counted == {"joined": 2, "late": 4}


def test_what_was_said_before_counts(log: EventLog) -> None:
    """A page is activated, then paid."""
    version = apply(log, WHOLE)
    at = decide(log, version)
    log.append([NewActivation(at, ActionId("none")), NewReward(at, "click", 1.0), final(at)])
    (one,) = sealed(log, version)
    assert (one.rewards, one.activated, one.shown) == ((1.0, 5.0), True, "none")


def test_a_change_may_be_the_last_word(log: EventLog, clock: Clock) -> None:
    """A purchase is returned, and the case is closed."""
    version = apply(log, WHOLE)
    at = decide(log, version)
    log.append([NewReward(at, "purchase", 80.0, 1.0, "order")])
    clock.advance(1)
    log.append([NewRewardChange(at, "order", None, "purchase", final=True)])
    (one,) = sealed(log, version)
    assert (one.rewards, one.deadline) == ((), clock.now + 1)


def test_only_the_first_final_reward_closes_and_a_late_or_repeated_one_nothing(log: EventLog, clock: Clock) -> None:
    """Queues deliver twice; what is sealed stays as it was learned."""
    version = apply(log, WHOLE)
    at, other = decide(log, version), decide(log, version, "b")
    log.append([final(at, id_="order")])
    end = sealed(log, version)[0].deadline
    clock.advance(1)
    assert log.append([final(at, id_="order")]) == [None]
    log.append([final(at, 7.0), NewReward(other, "click", 1.0, 1.0, "x")])
    assert log.append([NewReward(other, "click", 1.0, 1.0, "x", final=True)]) == [None]
    assert log.seals([at, other]).keys() == {at}
    clock.advance(20)
    head = log.head().position
    log.append([final(other)])
    assert log.head().position == head + 1, "its window was over: no seal is needed"
    assert [one.deadline for one in sealed(log, version)] == [end, clock.now - 21 * SECOND + WINDOW]
    assert [one.rewards for one in sealed(log, version)] == [(5.0,), (1.0,)]


def test_a_final_reward_at_the_last_moment_ends_the_window_when_it_ends_anyway(log: EventLog, clock: Clock) -> None:
    """One microsecond more would be a window that is longer than declared."""
    version = apply(log, WHOLE)
    at = decide(log, version)
    clock.now += WINDOW - 1
    log.append([final(at)])
    assert due(log, 2**60) == [(at, clock.now + 1)]


# --- laws

moves = st.lists(
    st.tuples(
        st.sampled_from(["decide", "decide", "reward", "final", "change", "last change", "activate"]),
        st.integers(0, 5),  # which decision
        st.sampled_from([0, 0, 0, 1, 3_000_000, 5_000_000]),  # microseconds before it
        st.booleans(),  # in one commit with the next
    ),
    max_size=24,
)


class Right:
    """What is right, in a few lines: what counts of each decision, and when its window ends."""

    def __init__(self, made: int) -> None:
        self.end, self.closed = made + WINDOW, False
        self.rewards: dict[int, float | None] = {}
        self.activated = False

    def say(self, kind: str, number: int, at: int) -> None:
        """One entry about it. Rewards have the number 0, which alone is changed, or their own."""
        if self.closed or at >= self.end:
            return
        if kind in ("change", "last change"):
            self.rewards[0] = float(number)
        elif kind == "activate":
            self.activated = True
        else:
            self.rewards.setdefault(0 if kind == "reward" else number, float(number))
        if "final" in kind or "last" in kind:
            self.closed, self.end = True, at + 1


def play(log: EventLog, clock: Clock, script: Sequence[tuple[Any, ...]]) -> list[Right]:
    """Carry it out; look at what is sealed after each commit, and learn it piece by piece."""
    version = apply(log, WHOLE)
    made: list[tuple[Position, Right]] = []
    pieces: list[SealedDecision] = []
    learned, waiting = Time(0), list[Entry]()
    for number, (kind, which, wait, joined) in enumerate(script, 1):
        if not waiting:
            clock.now += wait
        if kind == "decide" or not made:
            if not waiting:
                made.append((decide(log, version, str(number)), Right(clock.now)))
            continue
        at, right = made[which % len(made)]
        waiting.append(entry(kind, at, number))
        right.say(kind, number, clock.now)
        if joined:
            continue
        log.append(waiting)
        waiting = []
        end = log.head().time
        pieces += log.sealed_decisions(HOME, after=learned, until=end)
        learned = end
    log.append(waiting)
    clock.now += 2 * WINDOW
    log.append([Tick()])
    pieces += log.sealed_decisions(HOME, after=learned, until=log.head().time)
    whole = sealed(log, version)
    assert pieces == whole, "what is read piece by piece is what is read at once"
    assert [(one.deadline, one.position) for one in whole] == sorted([(one.deadline, one.position) for one in whole])
    by_position = {one.position: one for one in whole}
    for at, right in made:
        found = by_position[at]
        expected = [value for value in right.rewards.values() if value is not None]
        assert (sorted(found.rewards), found.deadline, found.activated) == (
            sorted(expected), right.end, right.activated,
        )  # fmt: skip
    return [right for _, right in made]


def entry(kind: str, at: Position, number: int) -> Entry:
    """Of a step."""
    match kind:
        case "activate":
            return NewActivation(at)
        case "change" | "last change":
            return NewRewardChange(at, "0", float(number), "click", final=kind == "last change")
        case _:
            id_ = "0" if kind == "reward" else str(number)
            return NewReward(at, "click", float(number), 1.0, id_, final=kind == "final")


@settings(max_examples=60)
@given(script=moves)
def test_every_reader_agrees_on_what_a_final_reward_closes(script: list[tuple[Any, ...]]) -> None:
    """Against the few lines above, and each other: memory, SQL, Arrow, totals, the archive."""
    with TemporaryDirectory() as folder:
        path, clock, other_clock = Path(folder) / "log.db", Clock(), Clock()
        memory = MemoryLog(clock=other_clock)
        with closing(SqliteLog(path, clock=clock)) as log:
            right = play(log, clock, script)
            assert [vars(one) for one in play(memory, other_clock, script)] == [vars(one) for one in right]
            assert list(log.rewards_between("", "z")) == list(memory.rewards_between("", "z"))
            start = Mark(START, Time(0))
            assert plain(log.totals(start, log.head().mark)) == plain(memory.totals(start, memory.head().mark))
            for ours, theirs in zip(log.arrow(HOME, log.head()), memory.arrow(HOME, memory.head()), strict=True):
                assert [row for one in ours for row in one.to_pylist()] == [r for o in theirs for r in o.to_pylist()]
            for at in {0, *[one.end + more for one in right for more in (-1, 0)]}:
                assert log.next_deadline(after=Time(at)) == memory.next_deadline(after=Time(at))
            (version,) = log.versions()
            whole = sealed(log, version)
            pieces = pieces_of_totals(log)
        assert pieces
        (part,) = archive(path, Path(folder) / "archive", [ends(path)[-1]])
        deadlines = pq.read_table(part.folder / DECISIONS_FILE)["deadline"].to_pylist()
        assert sorted(deadlines) == sorted(one.end for one in right)
        with closing(open_reader(Path(folder) / "archive")) as restored:
            assert sealed(restored, version) == whole  # type: ignore[arg-type]
            assert restored.check(lambda _: None) == []


def pieces_of_totals(log: EventLog) -> bool:
    """Whether the totals of all spans between two entries add up to those of the whole."""
    marks = [Mark(Position(at), log.time_at(Position(at))) for at in range(log.head().position + 1)]
    counts = [log.totals(*pair) for pair in itertools.pairwise(marks)]
    whole = log.totals(marks[0], marks[-1])
    parts = [one for counted in counts for one in counted.sealed.values()]
    total = [(sum(one.count for one in part), sum(float(one.reward) for one in part))
             for part in (parts, whole.sealed.values())]  # fmt: skip
    return total[0] == total[1]


# --- learning, replay, archive


class Closing(Drive):
    """Visitors of whom some say the last word: at once, later, in one commit with others, or with a change."""

    def visits(self, count: int, experiment: Any = HOME) -> None:
        """As `Drive`, with final rewards."""
        source = self.random
        for _ in range(count):
            super().visits(1, experiment)
            place = self.log.locate(DecisionId(f"d-{source.randrange(max(1, self.count - 6), self.count + 1)}"))
            if place is None or source.random() < 0.4:
                continue
            last: list[Entry] = [NewReward(place.position, "click", 1.0, 1.0, "end", final=source.random() < 0.7)]
            if source.random() < 0.4:
                last.append(NewRewardChange(place.position, "end", 0.5, "click", final=source.random() < 0.5))
            if source.random() < 0.4:
                last.append(NewReward(place.position, "click", 9.0))
            self.log.append(last)
            if source.random() < 0.5:
                self.step()


def eventful(drive: Closing, visits: int = 25) -> None:
    """Versions with several windows, a restart, and several policies."""
    for window, name in itertools.product((10, 40), ("thompson", "squarecb")):
        drive.apply(sample_experiment(reward=RewardDefinition(window=window * SECOND), policy=spec(name)))
        drive.visits(visits)
        drive.restart()
        drive.visits(visits // 2)


def test_a_log_with_final_rewards_replays(log: EventLog, clock: Clock) -> None:
    """The promise of the project: models that learned early are made again, bit for bit."""
    drive = Closing(log, clock)
    eventful(drive)
    assert_equal(verify(log), log.count_decisions())
    positions = [one.position for v in log.versions() for one in log.decisions(v.position)]
    closed = log.seals(positions)
    assert 20 < len(closed) < len(positions)
    models = {one.decision.model for v in log.versions() for one in log.decisions(v.position)}
    assert len(models) > 20


def test_final_rewards_are_archived_and_restored(tmp_path: Path, clock: Clock) -> None:
    """A decision may lie in one part and its end in the next, or still in the log."""
    path, folder = tmp_path / "log.db", tmp_path / "archive"
    with closing(open_log(path, clock=clock)) as log:
        drive = Closing(log, clock)
        eventful(drive)
        clock.advance(100)
        log.append([Tick()])
        drive.step()
        whole = list(log.sealed_decisions(HOME, after=Time(0), until=Time(2**60)))
        seals = log.seals([one.position for one in whole])
    rows = dict(raw_rows(path))
    with closing(sqlite3.connect(path)) as tool:
        times = [time for (time,) in tool.execute("select time from decisions order by position")]
    for share in (3, 2):
        with closing(open_to_cut(path)) as log:
            assert archive_old(log, folder, before=Time(times[len(times) // share]), remember=1, say=lambda _: None)
    with closing(open_reader(path)) as live:
        assert list(live.sealed_decisions(HOME, after=Time(0), until=Time(2**60))) == whole
        for after, until in itertools.pairwise([Time(0), *times[:: len(times) // 7], Time(2**60)]):
            expected = [one for one in whole if after < one.deadline <= until]
            assert list(live.sealed_decisions(HOME, after=after, until=until)) == expected
        assert live.check(lambda _: None) == []
        assert 0 < len(live.seals(list(seals))) < len(seals)
    with closing(open_reader(path, archive=[folder])) as again:
        assert list(again.sealed_decisions(HOME, after=Time(0), until=Time(2**60))) == whole
        assert again.seals(list(seals)) == seals
        assert_equal(verify(again), len(whole))
    with closing(open_log(path, clock=clock)) as log:
        (mark,) = log.append([final(whole[-1].position)])
        assert mark is None or not log.seals([whole[-1].position]).keys() - seals.keys()
    assert rows["seals"]


@pytest.mark.parametrize("damage", ["decision = decision + 1", "version = version + 1", "time = time - 1"])
def test_a_seal_that_was_changed_is_found(tmp_path: Path, clock: Clock, damage: str) -> None:
    """Who moves the end of a window changes what was learned."""
    path = tmp_path / "log.db"
    with closing(SqliteLog(path, clock=clock)) as log:
        at = decide(log, apply(log, WHOLE))
        clock.advance(1)
        log.append([final(at)])
    with closing(sqlite3.connect(path)) as tool, tool:
        tool.execute(f"update seals set {damage}")  # noqa: S608
    with closing(open_reader(path)) as log:
        assert log.check(lambda _: None)


def test_closed_decisions_are_found_by_the_end_of_their_declared_window(log: EventLog, clock: Clock) -> None:
    """So who watches the share of rewarded decisions sees them beside those that wait for the end."""
    version = apply(log, WHOLE)
    begin, made = clock.now, []
    for number in range(6):
        made.append(decide(log, version, str(number)))
        clock.advance(1)
    log.append([final(made[4], id_="a"), NewRewardChange(made[2], "a", None, "purchase", final=True), final(made[1])])
    ends = [Time(begin + number * SECOND + WINDOW) for number in range(6)]

    def closed(first: int, last: int) -> list[tuple[int, Position, bool]]:
        found = log.closed_decisions(version.position, after=ends[first], until=ends[last])
        return [(ends.index(one.window_end), one.position, one.rewarded) for one in found]

    assert closed(0, 5) == [(1, made[1], True), (2, made[2], False), (4, made[4], True)]
    assert closed(1, 4) == [(2, made[2], False), (4, made[4], True)]
    assert closed(4, 5) == closed(2, 3) == []


def test_many_closed_decisions_are_counted_and_read_in_pieces(log: EventLog, clock: Clock) -> None:
    """More than one page and one statement take."""
    version = apply(log, WHOLE)
    places = [decide(log, version, str(number)) for number in range(1, 1203)]
    clock.advance(1)
    log.append([final(at, float(at % 7)) for at in reversed(places)])
    clock.advance(1)
    log.append([Tick()])
    found = sealed(log, version)
    assert [one.position for one in found] == places
    clock.advance(WINDOW // SECOND)
    log.append([Tick()])
    (totals,) = log.totals(Mark(START, Time(0)), log.head().mark).sealed.values()
    assert (totals.count, float(totals.reward)) == (1202, sum(float(at % 7) for at in places))
    log.append([NewVersion(sample_experiment(), 2)])
