"""What readers are told of a log: the same by every implementation, whatever happened and however it is asked."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, combinations, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.experiment.definition import ExperimentVersion, Learning, RewardDefinition
from decider.experiment.schema import from_message, to_message
from decider.log.lift_totals import LEARNED
from decider.log.log_totals import LogTotals, totals_at
from decider.log.memory import MemoryLog
from decider.log.open import open_log
from decider.log.protocol import (
    Entry,
    EventLog,
    Mark,
    ModelName,
    NewActivation,
    NewBuild,
    NewModel,
    NewReward,
    NewRewardChange,
    NewVersion,
    Orphan,
    Serves,
    Tick,
)
from decider.log.sqlite import deadlines, sealed, totals
from decider.log.totals import LabelTotals, Totals
from decider.types import START, ActionId, Context, Decision, DecisionId, ExperimentId, Position, Reason, Time
from tests.conftest import Clock, sample_experiment

HOME, OTHER = ExperimentId("home"), ExperimentId("other")
START_MARK = Mark(START, Time(0))
MS = 1_000
"""Microseconds. Windows are a few milliseconds long, and the clock moves by whole ones: so rewards often come at the
very moment when a window ends."""

WINDOWS = (1, 2, 5)
"""Milliseconds."""


@dataclass
class Writer:
    """Writes a log step by step. What a step needs that is not there yet makes it do nothing."""

    log: EventLog
    clock: Clock
    versions: list[ExperimentVersion] = field(default_factory=list)
    decisions: list[Position] = field(default_factory=list)
    count: int = 0

    def apply(
        self, experiment: ExperimentId, window: int, *, waits: bool = False, learning: Learning = Learning.ONLINE
    ) -> ExperimentVersion:
        """A new version with a window of so many milliseconds."""
        number = 1 + sum(version.experiment.id == experiment for version in self.versions)
        reward = RewardDefinition(window=window * MS, maximum=9.0)
        complete = from_message(to_message(sample_experiment(id=experiment, reward=reward, learning=learning)))
        self.log.append([NewVersion(complete, number, waits)])
        self.versions.append(self.log.versions()[-1])
        return self.versions[-1]

    def decide(self, which: int = -1, *, first: bool = True, reason: Reason = Reason.EXPLORE) -> Position:
        """A decision of a version, of all its actions or of two."""
        version = self.versions[which % len(self.versions)]
        eligible = version.all_active if first else version.all_active[:2]
        made = Decision(
            decision_id=DecisionId(f"id-{self.count % 7}-{self.count}"),
            version=version.position,
            unit_id=f"unit-{self.count}",
            context=Context(segment="vip" if first else "", features={"age": 0.1 * self.count, "new": first}),
            eligible=eligible,
            action_features={} if first else {ActionId("sale"): {"discount": 0.5}},
            pmf=(750_000, 250_000) if len(eligible) == 2 else (750_000, 250_000, 0),
            action=eligible[self.count % 2],
            propensity=(0.75, 0.25)[self.count % 2],
            reason=reason,
            model=START,
        )
        self.count += 1
        self.decisions.append(self.put(made).position)
        return self.decisions[-1]

    def put(self, entry: Entry) -> Mark:
        """An entry that must be written."""
        (mark,) = self.log.append([entry])
        assert mark is not None
        return mark


@pytest.fixture
def writer(log: EventLog, clock: Clock) -> Writer:
    """Every implementation, empty."""
    return Writer(log, clock)


# --- what is sealed, to the microsecond


def test_a_window_ends_at_its_deadline(writer: Writer) -> None:
    """At the deadline itself a decision is sealed and a reward is late: never both, never neither."""
    log, clock = writer.log, writer.clock
    writer.apply(HOME, 3)
    first, second = writer.decide(), writer.decide()
    deadline = Time(clock() + 3 * MS)
    clock.now += 2 * MS
    writer.put(NewReward(first, "click", 1.0, weight=0.5))
    writer.put(NewActivation(first, ActionId("outfit")))
    assert list(log.sealed_decisions(HOME, after=Time(0), until=log.head().time)) == []
    assert log.next_deadline(after=log.head().time) == deadline
    clock.now += MS
    writer.put(NewReward(second, "click", 1.0))
    writer.put(NewActivation(second, ActionId("outfit")))
    assert log.head().time == deadline
    sealed = list(log.sealed_decisions(HOME, after=Time(deadline - 1), until=deadline))
    assert [(one.position, one.deadline, one.rewards, one.overridden) for one in sealed] == [
        (first, deadline, (0.5,), True),
        (second, deadline, (), False),
    ]
    assert [reward.outcome for reward in log.rewards_between("id-", "id.")] == ["joined", "late"]
    assert list(log.sealed_decisions(HOME, after=deadline, until=Time(deadline + 9 * MS))) == []
    assert log.next_deadline(after=deadline) is None


def test_versions_of_an_experiment_are_one_stream(writer: Writer) -> None:
    """Deadlines of versions with other windows cross; a policy must learn in the order in which windows end."""
    versions = [writer.apply(HOME, window) for window in (9, 2, 5)]
    writer.apply(OTHER, 1)
    for round_ in range(4):
        for which in range(4):
            writer.decide(which)
        writer.clock.now += round_ * MS
    sealed = list(writer.log.sealed_decisions(HOME, after=Time(0), until=Time(2**60)))
    assert [(one.deadline, one.position) for one in sealed] == sorted((one.deadline, one.position) for one in sealed)
    assert {one.decision.version for one in sealed} == {version.position for version in versions}
    assert len(sealed) == 12


def test_only_decisions_of_versions_that_learn_count_as_decided(writer: Writer) -> None:
    """The others never teach, so nothing of them is under way; all of the others do, whoever was drawn for."""
    for learning in (Learning.ONLINE, Learning.FROZEN, Learning.LOG_ONLY, Learning.APPRENTICE):
        writer.apply(HOME, 5, learning=learning)
    writer.apply(OTHER, 5)
    for which, count in enumerate((4, 3, 5, 2, 7)):
        for _ in range(count):
            writer.decide(which, reason=Reason.HOLDOUT if count == 2 else Reason.EXPLORE)
            writer.clock.now += MS
    log = writer.log
    start, end = Mark(START, Time(0)), log.head().mark
    assert [log.count_decided(one, after=start, until=end) for one in (HOME, OTHER)] == [4 + 2, 7]
    third = Mark(writer.decisions[2], log.time_at(writer.decisions[2]))
    assert [log.count_decided(HOME, after=start, until=third), log.count_decided(HOME, after=third, until=end)] == [
        3,
        3,
    ]


def test_the_next_deadline_is_that_of_any_experiment_or_of_one(writer: Writer) -> None:
    """The leader sleeps until it; a drive waits for its own experiment alone."""
    now = writer.clock()
    for experiment, window in ((HOME, 50), (OTHER, 20), (HOME, 30)):
        writer.apply(experiment, window)
        writer.decide()
    log = writer.log
    assert log.next_deadline(after=Time(0)) == now + 20 * MS
    assert log.next_deadline(after=Time(now + 20 * MS)) == now + 30 * MS
    assert log.next_deadline(after=Time(0), experiment=HOME) == now + 30 * MS
    assert log.next_deadline(after=Time(now + 30 * MS), experiment=HOME) == now + 50 * MS
    assert log.next_deadline(after=Time(now + 50 * MS)) is None


# --- what serves


def test_who_follows_is_told_what_has_come(writer: Writer) -> None:
    """Workers learn of versions and models from the log only; of many models the last one serves."""
    log = writer.log
    one = writer.apply(HOME, 3)
    names = [ModelName(HOME, Position(position), "a") for position in (1, 2, 3)]
    published = [writer.put(NewModel(name, learned=1)).position for name in names]
    other = writer.put(NewModel(ModelName(HOME, Position(2), "b"), learned=1)).position
    two = writer.apply(HOME, 3, waits=True)
    serves = writer.put(Serves(two.position)).position
    told = log.follow(START)
    assert told.head == log.head().position == serves
    assert [(version.position, waits) for version, waits in told.versions] == [
        (one.position, False),
        (two.position, True),
    ]
    assert list(told.serves) == [(serves, two.position)]
    assert list(told.models) == [(published[2], names[2]), (other, ModelName(HOME, Position(2), "b"))]
    later = log.follow(other)
    assert [version.position for version, _ in later.versions] == [two.position]
    assert list(later.models) == []
    nothing = log.follow(serves)
    assert not [*nothing.versions, *nothing.serves, *nothing.models]


def test_a_reader_that_follows_from_the_middle_knows_older_versions(writer: Writer) -> None:
    """Decisions name them."""
    old, new = writer.apply(HOME, 3), writer.apply(HOME, 4)
    assert [version.position for version, _ in writer.log.follow(old.position).versions] == [new.position]
    assert [version.position for version in writer.log.versions()] == [old.position, new.position]
    assert writer.log.version_at(old.position).experiment.reward.window == 3 * MS
    with pytest.raises(KeyError):
        writer.log.version_at(Position(99))


def test_builds_and_refused_rewards_come_back(writer: Writer) -> None:
    """`verify` reads who wrote; operators read what was refused."""
    place = writer.put(NewBuild({"imported_from": "clicks.csv", "policies": {"a": 1}})).position
    writer.apply(HOME, 3)
    decision = writer.decide()
    writer.put(NewReward(decision, "click", 1.0, reward_id="1"))
    writer.log.append([NewReward(decision, "click", 1.0, reward_id="1"), Orphan("buy"), Orphan("buy")])
    assert writer.log.builds() == {place: {"imported_from": "clicks.csv", "policies": {"a": 1}}}
    assert writer.log.refused_rewards() == {("click", "duplicate"): 1, ("buy", "orphan"): 2}


# --- the same of every implementation, however it is asked

Step = tuple[str, int, int]
KINDS = (
    "apply",
    "decide",
    "decide",
    "decide",
    "reward",
    "reward",
    "change",
    "activate",
    "pass",
    "tick",
    "orphan",
    "model",
    "build",
    "maintain",
)
steps: st.SearchStrategy[Sequence[Step]] = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=40
)


def write(writer: Writer, script: Sequence[Step]) -> None:
    """A log by a script."""
    writer.apply(HOME, WINDOWS[1])
    for kind, one, other in script:
        STEPS[kind](writer, one, other)


def _reward(writer: Writer, one: int, other: int) -> None:
    if writer.decisions:
        decision = writer.decisions[-1 - one % len(writer.decisions)]
        id_ = None if other < 3 else f"r{one}"
        writer.log.append([NewReward(decision, f"name-{other}", 0.1 * one - 0.1, weight=0.3 * other, reward_id=id_)])


def _change(writer: Writer, one: int, other: int) -> None:
    if writer.decisions:
        decision = writer.decisions[-1 - one % len(writer.decisions)]
        value = None if other % 2 else 0.2 * other
        writer.log.append([NewRewardChange(decision, f"r{one}", value, f"name-{other}", weight=0.3 * one)])


def _activate(writer: Writer, one: int, other: int) -> None:
    if writer.decisions:
        decision = writer.decisions[-1 - one % len(writer.decisions)]
        writer.log.append([NewActivation(decision, ActionId("none") if other % 2 else None)])


def _decide(writer: Writer, one: int, other: int) -> None:
    writer.decide(one, first=other < 4, reason=tuple(Reason)[other])


def _pass(writer: Writer, one: int, _: int) -> None:
    writer.clock.now += one * MS


STEPS: dict[str, Callable[[Writer, int, int], object]] = {
    "apply": lambda writer, one, other: writer.apply((HOME, OTHER)[one % 2], WINDOWS[other % 3], waits=other > 3),
    "decide": _decide,
    "reward": _reward,
    "change": _change,
    "activate": _activate,
    "pass": _pass,
    "tick": lambda writer, _, __: writer.log.append([Tick()]),
    "orphan": lambda writer, one, _: writer.log.append([Orphan(f"name-{one}")]),
    "model": lambda writer, one, other: writer.log.append([NewModel(ModelName(HOME, Position(one), str(other)), one)]),
    "build": lambda writer, one, _: writer.log.append([NewBuild({"number": one})]),
    "maintain": lambda writer, _, __: writer.log.maintain(),
}


@contextmanager
def written(script: Sequence[Step]) -> Iterator[tuple[EventLog, EventLog]]:
    """The log of a script in both implementations. Maintenance closes versions at once, and opens none by mistake."""
    with (
        pytest.MonkeyPatch.context() as patch,
        TemporaryDirectory() as folder,
        closing(open_log(Path(folder, "log.db"), clock=(clock := Clock()))) as log,
    ):
        patch.setattr("decider.log.sqlite.writer.CLOSE_INTERVAL", 0.0)
        patch.setattr("decider.log.sqlite.open_versions.SOON", 0)
        patch.setattr("decider.log.sqlite.sealed.PAGE", 2)
        patch.setattr("decider.log.sqlite.open_versions.LATER", 2 * MS)
        write(Writer(log, clock), script)
        memory = MemoryLog(clock=(other := Clock()))
        write(Writer(memory, other), script)
        yield log, memory


def thirds(log: EventLog) -> list[Mark]:
    """The start, two places between, and the end."""
    end = log.head().position
    return [Mark(place, log.time_at(place)) for place in (START, Position(end // 3), Position(2 * end // 3), end)]


def told(log: EventLog) -> dict[str, object]:
    """Everything that a reader can ask, but for totals, whose sums depend on the order of adding."""
    head = log.head()
    following = log.follow(Position(head.position // 2))
    return {
        "head": head.mark,
        "times": [log.time_at(Position(position)) for position in range(head.position + 1)],
        "versions": [(v.position, v.time, v.number, v.experiment) for v in log.versions()],
        "follow": (
            following.head,
            [(version.position, waits) for version, waits in following.versions],
            list(following.serves),
            list(following.models),
        ),
        "builds": log.builds(),
        "refused": log.refused_rewards(),
        "decided": list(log.versions_with_decisions()),
        "counts": [log.count_decisions(one) for one in (None, HOME, OTHER)],
        "learned": [log.count_learned(one) for one in (HOME, OTHER)],
        "decided in pieces": [
            log.count_decided(experiment, after=after, until=until)
            for experiment in (HOME, OTHER)
            for after, until in combinations(thirds(log), 2)
        ],
        "decisions": [list(log.decisions(version)) for version in log.versions_with_decisions()],
        "found": [log.find(one.decision.decision_id) for one in log.decisions_between("", "z")],
        "places": [log.locate(one.decision.decision_id) for one in log.decisions_between("", "z")],
        "between": list(log.decisions_between("id-1", "id-4")),
        "rewards": list(log.rewards_between("id-0", "id-5")),
        "sealed": [
            list(
                log.sealed_decisions(
                    experiment, after=Time(head.time - back * MS), until=Time(head.time - back * MS // 3)
                )
            )
            for experiment in (HOME, OTHER)
            for back in (0, 1, 2, 3, 5, 8, 1000)
        ],
        "deadlines": [
            log.next_deadline(after=Time(head.time + more * MS // 2), experiment=experiment)
            for more in range(-12, 3)
            for experiment in (None, HOME, OTHER)
        ],
        "first deadlines": [log.first_deadlines(after=Time(head.time + more * MS // 2)) for more in range(-12, 3)],
        "experiments": log.experiment_ids([version.position for version in log.versions()]),
        "kinds": [log.action_kinds(experiment) for experiment in (HOME, OTHER)],
        "damage": list(log.check(lambda _: None)),
    }


def arrow(log: EventLog, experiment: ExperimentId) -> tuple[list[object], list[object]]:
    """Both tables as rows."""
    batches = log.arrow(experiment, log.head())
    decisions, rewards = list(batches.decisions), list(batches.rewards)
    return (
        pa.Table.from_batches(decisions).to_pylist() if decisions else [],
        pa.Table.from_batches(rewards).to_pylist() if rewards else [],
    )


def plain(totals: Totals) -> dict[str, object]:
    """As numbers that can be compared: final rewards rounded, since SQL makes them by itself; no zeros."""
    return {
        "decisions": dict(totals.decisions),
        "inverse_propensity": totals.inverse_propensity,
        "possible": {key: count for key, count in totals.possible.items() if count},
        "rewards": list(totals.rewards.items()),
        "delays": dict(totals.delays),
        "delay": dict(totals.delay),
        "sealed": {
            key: (one.count, one.defaulted, one.overridden, round(float(one.reward), 9), round(float(one.squared), 9))
            for key, one in totals.sealed.items()
        },
        "lift": {
            stratum: (one.decisions, {name: np.round(sums.floats(), 9).tolist() for name, sums in one.rewards.items()})
            for stratum, one in totals.lift.items()
        },
        "exploration": {
            measure: (one.decisions, np.round(one.rewards[LEARNED].floats(), 9).tolist())
            for measure, one in totals.exploration.items()
        },
    }


@given(steps)
def test_every_log_says_the_same(script: Sequence[Step]) -> None:
    """The log in memory is short and plain Python: what SQL says must be that, in every case."""
    with written(script) as (log, memory):
        ours, theirs = told(log), told(memory)
        for what, expected in theirs.items():
            assert ours[what] == expected, what
        for experiment in (HOME, OTHER):
            assert arrow(log, experiment) == arrow(memory, experiment)


@given(steps)
def test_every_log_counts_the_same(script: Sequence[Step]) -> None:
    """The metrics must not depend on where the log is kept; from the middle of it, either."""
    with written(script) as (log, memory):
        end, middle = (log.head().mark, Position(log.head().position // 2))
        for after in (START_MARK, Mark(middle, log.time_at(middle))):
            assert plain(log.totals(after, end)) == plain(memory.totals(after, end))


@given(steps, st.data())
def test_a_log_read_in_pieces_is_the_log(script: Sequence[Step], data: st.DataObject) -> None:
    """Neither what is learned nor what is counted depends on how often somebody looked."""
    with written(script) as (log, _):
        head = log.head()
        cuts = sorted(data.draw(st.lists(st.integers(0, head.position), max_size=4)))
        marks = [START_MARK, *[Mark(Position(cut), log.time_at(Position(cut))) for cut in cuts], head.mark]
        pieces = [
            one
            for after, until in pairwise(marks)
            for one in log.sealed_decisions(HOME, after=after.time, until=until.time)
        ]
        assert pieces == list(log.sealed_decisions(HOME, after=Time(0), until=head.time))
        counts = [sum(log.totals(a, b).decisions.values()) for a, b in pairwise(marks)]
        assert sum(counts) == log.count_decisions()
        decided = [log.count_decided(HOME, after=after, until=until) for after, until in pairwise(marks)]
        assert sum(decided) == log.count_decisions(HOME)
        for count, end in zip(accumulate(decided), marks[1:], strict=True):
            assert count >= len(list(log.sealed_decisions(HOME, after=Time(0), until=end.time)))
        seals = [sum(one.count for one in log.totals(a, b).sealed.values()) for a, b in pairwise(marks)]
        assert seals == [
            sum(len(list(log.sealed_decisions(e, after=a.time, until=b.time))) for e in (HOME, OTHER))
            for a, b in pairwise(marks)
        ]


@given(steps, st.data())
def test_totals_that_go_on_from_a_checkpoint_are_the_same_to_the_last_bit(
    script: Sequence[Step], data: st.DataObject
) -> None:
    """A restart, a kill and an upgrade must not show in any counter, however often somebody looked and stored."""
    with TemporaryDirectory() as folder, closing(open_log(Path(folder, "log.db"), clock=(clock := Clock()))) as log:
        writer = Writer(log, clock)
        writer.apply(HOME, WINDOWS[1])
        first = LogTotals(log)
        for kind, one, other in script:
            STEPS[kind](writer, one, other)
            if data.draw(st.booleans()):
                first.advance(data.draw(st.integers(1, 9)))
            if data.draw(st.booleans()):
                log.store_totals(first.checkpoint())
            if data.draw(st.booleans()):
                first = LogTotals(log)
        first.catch_up()
        anew = counted_anew(log)
        assert first.totals == anew
        assert LabelTotals.from_json(anew.to_json()) == anew
        assert log.check(lambda _: None) == []


def counted_anew(log: EventLog) -> LabelTotals:
    """The totals from the first entry on, in one go."""
    counted, totals = log.totals(START_MARK, log.head().mark), LabelTotals()
    totals.add(counted, {version.position: version.experiment.id for version in log.versions()})
    return totals


def test_totals_at_a_cut_are_what_counting_goes_on_from(writer: Writer) -> None:
    """Archived entries are gone: what they counted must be in the totals at the cut, their late seals too."""
    log = writer.log
    writer.apply(HOME, 5)
    old = [writer.decide() for _ in range(4)]
    cut = log.head()
    writer.clock.now += 3 * MS
    writer.put(NewReward(old[0], "click", 0.1))
    [writer.decide() for _ in range(3)]
    writer.clock.now += 4 * MS
    writer.put(Tick())
    log.store_totals(totals_at(log, cut, sealed_until=log.head().time))
    stored = log.totals_checkpoint()
    assert stored is not None
    assert stored.mark == Mark(cut.position, log.head().time)
    assert sum(LabelTotals.from_json(stored.content).sealed.values()) == len(old)
    writer.clock.now += 9 * MS
    writer.put(Tick())
    assert totals_of(log) == counted_anew(log)


def totals_of(log: EventLog) -> LabelTotals:
    """As the metrics count them."""
    counted = LogTotals(log)
    counted.catch_up()
    return counted.totals


def test_labels_are_the_same_for_every_log_and_bounded(tmp_path: Path) -> None:
    """Callers invent names of rewards; each would be a series for ever. The first fifty keep theirs, in any log."""
    labelled = []
    for log, clock in (
        (MemoryLog(clock=(one := Clock())), one),
        (open_log(tmp_path / "a", clock=(two := Clock())), two),
    ):
        writer = Writer(log, clock)
        writer.apply(HOME, 5)
        counted = LogTotals(log)
        for start in (0, 40):
            decisions = [writer.decide() for _ in range(40)]
            log.append([NewReward(one, f"name-{start + i:03}", 1.0) for i, one in reversed(list(enumerate(decisions)))])
            counted.catch_up()
        labelled.append(counted.totals)
        log.close()
    assert labelled[0] == labelled[1]
    names = [name for _, name, _ in labelled[0].rewards]
    assert len(names) == 51
    assert labelled[0].rewards[HOME, "other", "joined"] == 30
    assert {"name-000", "name-039", "name-079"} < set(names)


# --- what reading costs a log in SQLite


@pytest.fixture
def many(tmp_path: Path, clock: Clock) -> Iterator[EventLog]:
    """A log of many versions whose windows cross."""
    with closing(open_log(tmp_path / "log.db", clock=clock)) as log:
        writer = Writer(log, clock)
        for number in range(80):
            writer.apply(HOME, 1_000 + number % 7)
            for _ in range(3):
                writer.decide()
            clock.now += MS
        clock.now += 2_000 * MS
        writer.put(Tick())
        yield log


def test_a_stream_over_many_versions_takes_no_file_descriptor_for_each(many: EventLog) -> None:
    """Some hundred versions (a pause is one) would end a relearning at the usual limit of 1,024."""
    opened = Path("/proc/self/fd")
    before = len(list(opened.iterdir()))
    most = max(len(list(opened.iterdir())) for _ in many.sealed_decisions(HOME, after=Time(0), until=many.head().time))
    assert most <= before + 3
    assert len(list(many.sealed_decisions(HOME, after=Time(0), until=many.head().time))) == 240


def plan(path: Path, sql: str) -> list[str]:
    """What SQLite will do."""
    with closing(sqlite3.connect(path)) as db:
        return [
            row[3]
            for row in db.execute(
                f"explain query plan {sql}", dict.fromkeys(("after", "until", "version", "experiment", "cut"), 1)
            )
        ]


@pytest.mark.parametrize(
    "sql",
    [
        sealed.SEALED_DECISIONS_OF_VERSION,
        sealed.CLOSED_DECISIONS_OF_VERSION,
        deadlines.FIRST_DEADLINES_OF,
        *totals.STATEMENTS,
    ],
    ids=["sealed", "closed", "first deadlines", "decisions", "possible", "rewards", "changes", "delays", "days"],
)
def test_reading_what_is_new_does_not_read_what_is_old(many: EventLog, sql: str) -> None:
    """A step and a scrape must not take longer in a longer log."""
    assert many.head().position > 300
    scans = [step for step in plan(Path(many.name), sql) if step.startswith("SCAN") and "json_each" not in step]
    assert not scans
