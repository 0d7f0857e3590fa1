"""One suite for every log: what `EventLog` promises holds in memory and on disk; then what only the file promises."""

from __future__ import annotations

import gc
import hashlib
import itertools
import sqlite3
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from random import Random

import numpy as np
import pytest
import sqlite_utils
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uuid_utils import uuid7

from decider.decide.decide import decide
from decider.decide.slots import SLOTS, to_slots
from decider.errors import LogCorrupt, LogError, LogLocked
from decider.experiment.aggregate import final_reward
from decider.experiment.definition import Action, Aggregation, ExperimentVersion, Learning, RewardDefinition
from decider.log import stored_models
from decider.log.memory import MemoryLog
from decider.log.protocol import (
    DecisionLine,
    Entry,
    EventLog,
    Head,
    LogReader,
    Mark,
    ModelName,
    NewActivation,
    NewBuild,
    NewModel,
    NewReward,
    NewVersion,
    Orphan,
    SealedDecision,
    Serves,
    Tick,
)
from decider.log.sqlite import models
from decider.log.sqlite.models import insert_pieces
from decider.log.sqlite.reader import SqliteReader
from decider.log.sqlite.writer import SqliteLog
from decider.policy.make import make_policy
from decider.policy.protocol import Model
from decider.policy.saved import SavedModel
from decider.policy.spec import PolicySpec
from decider.types import (
    START,
    ActionId,
    Decision,
    DecisionId,
    DecisionRequest,
    ExperimentId,
    Features,
    Position,
    Reason,
    Time,
)
from simulator.worlds.scenes import storefront
from tests.conftest import SECOND, Clock, contexts, feature_maps, names, sample_experiment
from tests.two_writers import decision

WINDOW = 10 * SECOND
"""Of the sample experiment."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a log on disk will be."""
    return tmp_path / "log.db"


def apply(log: EventLog, number: int = 1, **changes: object) -> ExperimentVersion:
    """Append a version of the sample experiment and give it as read."""
    log.append([NewVersion(sample_experiment(**changes), number)])
    return log.versions()[-1]


def position_of(mark: Mark | None) -> Position:
    """Of an entry that was written."""
    assert mark is not None
    return mark.position


def put(log: EventLog, entry: Decision) -> Position:
    """Append one decision."""
    (mark,) = log.append([entry])
    return position_of(mark)


def sealed(log: EventLog, version: ExperimentVersion, after: int = 0, until: int = 2**60) -> list[SealedDecision]:
    """What was sealed of a version in (after, until]."""
    all_of_them = log.sealed_decisions(version.experiment.id, after=Time(after), until=Time(until))
    return [one for one in all_of_them if one.decision.version == version.position]


def end_of(log: LogReader) -> Mark:
    """Its last entry."""
    head = log.head()
    return Mark(head.position, head.time)


def test_an_empty_log_ends_at_the_start(log: EventLog) -> None:
    """A learner on an empty log must have a place to begin."""
    assert log.head() == Head(START, Time(0), b"")
    assert log.time_at(START) == 0
    assert list(log.versions()) == []
    assert log.count_decisions() == 0
    assert log.find(DecisionId("x")) is None


def test_positions_are_consecutive_and_in_order_of_appending(log: EventLog, clock: Clock) -> None:
    """One total order: it names models, and replay follows it."""
    version = apply(log)
    marks = [Mark(Position(1), clock())]
    for count in (1, 3, 2):
        clock.advance(1)
        entries = [decision(version, f"{count}-{i}") for i in range(count)]
        marks += [mark for mark in log.append(entries) if mark]
    assert [mark.position for mark in marks] == [1, 2, 3, 4, 5, 6, 7]
    assert [log.time_at(mark.position) for mark in marks] == [mark.time for mark in marks]
    assert end_of(log) == marks[-1] == Mark(Position(7), clock())


def test_refused_entries_take_no_position(log: EventLog) -> None:
    """A gap in the order would look like a lost entry."""
    version = apply(log)
    entries: list[Entry] = [decision(version, "a"), decision(version, "a"), Orphan("click"), decision(version, "b")]
    marks = log.append(entries)
    assert [mark and mark.position for mark in marks] == [2, None, None, 3]
    assert end_of(log).position == 3


def test_time_never_goes_back_even_if_the_clock_does(log: EventLog, clock: Clock) -> None:
    """Windows are measured on log time; a clock set back must not reopen a sealed decision."""
    version = apply(log)
    late = clock.now
    put(log, decision(version, "a"))
    clock.advance(-3600)
    put(log, decision(version, "b"))
    assert end_of(log).time == late
    clock.advance(3601)
    put(log, decision(version, "c"))
    assert [log.time_at(Position(p)) for p in (1, 2, 3, 4)] == [late, late, late, late + SECOND]


@st.composite
def decisions(draw: st.DrawFn, version: ExperimentVersion) -> Decision:
    """Any decision that the service can make for a version."""
    eligible = tuple(
        id_ for id_ in version.all_active if draw(st.booleans())
    ) or version.all_active  # fmt: skip
    slots = to_slots([1 / len(eligible)] * len(eligible), minimum=draw(st.floats(0, 1)))
    index = draw(st.integers(0, len(eligible) - 1))
    extra: Mapping[ActionId, Features] = draw(st.dictionaries(st.sampled_from(list(version.choices)), feature_maps))
    return Decision(
        decision_id=DecisionId(draw(names)),
        version=version.position,
        unit_id=draw(names),
        context=draw(contexts),
        eligible=eligible,
        action_features=extra,
        pmf=slots,
        action=eligible[index],
        propensity=slots[index] / SLOTS,
        reason=draw(st.sampled_from(Reason)),
        model=Position(draw(st.integers(0, 2**62))),
    )


ANY_VERSION = ExperimentVersion(sample_experiment(), number=1, position=Position(1), time=Time(0))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(written=st.lists(decisions(ANY_VERSION), max_size=3, unique_by=lambda d: d.decision_id))
def test_any_decision_is_read_as_it_was_written(log: EventLog, written: list[Decision]) -> None:
    """The context that was scored is the context that is logged, to the last bit, or nothing replays."""
    if not log.versions():
        apply(log)
    first = end_of(log).position
    prefix = f"{first}:"
    entries = [d._replace(decision_id=DecisionId(prefix + d.decision_id)) for d in written]
    log.append(entries)
    for number, entry in enumerate(entries, start=1):
        found = log.find(entry.decision_id)
        assert found is not None
        assert (found.position, found.decision) == (first + number, entry)
        read = found.decision.context.features
        assert {name: repr(value) for name, value in read.items()} == {
            name: repr(value) for name, value in entry.context.features.items()
        }, "True and 1.0 are equal but not the same"
    by_version = {d.decision.decision_id: d.decision for d in log.decisions(Position(1))}
    assert all(by_version[entry.decision_id] == entry for entry in entries)


def test_the_same_decision_id_is_written_once(log: EventLog) -> None:
    """A retry is not a second decision, even if the second draw would be another."""
    version = apply(log)
    first, again = decision(version, "a"), decision(version, "a", unit_id="another")
    assert put(log, first) == 2
    assert log.append([again]) == [None]
    found = log.find(DecisionId("a"))
    assert found is not None
    assert found.decision == first
    assert log.count_decisions() == 1


def test_the_same_reward_id_counts_once_for_a_decision(log: EventLog) -> None:
    """A retry of Reward is not a second click; another decision may use the same id, and without an id all count."""
    version = apply(log)
    one, other = put(log, decision(version, "a")), put(log, decision(version, "b"))
    rewards = [
        NewReward(one, "click", 1.0, reward_id="r"),
        NewReward(one, "click", 2.0, reward_id="r"),
        NewReward(other, "click", 3.0, reward_id="r"),
        NewReward(one, "click", 4.0),
        NewReward(one, "click", 4.0),
    ]
    marks = log.append(rewards)
    assert [mark is not None for mark in marks] == [True, False, True, True, True]
    assert [s.rewards for s in sealed(log, version)] == [(1.0, 4.0, 4.0), (3.0,)]


def test_the_first_activation_counts(log: EventLog) -> None:
    """What was shown was shown: a second word about it changes nothing."""
    version = apply(log)
    at = put(log, decision(version, "a"))
    marks = log.append([NewActivation(at), NewActivation(at, ActionId("none"))])
    assert [mark is not None for mark in marks] == [True, False]
    assert [s.overridden for s in sealed(log, version)] == [False]


def test_the_same_version_is_written_once(log: EventLog) -> None:
    """Two writers of one version number would make its meaning depend on who came first."""
    apply(log)
    assert log.append([NewVersion(sample_experiment(holdout=0.5), 1)]) == [None]
    assert [v.experiment.holdout for v in log.versions()] == [0.0]


@pytest.mark.parametrize("kind", ["decision", "reward", "activation"])
def test_unique_keys_hold_under_threads(log: EventLog, kind: str) -> None:
    """Check-then-act would let two concurrent retries both count."""
    version = apply(log)
    targets = [put(log, decision(version, f"t{i}")) for i in range(25)]

    def entry(i: int, attempt: int) -> Decision | NewReward | NewActivation:
        if kind == "decision":
            return decision(version, f"new{i}", unit_id=f"attempt {attempt}")
        if kind == "reward":
            return NewReward(targets[i], "click", float(attempt), reward_id="once")
        return NewActivation(targets[i], ActionId("none"))

    barrier = threading.Barrier(4)

    def all_of_them(attempt: int) -> list[Mark | None]:
        barrier.wait()
        return [log.append([entry(i, attempt)])[0] for i in range(25)]

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(all_of_them, range(4)))
    written = [[mark for mark in of_one if mark] for of_one in zip(*answers, strict=True)]
    assert [len(marks) for marks in written] == [1] * 25
    assert end_of(log).position == 26 + 25
    assert sorted(mark.position for (mark,) in written) == list(range(27, 52))


def test_nothing_is_lost_when_many_threads_append(log: EventLog) -> None:
    """Group commit hands every caller the marks of its own entries."""
    version = apply(log)

    def append(thread: int) -> list[tuple[str, Position]]:
        ids = [f"{thread}-{i}" for i in range(40)]
        written = []
        for pair in zip(ids[::2], ids[1::2], strict=True):
            marks = log.append([decision(version, id_) for id_ in pair])
            written += [(id_, position_of(mark)) for id_, mark in zip(pair, marks, strict=True)]
        return written

    with ThreadPoolExecutor(4) as pool:
        written = list(itertools.chain(*pool.map(append, range(4))))
    for id_, position in written:
        found = log.find(DecisionId(id_))
        assert found is not None
        assert found.position == position
    assert sorted(position for _, position in written) == list(range(2, 162))


def test_a_mark_read_while_others_append_is_a_real_one(log: EventLog, clock: Clock) -> None:
    """A model is named by a mark: a position with another entry's time would not replay to the same model."""
    version = apply(log)
    done = threading.Event()
    clock.tick = 1
    seen: set[Mark] = set()

    def watch() -> None:
        while not done.is_set():
            seen.add(end_of(log))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for i in range(5000 if isinstance(log, MemoryLog) else 300):
            log.append([decision(version, str(i))])
    finally:
        done.set()
        watcher.join()
        sys.setswitchinterval(interval)
    assert [mark for mark in seen if log.time_at(mark.position) != mark.time] == []


def test_decisions_come_by_model_and_then_by_position(log: EventLog) -> None:
    """Replay learns the log once if models are asked for in rising order."""
    version = apply(log)
    for id_, model in (("a", 3), ("b", 1), ("c", 3), ("d", 0), ("e", 1)):
        put(log, decision(version, id_, model=Position(model)))
    other = apply(log, number=2)
    put(log, decision(other, "f"))
    assert [d.decision.decision_id for d in log.decisions(version.position)] == ["d", "b", "e", "a", "c"]
    assert [d.decision.decision_id for d in log.decisions(other.position)] == ["f"]
    assert log.count_decisions() == 6


def test_sealed_takes_windows_that_end_after_after_and_up_to_until(log: EventLog, clock: Clock) -> None:
    """(after, until]: pieces that touch must give every decision exactly once."""
    version = apply(log)
    start = clock.now
    for i in range(5):
        put(log, decision(version, str(i)))
        clock.advance(1)
    deadlines = [start + i * SECOND + WINDOW for i in range(5)]

    def ids(after: int, until: int) -> str:
        return "".join(s.decision.decision_id for s in sealed(log, version, after, until))

    assert [s.deadline for s in sealed(log, version)] == deadlines
    assert ids(deadlines[0], deadlines[2]) == "12"
    assert ids(deadlines[0] - 1, deadlines[2] - 1) == "01"
    assert ids(deadlines[2], deadlines[2]) == ""
    assert ids(0, deadlines[0]) == "0"
    assert ids(0, deadlines[0] - 1) == ""
    assert ids(deadlines[4], 2**60) == ""
    edges = [0, deadlines[0], deadlines[1] + 1, deadlines[3] - 1, deadlines[3], 2**60]
    assert "".join(itertools.starmap(ids, itertools.pairwise(edges))) == "01234"


def test_only_rewards_within_the_window_are_joined(log: EventLog, clock: Clock) -> None:
    """One at exactly the deadline is late: the decision is sealed at that time, and may have been learned."""
    version = apply(log)
    at = put(log, decision(version, "a"))
    clock.advance(9.999999)
    log.append([NewReward(at, "click", 2.0, weight=3.0)])
    clock.advance(0.000001)
    log.append([NewReward(at, "click", 100.0)])
    clock.advance(5)
    log.append([NewReward(at, "click", 1000.0)])
    assert [s.rewards for s in sealed(log, version)] == [(6.0,)]


def test_rewards_come_weighted_and_in_order_of_arrival(log: EventLog) -> None:
    """`first` and `last` mean arrival, whatever the caller says about when it happened."""
    version = apply(log)
    at = put(log, decision(version, "a"))
    log.append([NewReward(at, "buy", 5.0, 2.0, occurred_at=Time(9)), NewReward(at, "click", -1.0, 0.5)])
    log.append([NewReward(at, "click", 0.0, 7.0, occurred_at=Time(3))])
    assert [s.rewards for s in sealed(log, version)] == [(10.0, -0.5, 0.0)]


def test_a_decision_is_overridden_only_by_another_action_within_the_window(log: EventLog, clock: Clock) -> None:
    """What is learned at the deadline must not change when a late word comes in."""
    version = apply(log)
    ids = [put(log, decision(version, id_)) for id_ in "abc"]
    log.append([NewActivation(ids[0]), NewActivation(ids[1], ActionId("none"))])
    clock.advance(10)
    log.append([NewActivation(ids[2], ActionId("none"))])
    assert [s.overridden for s in sealed(log, version)] == [False, True, False]


def test_versions_have_windows_of_their_own(log: EventLog, clock: Clock) -> None:
    """A new version with a shorter window must not change when the old one's decisions are sealed."""
    old = apply(log)
    put(log, decision(old, "a"))
    new = apply(log, number=2, reward=RewardDefinition(window=SECOND))
    put(log, decision(new, "b"))
    now = clock.now
    assert [s.deadline - now for s in sealed(log, old)] == [10 * SECOND]
    assert [s.deadline - now for s in sealed(log, new)] == [SECOND]
    assert log.next_deadline(after=Time(now)) == now + SECOND
    assert log.next_deadline(after=Time(now + SECOND)) == now + 10 * SECOND


def test_the_next_deadline_lies_beyond_after(log: EventLog, clock: Clock) -> None:
    """The learner writes a tick when it is reached, and must not write a second one for the same."""
    version = apply(log)
    assert log.next_deadline(after=Time(0)) is None
    start = clock.now
    put(log, decision(version, "a"))
    clock.advance(2)
    put(log, decision(version, "b"))
    first, second = start + WINDOW, start + 2 * SECOND + WINDOW
    assert log.next_deadline(after=Time(0)) == first
    assert log.next_deadline(after=Time(first - 1)) == first
    assert log.next_deadline(after=Time(first)) == second
    assert log.next_deadline(after=Time(second)) is None


def test_versions_are_read_as_they_were_applied(log: EventLog, clock: Clock) -> None:
    """Every decision names its version; what it meant must be in the log, complete."""
    experiments = [
        sample_experiment(),
        sample_experiment(id=ExperimentId("other"), description="größer 😀", salt="x"),
        sample_experiment(
            holdout=0.25,
            paused=True,
            learning=Learning.FROZEN,
            policy=PolicySpec("bag", {"size": 7, "epsilon": 0.125}, ("CA", "CCA"), (-1.0, 9.0)),
            reward=RewardDefinition(1_500_001, -0.5, {"buy": 10.0, "click": 0.1}, -1.0, 9.0, Aggregation.MAX),
            actions=(
                Action(ActionId("outfit"), "content", {"x": 1.5, "flag": False, "c": "a|b"}, {"title": ["t", 1, None]}),
            ),
        ),
    ]
    for number, experiment in zip((1, 1, 2), experiments, strict=True):
        log.append([Tick()])
        log.append([NewVersion(experiment, number)])
        clock.advance(1)
    read = log.versions()
    assert [v.experiment for v in read] == experiments
    assert [(v.number, v.position) for v in read] == [(1, 2), (1, 4), (2, 6)]
    assert [v.time for v in read] == [log.time_at(v.position) for v in read]
    assert list(log.newest_versions(HOME, most=9)) == [6, 2]
    assert list(log.newest_versions(HOME, most=1)) == [6]
    assert list(log.newest_versions(ExperimentId("none"), most=1)) == []


def test_the_newest_decisions_of_a_version(log: EventLog) -> None:
    """For a person who looks for one: the newest first, and no more than was asked for."""
    version = apply(log)
    log.append([decision(version, f"d{number}") for number in range(3)])
    last = decision(version, "d3")
    log.append([last])
    found = log.newest_decisions(version.position, most=2)
    assert [one.decision_id for one in found] == ["d3", "d2"]
    assert found[0] == DecisionLine(last.decision_id, log.head().time, last.action, last.reason)
    assert len(log.newest_decisions(version.position, most=9)) == 4
    assert list(log.newest_decisions(Position(999), most=9)) == []


HOME = ExperimentId("home")


def model(position: int, *, of: str = "squarecb", experiment: str = "home") -> tuple[ModelName, SavedModel]:
    """A model whose data says which."""
    data = f"{experiment} {of} {position}".encode() + bytes(range(256))
    name = ModelName(ExperimentId(experiment), Position(position), of)
    return name, SavedModel(of, hashlib.sha256(data).hexdigest(), data)


def store(log: EventLog, made: tuple[ModelName, SavedModel], *, keep_bytes: int = 10**6) -> None:
    """Publish it and store it."""
    log.append([NewModel(made[0], learned=1)])
    log.models.store(*made, keep_bytes=keep_bytes)


def test_the_newest_stored_model_of_a_signature_is_found(log: EventLog) -> None:
    """A restarted learner goes on from it: an older or a foreign one would learn twice or wrongly."""
    assert log.models.newest(HOME, "squarecb") is None
    for made in (model(5), model(12), model(9), model(20, of="bag"), model(30, experiment="other")):
        store(log, made)
    log.append([NewModel(model(40)[0], learned=1)])
    assert log.models.newest(HOME, "squarecb") == (12, model(12)[1])
    assert log.models.newest(HOME, "bag") == (20, model(20, of="bag")[1])
    assert log.models.newest(HOME, "softmax") is None
    assert log.models.load(model(9)[0]) == model(9)[1]
    assert log.models.load(model(10)[0]) is None
    assert log.models.stored_positions(HOME, "squarecb") == [5, 9, 12]


def test_every_published_model_keeps_its_name(log: EventLog) -> None:
    """Decisions name it and replay makes it anew, long after its data is gone; twice published is once published."""
    for position, of in ((7, "b"), (3, "a"), (5, "a"), (9, "b"), (5, "c")):
        log.append([NewModel(model(position, of=of)[0], learned=position)])
    assert log.append([NewModel(model(5, of="a")[0], learned=99)]) == [None]
    assert log.models.published_positions(HOME, "a") == [3, 5]
    assert log.models.published_positions(HOME, "b") == [7, 9]
    assert log.models.published_positions(HOME, "d") == []
    assert log.models.signatures(HOME) == ["b", "a", "c"]
    assert log.models.signatures(ExperimentId("other")) == []


def test_a_model_stored_again_replaces_the_stored_one(log: EventLog) -> None:
    """That is how a damaged stored model is mended."""
    name, saved = model(5)
    log.models.store(name, SavedModel(saved.signature, saved.checksum, b"damaged" * 300), keep_bytes=10**6)
    log.models.store(name, saved, keep_bytes=10**6)
    assert log.models.load(name) == saved


def test_stored_models_take_only_so_many_bytes(log: EventLog) -> None:
    """Otherwise the file grows by a model a second; other experiments' models are not theirs to drop."""
    store(log, model(1, experiment="other"), keep_bytes=1)
    size = len(model(1, of="squarecb")[1].data)
    for position in range(1, 9):
        store(log, model(position, of="bag" if position % 2 else "squarecb"), keep_bytes=3 * size)
    assert log.models.stored_positions(HOME, "squarecb") == [6, 8]
    assert log.models.stored_positions(HOME, "bag") == [7]
    assert log.models.load(model(1, experiment="other")[0]) is not None


def test_the_newest_stored_model_of_each_signature_that_is_needed_stays(log: EventLog) -> None:
    """What serves and what waits go on from there, however much room another one took; what nobody needs any more
    counts among the bytes."""
    store(log, model(1, of="bag"))
    for position in range(2, 6):
        name, saved = model(position)
        log.append([NewModel(name, learned=1)])
        log.models.store(name, saved, keep_bytes=1, keep=["bag"])
    assert log.models.stored_positions(HOME, "bag") == [1]
    assert log.models.stored_positions(HOME, "squarecb") == [5]
    store(log, model(6), keep_bytes=1)
    assert log.models.stored_positions(HOME, "bag") == []


def test_so_many_models_are_kept_and_then_one_an_hour(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small models are stored twice a second, and each store looks at all: 20,000 of them took 75 ms of it. Older ones
    are what a person goes back to."""
    monkeypatch.setattr(stored_models, "NEWEST", 10)
    monkeypatch.setattr(stored_models, "MOST", 14)
    wall = iter(range(0, 10**15, stored_models.HOUR // 5))
    monkeypatch.setattr(models, "now", lambda: next(wall))
    with closing(SqliteLog(file)) as log:
        for position in range(1, 101):
            store(log, model(position))
        kept = log.models.stored_positions(HOME, "squarecb")
        assert kept[-10:] == list(range(91, 101))
        hours = [(position - 1) // 5 for position in kept[:-10]]
        assert len(kept) == 14
        assert len(set(hours)) == len(hours)
        assert hours == [14, 15, 16, 17]


def test_a_log_with_thousands_of_models_is_thinned_out_bit_by_bit(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else is learned while models are deleted."""
    with closing(SqliteLog(file)) as log:
        monkeypatch.setattr(stored_models, "MOST", 10**9)
        monkeypatch.setattr(stored_models, "NEWEST", 10**9)
        for position in range(1, 31):
            store(log, model(position))
        monkeypatch.setattr(stored_models, "MOST", 5)
        monkeypatch.setattr(stored_models, "NEWEST", 5)
        monkeypatch.setattr(models, "AT_ONCE", 10)
        store(log, model(31))
        assert len(log.models.stored_positions(HOME, "squarecb")) == 21
        for position in (32, 33):
            store(log, model(position))
        assert log.models.stored_positions(HOME, "squarecb") == [29, 30, 31, 32, 33]


def test_a_stored_model_is_small_and_comes_back_to_the_bit(file: Path) -> None:
    """A policy's arrays are mostly zeros; 200 experiments would fill a disk. Older builds stored them plain."""
    data = bytes(40_000) + bytes(range(256))
    saved = SavedModel("squarecb", hashlib.sha256(data).hexdigest(), data)
    plain, packed = ModelName(HOME, Position(1), "squarecb"), ModelName(HOME, Position(2), "squarecb")
    with closing(SqliteLog(file)) as log:
        log.append([NewModel(plain, 1), NewModel(packed, 2)])
        assert log.models.store(packed, saved, keep_bytes=10**9) == 4096
        with closing(sqlite3.connect(file)) as db:
            insert_pieces(db, (HOME, "squarecb", 1), 0, saved.checksum, data)
            db.commit()
            (size,) = db.execute("select sum(length(data)) from models where position = 2").fetchone()
        assert size < 1_000
        assert log.models.load(plain) == log.models.load(packed) == saved
        assert log.check(lambda _: None) == []
        with closing(sqlite3.connect(file)) as db:
            db.execute("update models set data = cast(substr(data, 1, 20) || 'torn' as blob) where position = 2")
            db.commit()
        assert log.models.load(packed) is None
        assert [found.text for found in log.check(lambda _: None)] == [
            "the stored model of home up to position 2 is damaged",
            "table model_bytes does not say 40280",
        ]


def test_what_serves_is_written_in_the_order(log: EventLog) -> None:
    """A version that waits, the word that it serves, a build: entries like all others, each once."""
    marks = log.append([NewVersion(sample_experiment(), 1, waits=True), Serves(Position(1)), Serves(Position(1))])
    assert [mark and mark.position for mark in marks] == [1, 2, None]
    assert log.name_build({"decider": "1", "größe": [1, None]}) == 3
    assert log.append([NewBuild({"decider": "1"})])[0] is not None
    assert log.builds() == {3: {"decider": "1", "größe": [1, None]}, 4: {"decider": "1"}}
    following = log.follow(START)
    assert [(version.position, waits) for version, waits in following.versions] == [(1, True)]
    assert list(following.serves) == [(2, 1)]


def test_decisions_name_the_build_that_wrote_them(log: EventLog) -> None:
    """A rolling update mixes builds; replay must know whose decision it looks at."""
    version = apply(log)
    put(log, decision(version, "before"))
    build = log.name_build({"decider": "1"})
    put(log, decision(version, "alone"))
    log.append([Tick(), decision(version, "beside others")])
    found = {logged.decision.decision_id: logged.build for logged in log.decisions(version.position)}
    assert found == {"before": 0, "alone": build, "beside others": build}


def test_only_one_leads(log: EventLog) -> None:
    """Two learners would seal and publish past each other."""
    lease = log.lease()
    with pytest.raises(LogLocked, match="another server writes this log"):
        log.lease()
    assert lease.held
    lease.release()
    assert not lease.held
    again = log.lease()
    lease.release()
    assert again.held, "who has let go must not take it from the next one"


def test_nothing_is_archived_of_a_new_log(log: EventLog) -> None:
    """Whoever learns or answers asks every log for its cut."""
    version = apply(log)
    assert log.cut() == Mark(START, Time(0))
    assert log.models.base(version.experiment.id, version.experiment.policy.signature) is None
    log.check_archive(version.experiment.id, after=Time(0))


def test_the_smallest_model_of_each_version_and_build_is_named(log: EventLog) -> None:
    """Whoever recomputes the decisions behind a position has to know where learning begins."""
    version = apply(log)
    first = put(log, decision(version, "a"))
    build = log.name_build({"decider": "1"})
    for id_, model in (("b", first), ("c", START), ("d", build)):
        last = put(log, decision(version, id_)._replace(model=model))
    assert log.named_models(START) == [(version.position, START, START), (version.position, build, START)]
    assert log.named_models(Position(last - 1)) == [(version.position, build, build)]
    assert log.named_models(last) == []


def test_an_untouched_log_has_no_damage(log: EventLog, clock: Clock) -> None:
    """Whatever is appended, together or alone, refused or not, with the clock moving or not."""
    version = apply(log)
    at = put(log, decision(version, "a"))
    log.append([decision(version, id_) for id_ in "bcd"])
    clock.advance(1)
    log.append([decision(version, "a"), decision(version, "e"), NewReward(at, "click", -0.0, reward_id="r"), Tick()])
    log.append([NewReward(at, "click", 1.0, reward_id="r"), Orphan("x"), NewActivation(at)])
    log.append([NewReward(at, "click", 1.0, reward_id="r")])
    store(log, model(3))
    log.name_build({"decider": "1"})
    log.append([Serves(version.position)])
    assert log.check(lambda _: None) == []


# --- the file


@pytest.fixture
def busy_file(file: Path, clock: Clock) -> Path:
    """A closed log with a bit of everything in it."""
    with closing(SqliteLog(file, clock=clock)) as log:
        version = apply(log)
        positions = [put(log, decision(version, str(i))) for i in range(3)]
        log.append([NewReward(positions[0], "click", 1.0), NewActivation(positions[1], ActionId("none")), Tick()])
        store(log, model(4))
        clock.advance(11)
        log.append([Tick()])
    return file


def contents(log: SqliteReader) -> list[object]:
    """Everything there is to read."""
    version = log.versions()[0]
    return [
        end_of(log),
        [(v.experiment, v.number, v.position, v.time) for v in log.versions()],
        list(log.decisions(version.position)),
        list(log.sealed_decisions(HOME, after=Time(0), until=end_of(log).time)),
        log.models.newest(HOME, "squarecb"),
    ]


def test_a_log_opened_again_is_the_same(busy_file: Path, clock: Clock) -> None:
    """A restart loses nothing and goes on at the next position, by writer and by reader."""
    with closing(SqliteReader(busy_file)) as reader, closing(SqliteLog(busy_file, clock=clock)) as log:
        assert contents(reader) == contents(log)
        assert end_of(log).position == 9
        clock.advance(-100)
        before = end_of(log).time
        assert log.append([Tick()]) == [Mark(Position(10), before)]
        assert end_of(reader) == end_of(log)


def test_a_closed_log_is_one_file(busy_file: Path) -> None:
    """People copy the .db file alone; what is still in the write-ahead log would be lost."""
    copy = busy_file.with_name("copy.db")
    copy.write_bytes(busy_file.read_bytes())
    with closing(SqliteReader(copy)) as reader:
        assert reader.count_decisions() == 3
        assert end_of(reader).position == 9


def test_a_reader_that_stays_does_not_hold_up_closing(file: Path) -> None:
    """A program that copies the log all the time reads in a transaction that never ends: each restart would wait."""
    with closing(sqlite3.connect(file, isolation_level=None)) as reader:
        log = SqliteLog(file, patience=3600)
        log.append([Tick()])
        reader.execute("begin")
        reader.execute("select * from head").fetchall()
        (end,) = log.append([Tick()])
        log.close()
        with closing(SqliteReader(file)) as reopened:
            assert end_of(reopened) == end


def test_another_process_s_transaction_is_named(file: Path) -> None:
    """Somebody's open `begin immediate` must be told from a damaged file."""
    with closing(SqliteLog(file, patience=0.05)) as log, closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(LogLocked):
            log.append([Tick()])
        assert isinstance(log.trouble, LogLocked)
        other.execute("rollback")
        assert log.append([Tick()]) == [end_of(log)]
        assert log.trouble is None


def test_a_file_that_is_no_database_is_refused(file: Path) -> None:
    """A wrong path must not be overwritten, and must say what to do."""
    file.write_bytes(b"to be or not to be, that is the question" * 100)
    before = file.read_bytes()
    for open_ in (SqliteLog, SqliteReader):
        with pytest.raises(LogCorrupt, match="not a log"):
            open_(file)
    assert file.read_bytes() == before


def test_a_refused_file_is_let_go(file: Path) -> None:
    """A server that tries again, and a person who mends the file, must not find it locked by the failed attempt."""
    file.write_bytes(b"to be or not to be" * 100)
    errors: list[LogError] = []
    try:
        SqliteLog(file)
    except LogError as error:
        errors.append(error)  # and with its traceback every object of the failed attempt
    file.unlink()
    SqliteLog(file).close()
    errors.clear()
    gc.collect()


def test_another_application_s_database_is_refused_to_read(file: Path) -> None:
    """An SQLite file without our tables is not a log."""
    with closing(sqlite3.connect(file)) as other:
        other.execute("create table customers (name text)")
    with pytest.raises(LogCorrupt, match="not a log"):
        SqliteReader(file)


def test_another_application_s_database_is_not_written_to(file: Path) -> None:
    """`--db` with the wrong file must not add tables to somebody's data."""
    with closing(sqlite3.connect(file)) as other:
        other.execute("create table customers (name text)")
    with pytest.raises(LogError):
        SqliteLog(file).close()
    with closing(sqlite3.connect(file)) as other:
        assert other.execute("select group_concat(name) from sqlite_master").fetchone() == ("customers",)


def test_a_missing_log_is_not_made_by_reading(file: Path) -> None:
    """A typo in `simulator verify` must not answer `0 of 0 equal`."""
    with pytest.raises(LogError, match="no such log"):
        SqliteReader(file)
    assert not file.exists()


def test_a_log_of_a_newer_release_is_refused(file: Path) -> None:
    """What an older release does not know it must not guess."""
    SqliteLog(file).close()
    with closing(sqlite3.connect(file)) as other:
        other.execute(
            "insert into _sqlite_migrations (migration_set, name, applied_at) values ('decider.log', 'later', '2099')"
        )
        other.commit()
    with pytest.raises(LogError, match="newer release"):
        SqliteLog(file)


def test_a_failed_commit_writes_nothing_of_it(file: Path) -> None:
    """`append` raised, so nothing may be acknowledged or kept; the next append goes on at the same position."""
    with closing(SqliteLog(file)) as log, closing(sqlite3.connect(file, isolation_level=None)) as other:
        version = apply(log)
        other.execute("create trigger full before insert on ticks begin select raise(abort, 'full'); end")
        with pytest.raises(LogError, match="full"):
            log.append([decision(version, "a"), Tick()])
        other.execute("drop trigger full")
        assert log.find(DecisionId("a")) is None
        assert end_of(log).position == 1
        assert put(log, decision(version, "a")) == 2


def test_threads_that_have_ended_leave_no_connections_behind(busy_file: Path) -> None:
    """The HTTP client reads the log in a new thread for every scrape; open files are limited (1,024 as a rule)."""
    with closing(SqliteReader(busy_file)) as reader:
        for _ in range(40):
            thread = threading.Thread(target=reader.head)
            thread.start()
            thread.join()
        gc.collect()
        opened = [fd.resolve() for fd in Path("/proc/self/fd").iterdir()]
        assert opened.count(busy_file.resolve()) <= 5


def test_a_decision_takes_at_most_300_bytes(file: Path, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """100 million decisions a year must stay an ordinary file: 10 actions, five context fields, indexes included."""
    count, source = 20_000, Random(1)
    actions = tuple(Action(ActionId(f"action-{i}")) for i in range(10))
    with closing(SqliteLog(file, clock=clock)) as log:
        version = apply(log, actions=actions, baseline=None)
        log._writer.execute("pragma wal_checkpoint(truncate)")
        empty = file.stat().st_size  # a page of 4,096 bytes for each table and index, once
        served = Model(make_policy(PolicySpec()), Position(1))
        made = []
        for i in range(count):
            context = storefront.visitor(source)._replace(segment="bargain", location="north")
            if i % 500 == 0:
                policy = make_policy(PolicySpec())
                policy.learn(
                    context, version.choices_of(version.all_active, {}), drawn=i % 10, propensity=0.1, reward=1.0
                )
                served = Model(policy, Position(i + 1))
            request = DecisionRequest(DecisionId(str(uuid7())), f"visitor-{source.randrange(10**9):09d}", context)
            made.append(decide(request, version, served))
        for start in range(0, count, 500):
            log.append(made[start : start + 500])
            clock.advance(1)
    size = (file.stat().st_size - empty) / count
    with capsys.disabled():
        print(f" {size:.0f} bytes per decision", end="")
    assert size <= 288  # and 12 for an empty file, shared by 20,000
    assert empty <= 400_000


# --- the views for people

rewards_lists = st.lists(
    st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.0, 0.25, 1.0]) | st.floats(-3, 3), max_size=4), min_size=1, max_size=4
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@pytest.mark.parametrize("aggregation", Aggregation)
@given(groups=rewards_lists, weight=st.sampled_from([1.0, -1.0, 0.1, 0.0]))
def test_the_view_says_the_same_reward_as_the_learner(
    views: SqliteLog, clock: Clock, aggregation: Aggregation, groups: list[list[float]], weight: float
) -> None:
    """People look at SQL, policies learn from Python: for positive, zero and negative sets both are one number."""
    definition = RewardDefinition(window=WINDOW, default=0.125, minimum=-1.5, maximum=2.0, aggregation=aggregation)
    version = apply(views, number=len(views.versions()) + 1, reward=definition)
    prefix = version.position
    places = [put(views, decision(version, f"{prefix}-{i}")) for i in range(len(groups))]
    longest = max(map(len, groups))
    for turn in range(longest):  # interleaved, so that order of arrival is not order of decisions
        views.append(
            [
                NewReward(at, "r", rewards[turn], weight)
                for at, rewards in zip(places, groups, strict=True)
                if turn < len(rewards)
            ]
        )
    clock.advance(10)
    views.append([Tick(), *[NewReward(at, "late", 77.0) for at in places]])
    expected = {s.position: final_reward(definition, s.rewards) for s in sealed(views, version)}
    assert list(expected) == places
    rows = rows_of(
        views, "select position, reward, rewards, overridden from sealed_decisions where version = ?", (prefix,)
    )
    assert {row[0]: row[1] for row in rows} == pytest.approx(expected, abs=1e-9)
    assert {row[0]: row[2] for row in rows} == dict(zip(places, map(len, groups), strict=True))


def rows_of(log: SqliteLog, sql: str, parameters: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """What a person's tool shows."""
    with closing(sqlite3.connect(log.path)) as tool:
        return tool.execute(sql, parameters).fetchall()


@pytest.fixture
def views(file: Path, clock: Clock) -> Iterator[SqliteLog]:
    """A log on disk whose views are read."""
    with closing(SqliteLog(file, clock=clock)) as log:
        yield log


def test_the_view_shows_only_what_is_sealed(views: SqliteLog, clock: Clock) -> None:
    """A decision whose window is open has no final reward, and would pull every mean down."""
    version = apply(views)
    a = put(views, decision(version, "a"))
    clock.advance(9.999999)
    views.append([Tick(), NewActivation(a, ActionId("none"))])
    assert rows_of(views, "select * from sealed_decisions") == []
    clock.advance(0.000001)
    b = put(views, decision(version, "b"))
    assert rows_of(views, "select position, overridden from sealed_decisions") == [(a, 1)]
    views.append([NewActivation(b)])
    clock.advance(10)
    views.append([Tick()])
    assert rows_of(views, "select position, overridden from sealed_decisions") == [(a, 1), (b, 0)]


def test_joined_rewards_says_what_became_of_each(views: SqliteLog, clock: Clock) -> None:
    """The first question of whoever debugs an integration: did my reward count?"""
    version = apply(views)
    a = put(views, decision(version, "a"))
    clock.advance(2.5)
    views.append([NewReward(a, "click", 1.0)])
    clock.advance(7.5)
    views.append([NewReward(a, "click", 1.0)])
    rows = rows_of(views, "select decision_id, outcome, delay_seconds from joined_rewards order by position")
    assert rows == [("a", "joined", 2.5), ("a", "late", 10.0)]


def test_refused_rewards_are_counted(views: SqliteLog) -> None:
    """Nothing of them is kept, but that they came is news."""
    version = apply(views)
    a = put(views, decision(version, "a"))
    views.append([NewReward(a, "click", 1.0, reward_id="r")] * 3 + [Orphan("click"), Orphan("buy"), Orphan("buy")])
    rows = rows_of(views, "select * from refused_rewards order by 1, 2")
    assert rows == [("buy", "orphan", 2), ("click", "duplicate", 2), ("click", "orphan", 1)]


def test_action_summary_weighs_by_inverse_propensity(views: SqliteLog, clock: Clock) -> None:
    """The weighted mean is sum(reward / propensity) over draws of the action / all draws from a policy."""
    version = apply(views)
    source = Random(5)
    made: list[tuple[Decision, float]] = []
    for i in range(300):
        slots = to_slots(source.choice([[0.1, 0.2, 0.7], [0.25, 0.25, 0.5], [0.6, 0.3, 0.1]]))
        index = source.randrange(3)
        reason = source.choice([Reason.EXPLOIT, Reason.EXPLORE, Reason.HOLDOUT, Reason.NO_EXPLORATION])
        entry = decision(
            version,
            str(i),
            pmf=slots,
            action=version.all_active[index],
            propensity=slots[index] / SLOTS,
            reason=reason,
        )
        at = put(views, entry)
        reward = source.choice([0.0, 1.0])
        if reward:
            views.append([NewReward(at, "click", reward)])
        made.append((entry, reward))
    clock.advance(10)
    views.append([Tick()])
    rows = {row[0]: row[1:] for row in rows_of(views,
        "select action, sealed, rewarded, mean_propensity, confounded_mean_reward, weighted_mean_reward "
        "from action_summary"
    )}  # fmt: skip
    action, why, propensity = (
        np.array([getattr(d, name) for d, _ in made]) for name in ("action", "reason", "propensity")
    )
    rewards = np.array([reward for _, reward in made])
    drawn = np.isin(why, [Reason.EXPLOIT, Reason.EXPLORE])
    assert set(rows) == set(version.all_active)
    for id_, (count, rewarded, mean_propensity, raw, weighted) in rows.items():
        mine = action == id_
        assert count == mine.sum()
        assert rewarded == (rewards[mine] > 0).sum()
        assert mean_propensity == pytest.approx(propensity[mine].mean())
        assert raw == pytest.approx(rewards[mine].mean())
        assert weighted == pytest.approx((rewards * mine * drawn / propensity).sum() / drawn.sum())


def test_sqlite_utils_reads_every_table_and_view(busy_file: Path) -> None:
    """Researchers open a log with the tools they have; every row must come out as plain values."""
    database = sqlite_utils.Database(busy_file)
    try:
        views = set(database.view_names())
        assert {"sealed_decisions", "action_summary", "joined_rewards", "entries"} <= views
        for name in [*views, *database.table_names()]:
            rows = list(database[name].rows)
            assert all(isinstance(row, dict) for row in rows), name
        assert len(list(database["sealed_decisions"].rows)) == 3
    finally:
        database.close()


def test_a_decision_is_located_where_it_was_found(log: EventLog) -> None:
    """Rewards and activations only need its place; the two ways to look must not differ."""
    put(log, decision(apply(log), "here"))
    found, place = log.find(DecisionId("here")), log.locate(DecisionId("here"))
    assert found is not None
    assert place == (found.position, found.time, found.decision.version, found.decision.action)
    assert log.locate(DecisionId("nowhere")) is None
