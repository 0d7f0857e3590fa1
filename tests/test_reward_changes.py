"""Corrections and retractions of rewards, amounts outside of the range, rewards by name: on every log and every reader.

What a decision has earned is computed in five places: the memory log, SQL for people, SQL for the learner, the archive
and the simulator. Here they are compared with each other, and with a few lines that say what is right.
"""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.experiment.aggregate import final_reward
from decider.experiment.definition import Aggregation, ExperimentVersion, OutOfRange, RewardDefinition
from decider.experiment.schema import definition_text, from_message, read_json, to_message
from decider.learn.archive import archive as archive_old
from decider.learn.trainer import Trainer
from decider.log.archive.part import DECISIONS_FILE, PART_JSON
from decider.log.memory import MemoryLog
from decider.log.open import open_log, open_reader, open_to_cut
from decider.log.protocol import (
    Entry,
    EventLog,
    Mark,
    NewReward,
    NewRewardChange,
    NewVersion,
    RefusedReward,
    RewardRef,
    SealedDecision,
    Tick,
)
from decider.log.sqlite.writer import SqliteLog
from decider.server.command import main
from decider.types import START, Context, DecisionId, Position, RewardOutcome, Time
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.commands.group import main as simulator
from simulator.drive import returns, shops
from simulator.logs.decider_log import load
from simulator.logs.errors import BadLog
from simulator.verify import verify
from tests.archives import archive, ends
from tests.conftest import SECOND, Clock, sample_experiment, spec
from tests.rpc_clients import InProcessClient, experiment, outcome_name
from tests.test_log_readers import plain
from tests.test_verify import Drive
from tests.two_writers import decision

WINDOW = 10 * SECOND
RANGE = RewardDefinition(window=WINDOW, default=0.125, minimum=-1.5, maximum=200.0)


def apply(log: EventLog, definition: RewardDefinition = RANGE) -> ExperimentVersion:
    """A version of the sample experiment with these rewards."""
    log.append([NewVersion(sample_experiment(reward=definition), len(log.versions()) + 1)])
    return log.versions()[-1]


def decide(log: EventLog, version: ExperimentVersion, id_: str = "a") -> Position:
    """One decision."""
    (mark,) = log.append([decision(version, id_)])
    assert mark is not None
    return mark.position


def sealed(log: EventLog, version: ExperimentVersion) -> list[SealedDecision]:
    """All decisions, as if every window were over."""
    return list(log.sealed_decisions(version.experiment.id, after=Time(0), until=Time(2**60)))


def earned(log: EventLog, version: ExperimentVersion) -> list[tuple[float, ...]]:
    """What each decision's rewards are worth."""
    return [one.rewards for one in sealed(log, version)]


def buy(at: Position, value: float = 80.0, id_: str = "order-1", weight: float = 1.0) -> NewReward:
    """A purchase with an id."""
    return NewReward(at, "purchase", value, weight, id_)


def change(at: Position, value: float | None, id_: str = "order-1", when: int | None = None) -> NewRewardChange:
    """A change of it; None: the purchase is returned."""
    return NewRewardChange(at, id_, value, "purchase", 1.0, None if when is None else Time(when))


def test_a_returned_purchase_counts_nothing(log: EventLog) -> None:
    """A policy that learns from returned purchases favours what is sent back."""
    version = apply(log)
    at, other = decide(log, version), decide(log, version, "b")
    log.append([buy(at), NewReward(at, "click", 1.0), buy(other)])
    log.append([change(at, None)])
    assert earned(log, version) == [(1.0,), (80.0,)]


def test_where_only_retracted_rewards_are_left_the_default_counts(log: EventLog) -> None:
    """Nothing is in force: as if nothing had been sent."""
    version = apply(log)
    at = decide(log, version)
    log.append([buy(at), change(at, None)])
    (one,) = sealed(log, version)
    assert (one.rewards, final_reward(version.experiment.reward, one.rewards)) == ((), 0.125)


@pytest.mark.parametrize("aggregation", [Aggregation.FIRST, Aggregation.LAST])
def test_a_corrected_reward_keeps_its_place(log: EventLog, aggregation: Aggregation) -> None:
    """The first reward stays the first one, however late its amount became known."""
    version = apply(log, RewardDefinition(window=WINDOW, maximum=200.0, aggregation=aggregation))
    at = decide(log, version)
    log.append([buy(at, 80.0), buy(at, 30.0, "order-2"), change(at, 60.0)])
    assert earned(log, version) == [(60.0, 30.0)]


def test_the_last_change_before_the_window_ends_counts(log: EventLog, clock: Clock) -> None:
    """Orders are changed more than once; what comes after the seal changes nothing that was learned."""
    version = apply(log)
    at = decide(log, version)
    log.append([buy(at)])
    for value in (60.0, None, 70.0):
        clock.advance(1)
        log.append([change(at, value)])
        assert earned(log, version) == [() if value is None else (value,)]
    clock.advance(7)
    (late,) = log.append([change(at, 40.0)])
    assert late is not None, "it is stored for people"
    assert earned(log, version) == [(70.0,)]


def test_the_same_change_again_is_refused_and_takes_no_position(log: EventLog) -> None:
    """Queues deliver twice. A change is known by its content, so an old one that comes again undoes no newer one."""
    version = apply(log)
    at = decide(log, version)
    log.append([buy(at), change(at, 60.0), change(at, 50.0)])
    head = log.head()
    assert log.append([change(at, 60.0), change(at, 50.0)]) == [None, None]
    assert log.head() == head
    assert log.refused_rewards() == {("purchase", "duplicate"): 2}
    assert earned(log, version) == [(50.0,)]
    (mark,) = log.append([change(at, 60.0, when=7)])
    assert mark == Mark(Position(head.position + 1), head.time)
    assert earned(log, version) == [(60.0,)]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_change_may_come_before_its_reward(log: EventLog, order: tuple[int, ...]) -> None:
    """Queues reorder. A purchase that arrives after its return must not count."""
    version = apply(log)
    at = decide(log, version)
    entries: list[Entry] = [buy(at), change(at, None), NewReward(at, "click", 1.0)]
    marks = [log.append([entries[index]])[0] for index in order]
    assert earned(log, version) == [(1.0,)]
    if order.index(1) < order.index(0):
        assert marks[order.index(0)] is None, "the reward that comes later is a duplicate"


def test_a_correction_of_what_has_not_come_counts_already(log: EventLog) -> None:
    """It says all that there is to know; the original that comes later is a duplicate."""
    version = apply(log)
    at = decide(log, version)
    log.append([change(at, 60.0)])
    assert earned(log, version) == [(60.0,)]
    assert log.append([buy(at, 80.0), change(at, 60.0)]) == [None, None]
    assert earned(log, version) == [(60.0,)]


def test_rewards_and_their_changes_may_share_a_commit(log: EventLog) -> None:
    """A queue that was held up sends both in one batch."""
    version = apply(log)
    at = decide(log, version)
    marks = log.append([buy(at), change(at, 60.0), buy(at, 5.0, "order-2"), change(at, None, "order-2")])
    assert [mark and mark.position for mark in marks] == [3, 4, 5, 6]
    assert earned(log, version) == [(60.0,)]


def test_a_reward_is_found_by_its_id(log: EventLog) -> None:
    """A change gets its name and weight."""
    version = apply(log)
    at, other = decide(log, version), decide(log, version, "b")
    (mark,) = log.append([buy(at, weight=0.5)])
    assert mark is not None
    assert log.find_reward(at, "order-1") == RewardRef(mark.position, "purchase", 0.5)
    assert log.find_reward(at, "order-2") is None
    assert log.find_reward(other, "order-1") is None


def test_a_logged_reward_has_what_was_sent_and_what_is_in_force(log: EventLog, clock: Clock) -> None:
    """Nothing is lost: an auditor sees both, and how it was answered."""
    version = apply(log)
    at = decide(log, version)
    log.append([buy(at, 300.0), buy(at, 7.0, "order-2"), buy(at, 9.0, "order-3")])
    log.append([change(at, None), change(at, 6.0, "order-2")])
    clock.advance(10)
    log.append([buy(at, 1.0, "order-4"), change(at, 8.0, "order-3"), change(at, None, "order-4")])
    found = [(one.value, one.in_force, str(one.outcome)) for one in log.rewards_between("", "z")]
    assert found == [(300.0, None, "clipped"), (7.0, 6.0, "joined"), (9.0, 9.0, "joined"), (1.0, 1.0, "late")]


def test_changes_are_counted_by_outcome_and_values_as_they_were_sent(log: EventLog, clock: Clock) -> None:
    """A counter must not go back: what was sent stays counted, and changes are counted beside it."""
    version = apply(log)
    at = decide(log, version)
    log.append([buy(at, 300.0), buy(at, 7.0, "order-2"), change(at, None), change(at, 6.0, "order-2")])
    clock.advance(10)
    refused = RefusedReward("purchase", RewardOutcome.OUT_OF_RANGE)
    log.append([buy(at, 1.0, "order-4"), change(at, None, "order-4"), refused])
    head = log.head()
    totals = log.totals(Mark(START, Time(0)), head.mark)
    counted = {outcome: (one.count, float(one.value)) for (_, _, outcome), one in totals.rewards.items()}
    assert counted == {
        "clipped": (1, 300.0),
        "joined": (1, 7.0),
        "late": (2, 1.0),
        "retracted": (1, 0.0),
        "corrected": (1, 0.0),
    }
    assert [(one.count, float(one.reward)) for one in totals.sealed.values()] == [(1, 6.0)]
    assert log.refused_rewards() == {("purchase", "out_of_range"): 1}


def test_several_amounts_are_cut_off_together_and_not_each(log: EventLog) -> None:
    """A purchase of 210 with 60 of it returned is 150, also where the range ends at 200."""
    version = apply(log, RewardDefinition(window=WINDOW, maximum=200.0))
    places = [decide(log, version, str(index)) for index in range(3)]
    log.append([buy(places[0], 210.0), buy(places[0], -60.0, "refund"), buy(places[1], 300.0), buy(places[2], -5.0)])
    rewards = [final_reward(version.experiment.reward, one.rewards) for one in sealed(log, version)]
    assert rewards == [150.0, 200.0, 0.0]


# --- one law over all readers

amounts = st.sampled_from([-300.0, -2.0, -0.5, 0.0, 0.25, 1.0, 80.0, 250.0]) | st.floats(-3, 3).map(lambda x: x + 0.0)
steps = st.lists(
    st.tuples(
        st.integers(0, 2),  # decision
        st.sampled_from(["1", "2", None]),  # reward id
        st.sampled_from(["send", "send", "correct", "retract"]),
        st.sampled_from(["click", "purchase"]),
        amounts,
        st.sampled_from([0, 0, 0, 1, 6]),  # seconds before it
    ),
    max_size=14,
)


class Expected:
    """What is right, in a few lines: by decision, the rewards in force in the order of arrival."""

    def __init__(self, weights: dict[str, float]) -> None:
        self.weights = weights
        self.rewards: list[dict[str, list[Any]]] = [{}, {}, {}]
        self.changes: set[tuple[int, str, float | None]] = set()

    def put(self, which: int, id_: str | None, kind: str, name: str, value: float, *, in_time: bool) -> None:
        """One message."""
        known = self.rewards[which]
        key = id_ or f"without id {len(known)}"
        if kind == "send" or id_ is None:
            known.setdefault(key, [name, value, in_time])
            return
        new = None if kind == "retract" else value
        known.setdefault(key, [name, new, in_time])
        if (which, key, new) not in self.changes and in_time:
            known[key][1] = new
        self.changes.add((which, key, new))

    def of(self, which: int, name: str | None = None) -> tuple[float, ...]:
        """Weighted; those of one name without weight."""
        in_force = [one for one in self.rewards[which].values() if one[2] and one[1] is not None]
        if name is not None:
            return tuple([value for named, value, _ in in_force if named == name])
        return tuple([value * self.weights[named] for named, value, _ in in_force])


def play(log: EventLog, clock: Clock, version: ExperimentVersion, script: Sequence[tuple[Any, ...]]) -> Expected:
    """Carry the steps out, one commit each."""
    weights = dict(version.experiment.reward.weights)
    expected = Expected(weights)
    places = [decide(log, version, str(index)) for index in range(3)]
    decided = clock.now
    for which, id_, kind, name, value, wait in script:
        clock.advance(wait)
        at = places[which]
        expected.put(which, id_, kind, name, value, in_time=clock.now < decided + WINDOW)
        if kind == "send" or id_ is None:
            log.append([NewReward(at, name, value, weights[name], id_)])
        else:
            found = log.find_reward(at, id_)
            named = found.name if found else name
            new = None if kind == "retract" else value
            log.append([NewRewardChange(at, id_, new, named, weights[named])])
    clock.advance(100)
    log.append([Tick()])
    return expected


@settings(max_examples=8)
@pytest.mark.parametrize("aggregation", Aggregation)
@given(script=steps, weight=st.sampled_from([1.0, -1.0, 0.1, 0.0]), low=st.sampled_from([-250.0, -1.5, 0.0]))
def test_every_reader_says_the_same_reward(
    aggregation: Aggregation, script: list[tuple[Any, ...]], weight: float, low: float
) -> None:
    """People look at SQL, policies learn from Python, researchers read the archive with Arrow: one number for all."""
    weights = {"click": 0.5, "purchase": weight}
    definition = RewardDefinition(WINDOW, -0.0625 if low < 0 else 0.125, weights, low, 100.0, aggregation)
    with TemporaryDirectory() as folder:
        path, clock, other_clock = Path(folder) / "log.db", Clock(), Clock()
        memory = MemoryLog(clock=other_clock)
        with closing(SqliteLog(path, clock=clock)) as log:
            version, other = apply(log, definition), apply(memory, definition)
            expected = play(log, clock, version, script)
            play(memory, other_clock, other, script)
            rewards = [expected.of(which) for which in range(3)]
            assert earned(log, version) == earned(memory, other) == rewards
            assert list(log.rewards_between("", "z")) == list(memory.rewards_between("", "z"))
            start = Mark(START, Time(0))
            ours, theirs = log.totals(start, log.head().mark), memory.totals(start, memory.head().mark)
            assert plain(ours) == plain(theirs)
            assert log.refused_rewards() == memory.refused_rewards()
            assert rows_of_arrow(log, version) == rows_of_arrow(memory, other)
        final = [final_reward(definition, one) for one in rewards]
        view = query(path, "select reward, rewards from sealed_decisions order by position")
        assert [row[0] for row in view] == pytest.approx(final, abs=1e-9)
        assert [row[1] for row in view] == list(map(len, rewards))
        assert load(path).reward.tolist() == final
        check_names(path, expected)
        (part,) = archive(path, Path(folder) / "archive", [ends(path)[-1]])
        table = pq.read_table(part.folder / DECISIONS_FILE)
        assert table["rewards_in_time"].to_pylist() == list(map(list, rewards))
        assert table["reward"].to_pylist() == [row[0] for row in view]
        with closing(open_reader(Path(folder) / "archive")) as restored:
            again = restored.sealed_decisions(version.experiment.id, after=Time(0), until=Time(2**60))
            assert [one.rewards for one in again] == rewards
            assert restored.check(lambda _: None) == []


def rows_of_arrow(log: EventLog, version: ExperimentVersion) -> list[dict[str, Any]]:
    """The stream of rewards."""
    return [row for batch in log.arrow(version.experiment.id, log.head()).rewards for row in batch.to_pylist()]


def check_names(path: Path, expected: Expected) -> None:
    """The view with a row for each decision and name, and the simulator's reading of one name alone."""
    found = {
        (int(decision), name): (count, value)
        for decision, name, count, value in query(path, "select decision_id, name, rewards, value from named_rewards")
    }
    by_name = {(which, name): expected.of(which, name) for which in range(3) for name in ("click", "purchase")}
    wanted = {key: (len(values), pytest.approx(sum(values), abs=1e-9)) for key, values in by_name.items() if values}
    assert found == wanted
    sent = {name for (name,) in query(path, "select distinct name from rewards")}
    for name in sent:
        columns = load(path, rewards={name: 1.0})
        assert columns.default is not None
        assert columns.default.tolist() == [not by_name[which, name] for which in range(3)]


def query(path: Path, sql: str) -> list[tuple[Any, ...]]:
    """What a person's tool shows."""
    with closing(sqlite3.connect(path)) as tool:
        return tool.execute(sql).fetchall()


# --- learning, replay, archive and removal


@pytest.mark.parametrize("algorithm", ["thompson", "squarecb"])
def test_a_policy_learns_nothing_of_what_was_retracted(algorithm: str) -> None:
    """To the last bit: as if the returned purchases had never been sent."""
    saved = []
    for returned in (True, False):
        clock = Clock()
        log = MemoryLog(clock=clock)
        log.append([NewVersion(sample_experiment(policy=spec(algorithm)), 1)])
        (version,) = log.versions()
        source = Random(3)
        for number in range(60):
            sold, back = source.random() < 0.6, source.random() < 0.5
            made = decision(version, str(number), action=version.all_active[source.randrange(3)])
            (mark,) = log.append([made])
            assert mark is not None
            if sold and (returned or not back):
                log.append([NewReward(mark.position, "buy", 1.0, reward_id="order")])
            if sold and returned and back:
                log.append([NewRewardChange(mark.position, "order", None, "buy")])
            clock.advance(1)
        clock.advance(20)
        log.append([Tick()])
        trainer = Trainer(log, version.experiment.id, version.experiment.policy)
        assert trainer.learn_up_to(log.head().mark) == 60
        policy = trainer.model().policy
        saved.append([policy.pmf(Context(segment=segment), version.all_choices) for segment in ("vip", "", "new")])
    assert saved[0] == saved[1]


@pytest.fixture
def shop(tmp_path: Path, clock: Clock) -> Path:
    """A log that learned, with purchases that are changed some decisions later."""
    path = tmp_path / "shop.db"
    with closing(open_log(path, clock=clock)) as log:
        drive = Drive(log, clock)
        drive.apply(sample_experiment(policy=spec("squarecb")))
        bought: list[Position] = []
        for number in range(90):
            drive.visits(1)
            place = log.locate(DecisionId(f"d-{drive.count}"))
            if place is not None:
                bought.append(place.position)
                log.append([NewReward(place.position, "buy", 1.0, 1.0, f"order-of-{place.position}")])
            if len(bought) > 3:
                at = bought.pop(0)
                log.append([NewRewardChange(at, f"order-of-{at}", 0.25 if number % 3 else None, "buy")])
        clock.advance(60)
        log.append([Tick()])
        drive.step()
    return path


def rewards_of(path: Path, *folders: Path) -> dict[Position, tuple[float, ...]]:
    """Of every decision, from the whole log; which is proved and recomputed on the way."""
    with closing(open_reader(path, archive=folders)) as log:
        assert log.check(lambda _: None) == []
        done = verify(log)
        assert (done.first, done.equal) == (None, done.decisions)
        (version, *_) = log.versions()
        return {
            one.position: one.rewards
            for one in log.sealed_decisions(version.experiment.id, after=Time(0), until=Time(2**60))
        }


def test_changes_are_archived_restored_and_forgotten_with_their_decisions(shop: Path) -> None:
    """A purchase may lie in one part and its return in the next; both are proved, and a person's ids go from both."""
    before = rewards_of(shop)
    times = [time for (time,) in query(shop, "select time from decisions order by position")]
    folder = shop.parent / "archive"
    for share in (3, 2):
        with closing(open_to_cut(shop)) as log:
            cut = Time(times[len(times) // share])
            assert archive_old(log, folder, before=cut, remember=1, say=lambda _: None)
    assert query(shop, "select count(*) from reward_changes c where reward not in (select position from rewards)") > [
        (0,)
    ]
    assert rewards_of(shop, folder) == before
    with closing(open_reader(shop)) as live:
        (version, *_) = live.versions()
        again = live.sealed_decisions(version.experiment.id, after=Time(0), until=Time(2**60))
        assert {one.position: one.rewards for one in again} == before, "a new policy learns from the parts"
    ran = CliRunner().invoke(main, ["forget", "unit-7", "--db", str(shop), "--rebuild"])
    assert ran.exit_code == 0, ran.output
    after = rewards_of(shop, folder)
    assert after == before


def test_a_part_of_an_older_release_is_read(tmp_path: Path, clock: Clock) -> None:
    """It has no file of changes, since there were none."""
    path = tmp_path / "log.db"
    with closing(SqliteLog(path, clock=clock)) as log:
        version = apply(log)
        log.append([buy(decide(log, version))])
        clock.advance(60)
        log.append([Tick()])
        expected = earned(log, version)
    (part,) = archive(path, tmp_path / "archive", [ends(path)[-1]])
    content = json.loads((part.folder / PART_JSON).read_text())
    del content["files"]["reward_changes.parquet"]
    (part.folder / PART_JSON).write_text(json.dumps(content))
    (part.folder / "reward_changes.parquet").unlink()
    with closing(open_reader(tmp_path / "archive")) as restored:
        again = restored.sealed_decisions(version.experiment.id, after=Time(0), until=Time(2**60))
        assert [one.rewards for one in again] == expected
        assert restored.check(lambda _: None) == []


def test_changes_of_archived_decisions_are_late_and_only_counted(shop: Path, clock: Clock) -> None:
    """As their rewards are: nobody learns them any more."""
    with closing(open_to_cut(shop)) as log:
        assert archive_old(log, shop.parent / "archive", before=log.head().time, remember=1, say=lambda _: None)
    with closing(open_log(shop, clock=clock)) as again:
        head = again.head()
        assert again.append([NewRewardChange(Position(2), "order-of-2", None, "buy")]) == [None]
        assert again.head() == head
        assert again.refused_rewards()["buy", "late"] == 1


def test_an_experiment_that_clips_has_the_definition_that_it_had() -> None:
    """Old definitions must not become new versions, and their digests must stay."""
    plain = sample_experiment()
    assert "out_of_range" not in definition_text(plain)
    spelled = to_message(plain)
    spelled.reward.out_of_range = experiment_pb2.OUT_OF_RANGE_CLIP
    assert definition_text(from_message(spelled)) == definition_text(plain)
    refuses = replace(plain, reward=replace(plain.reward, out_of_range=OutOfRange.REFUSE))
    assert from_message(read_json(definition_text(refuses))) == refuses


# --- for researchers and readers


@pytest.fixture
def named(tmp_path: Path, clock: Clock) -> Path:
    """Clicks and purchases, weighted; one purchase is above the range."""
    path = tmp_path / "named.db"
    definition = RewardDefinition(window=WINDOW, weights={"click": 0.5, "purchase": 1.0}, maximum=100.0)
    with closing(SqliteLog(path, clock=clock)) as log:
        version = apply(log, definition)
        for number in range(40):
            at = decide(log, version, str(number))
            log.append([NewReward(at, "click", 1.0, 0.5)] if number % 2 else [])
            log.append([buy(at, 150.0 if number == 4 else 20.0)] if not number % 4 else [])
            log.append([change(at, None)] if number == 8 else [])
        clock.advance(60)
        log.append([Tick()])
    return path


def test_named_rewards_stay_apart(named: Path) -> None:
    """One number is learned; a researcher asks for each name, and for other weights."""
    summary = query(named, "select name, decisions, rewards, value, reward from reward_summary order by name")
    assert summary == [("click", 20, 20, 20.0, 10.0), ("purchase", 9, 9, 310.0, 310.0)]
    clicks, both = load(named, rewards={"click": 1.0}), load(named, rewards={"click": 2.0, "purchase": 1.0})
    assert (clicks.reward.sum(), clicks.reward_range, clicks.range_declared) == (20.0, (0.0, 1.0), False)
    assert both.reward.sum() == 350.0
    assert load(named).reward.sum() == 270.0, "as it was learned: cut off at the range"
    declared = load(named, rewards={"purchase": 1.0}, reward_range=(0.0, 15.0))
    assert (declared.reward.sum(), declared.reward_range, declared.range_declared) == (9 * 15.0, (0.0, 15.0), True)
    with pytest.raises(BadLog, match="--reward clicks: no reward has that name; there are click, purchase"):
        load(named, rewards={"clicks": 1.0})


def test_the_command_evaluates_by_another_reward(named: Path, tmp_path: Path) -> None:
    """Reward as data: the log has it, so no new experiment is needed to ask."""
    file = tmp_path / "result.json"
    arguments = ["evaluate", str(named), "--policy", "uniform", "--force", "--json", str(file)]
    for more, mean in ([], 6.75), (["--reward", "click"], 0.5), (["--reward", "click=4", "--reward", "purchase"], 9.75):
        ran = CliRunner().invoke(simulator, [*arguments, *more])
        assert ran.exit_code in (0, 1), ran.output
        (logged, *_) = json.loads(file.read_text())["policies"][0]["estimates"].values()
        assert logged["value"] == pytest.approx(mean)
    for wrong, message in (("click=much", "NAME=WEIGHT"), ("other", "no reward has that name")):
        ran = CliRunner().invoke(simulator, [*arguments, "--reward", wrong])
        assert ran.exit_code == 2
        assert message in ran.output


def test_the_messages_in_the_text_do_what_it_says(tmp_path: Path) -> None:
    """A reader copies them."""
    text = (Path(__file__).parents[1] / "decider" / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```json\n(\{\"decision_id\".*?)```", text, re.DOTALL)
    client = InProcessClient(tmp_path / "log.db")
    try:
        message = experiment("cart")
        message.reward.range.maximum = 200
        client.apply(message)
        client.decide("cart", decision_id="cart-42")
        sent = [json_format.Parse(line, pb.RewardRequest()) for line in block.splitlines()]
        replies = [client.call("DeciderService", "Reward", one) for one in sent]
        assert [outcome_name(one.outcome) for one in replies] == ["joined", "corrected", "retracted"]
    finally:
        client.close()


def test_what_is_returned_is_not_learned_by_a_real_server(tmp_path: Path) -> None:
    """The truth is what customers keep; where returns are not told, log and policy take what was sold for it."""
    db = tmp_path / "returns.db"
    played = shops.play(returns.SHOP, db, persons=1500, seed=3)
    for told, actions in played.items():
        for one in actions:
            assert abs(one.mean - (one.truth if told else one.apparent)) < 5 * one.error, one
    share = {told: {one.action: one.share for one in actions} for told, actions in played.items()}
    assert share[True]["full-price"] > max(0.5, share[False]["full-price"] + 0.15)
    with closing(open_reader(db)) as log:
        done = verify(log)
        assert (done.first, done.equal, done.decisions) == (None, 3000, 3000)
