"""Learning: what a decision's rewards become, in which order policies learn, and what the learner does with the log."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.decide.decide import decide
from decider.decide.slots import SLOTS, to_slots
from decider.errors import InvalidExperiment, LogError, ModelMismatch, NotFound
from decider.estimate.mean import Mean
from decider.experiment.aggregate import final_reward
from decider.experiment.definition import Action, Aggregation, ExperimentVersion, Learning, RewardDefinition
from decider.learn.leader import Pace
from decider.learn.trainer import Trainer, resume_trainer
from decider.log.memory import MemoryLog
from decider.log.protocol import (
    Entry,
    Mark,
    ModelName,
    NewActivation,
    NewModel,
    NewReward,
    NewVersion,
    Serves,
    ServingChanges,
    Tick,
)
from decider.policy.make import make_policy, save_model
from decider.policy.protocol import Model, Policy
from decider.policy.spec import PolicySpec
from decider.policy.vw.workspace import VwPolicy
from decider.serving.lineup import Lineup
from decider.types import (
    START,
    ActionId,
    Context,
    Decision,
    DecisionId,
    DecisionRequest,
    ExperimentId,
    Position,
    Reason,
)
from simulator.verify import verify
from tests.conftest import LEARNING, SECOND, Clock, sample_experiment, sample_version, spec
from tests.processes import PACE, Process

HOME = ExperimentId("home")

# --- aggregation


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        (Aggregation.FIRST, (0.5, -0.5, 0.0, -0.25)),
        (Aggregation.LAST, (0.25, -0.75, 0.0, 0.5)),
        (Aggregation.SUM, (1.5, -1.5, 0.0, 0.25)),
        (Aggregation.MAX, (0.75, -0.25, 0.0, 0.5)),
        (Aggregation.MIN, (0.25, -0.75, 0.0, -0.25)),
        (Aggregation.MEAN, (0.5, -0.5, 0.0, 0.25 / 3)),
    ],
)
def test_aggregation_of_positive_negative_zero_and_mixed_sets(
    aggregation: Aggregation, expected: tuple[float, ...]
) -> None:
    """A `max` that starts from 0 or from the smallest positive float is wrong on all-negative sets."""
    definition = RewardDefinition(minimum=-5, maximum=5, default=4, aggregation=aggregation)
    sets = ([0.5, 0.75, 0.25], [-0.5, -0.25, -0.75], [0.0, 0.0, 0.0], [-0.25, 0.0, 0.5])
    assert tuple(final_reward(definition, rewards) for rewards in sets) == pytest.approx(expected)
    assert final_reward(definition, []) == 4


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=5), st.sampled_from(Aggregation))
def test_a_final_reward_is_within_the_declared_range(rewards: list[float], aggregation: Aggregation) -> None:
    """A sum of many small rewards may leave the range; the cost that VW learns from must not."""
    definition = RewardDefinition(minimum=-1, maximum=2, aggregation=aggregation)
    value = final_reward(definition, rewards)
    assert -1 <= value <= 2
    wide = final_reward(replace(definition, minimum=-100, maximum=100), rewards)
    assert value == min(max(wide, -1), 2)


# --- the trainer

CONTEXTS = tuple(Context(segment=s, features={"age": a}) for s in ("new", "vip") for a in (20.0, 61.5))


def pmfs(policy: Policy, version: ExperimentVersion) -> list[list[float]]:
    """What a policy says; compared bit for bit."""
    choices = version.choices_of(version.all_active, {})
    return [list(policy.pmf(context, choices)) for context in CONTEXTS]


class Story:
    """A log that a test tells entry by entry; a decision is drawn uniformly unless said otherwise."""

    def __init__(self, **first: object) -> None:
        self.clock = Clock()
        self.log = MemoryLog(clock=self.clock)
        self.decided: list[Position] = []
        self.version = self.apply(**first)

    def apply(self, **changes: object) -> ExperimentVersion:
        """A version of the sample experiment, with small learning rates of time."""
        number = len(self.log.versions()) + 1
        self.log.append([NewVersion(sample_experiment(**changes), number)])
        self.version = self.log.versions()[-1]
        return self.version

    def decide(self, *, index: int = 0, context: int = 0, reason: Reason = Reason.EXPLORE) -> Position:
        """One decision of the running version."""
        eligible = self.version.all_active
        slots = to_slots([1 / len(eligible)] * len(eligible))
        entry = Decision(
            decision_id=DecisionId(f"d{len(self.decided)}"),
            version=self.version.position,
            unit_id="unit",
            context=CONTEXTS[context],
            eligible=eligible,
            action_features={},
            pmf=slots,
            action=eligible[index],
            propensity=slots[index] / SLOTS,
            reason=reason,
            model=START,
        )
        (mark,) = self.log.append([entry])
        assert mark is not None
        self.decided.append(mark.position)
        return mark.position

    def reward(self, decision: Position, value: float = 1.0) -> None:
        """A reward for it, now."""
        self.log.append([NewReward(decision, "click", value)])

    def seal(self) -> None:
        """Until every window is over, and a tick to say so."""
        self.clock.advance(100)
        self.log.append([Tick()])

    def learned(self, of: PolicySpec | None = None) -> tuple[int, list[list[float]]]:
        """How many decisions a fresh trainer learns, and the policy after them."""
        trainer = Trainer(self.log, HOME, of or spec("squarecb"))
        count = trainer.learn_up_to(self.log.head().mark)
        return count, pmfs(trainer.model().policy, self.version)


operations = st.lists(
    st.one_of(
        st.tuples(st.just("decide"), st.integers(0, 2), st.integers(0, 3)),
        st.tuples(st.just("reward"), st.integers(0, 50), st.sampled_from([0.0, 0.5, 1.0])),
        st.tuples(st.just("wait"), st.sampled_from([0, 1, 2, 5, 9]), st.just(0)),
        st.tuples(st.just("tick"), st.just(0), st.just(0)),
        st.tuples(st.just("version"), st.sampled_from([1, 3, 10]), st.integers(0, 3)),
        st.tuples(st.just("override"), st.integers(0, 50), st.just(0)),
    ),
    min_size=10,
    max_size=60,
)


def told(steps: Sequence[tuple[str, int, float]], begun: Story | None = None) -> Story:
    """The story of these steps. begun: what was told before."""
    story = begun or Story(reward=RewardDefinition(window=3 * SECOND))
    for kind, number, value in steps:
        if kind == "decide":
            story.decide(index=number, context=int(value))
        elif kind == "reward" and story.decided:
            story.reward(story.decided[number % len(story.decided)], value)
        elif kind == "wait":
            story.clock.advance(number)
        elif kind == "tick":
            story.log.append([Tick()])
        elif kind == "version":
            learning = Learning.FROZEN if value == 3 else Learning.ONLINE
            story.apply(reward=RewardDefinition(window=number * SECOND), learning=learning)
        elif kind == "override" and story.decided:
            story.log.append([NewActivation(story.decided[number % len(story.decided)], ActionId("none"))])
    return story


@settings(max_examples=15)
@given(steps=operations, cuts=st.lists(st.floats(0, 1), max_size=6), algorithm=st.sampled_from(["squarecb", "cover"]))
def test_learning_in_pieces_is_learning_at_once(
    steps: list[tuple[str, int, float]], cuts: list[float], algorithm: str
) -> None:
    """The server learns every few milliseconds and is restarted; `verify` learns in one go. Both must be one policy."""
    story = told(steps)
    story.seal()
    log, of, end = story.log, spec(algorithm), story.log.head().mark
    at_once, in_pieces = Trainer(log, HOME, of), Trainer(log, HOME, of)
    at_once.learn_up_to(end)
    resumed = Trainer(log, HOME, of)
    for cut in [*sorted(round(share * end.position) for share in cuts), end.position]:
        mark = Mark(Position(cut), log.time_at(Position(cut)))
        in_pieces.learn_up_to(mark)
        if resumed.learn_up_to(mark):
            log.models.store(ModelName(HOME, resumed.position, of.signature), resumed.save(), keep_bytes=10**9)
        resumed, mismatch = resume_trainer(log, HOME, of)
        assert mismatch is None
    expected = pmfs(at_once.model().policy, story.version)
    assert pmfs(in_pieces.model().policy, story.version) == expected
    assert pmfs(resumed.model().policy, story.version) == expected
    assert in_pieces.learned == at_once.learned


@pytest.mark.parametrize("reason", Reason)
def test_only_holdout_and_fallback_decisions_are_not_learned(reason: Reason) -> None:
    """The holdout measures the policy, so it must not teach it; a fallback was not the policy's draw."""
    story = Story()
    story.reward(story.decide(reason=reason))
    story.seal()
    count, _ = story.learned()
    assert count == (0 if reason in (Reason.HOLDOUT, Reason.HOLDOUT_UNAVAILABLE, Reason.FALLBACK) else 1)


def test_an_overridden_decision_is_not_learned() -> None:
    """The reward belongs to the action that was shown, and its propensity is not known."""
    story = Story()
    story.log.append([NewActivation(story.decide(), ActionId("none")), NewActivation(story.decide())])
    story.seal()
    assert story.learned()[0] == 1


def test_decisions_of_a_frozen_version_are_not_learned_later_either() -> None:
    """Frozen means: what happened then leaves no trace in the model, also after it thaws."""
    story = Story()
    story.decide()
    story.apply(learning=Learning.FROZEN)
    story.reward(story.decide(index=1))
    story.apply(learning=Learning.ONLINE)
    story.decide(index=2)
    story.seal()
    assert story.learned()[0] == 2


def test_a_late_reward_changes_nothing() -> None:
    """The decision was sealed, and perhaps learned, without it."""
    with_late, without = Story(), Story()
    for story in (with_late, without):
        at = story.decide()
        story.clock.advance(10)
        if story is with_late:
            story.reward(at)
        story.seal()
    assert with_late.learned() == without.learned()


def test_an_open_window_is_not_learned() -> None:
    """Its rewards are still to come."""
    story = Story()
    story.decide()
    story.clock.advance(9.999999)
    story.log.append([Tick()])
    assert story.learned()[0] == 0
    story.clock.advance(0.000001)
    story.log.append([Tick()])
    assert story.learned()[0] == 1


def test_a_reward_is_better_than_none_and_the_default_counts() -> None:
    """The sign: more reward, more probability. With a default of 1 a reward of 0 is worse than none."""
    shares = []
    for default, paid in ((0.0, 1.0), (1.0, 0.0)):
        story = Story(reward=RewardDefinition(window=10 * SECOND, default=default))
        for index in (0, 1, 2) * 20:
            at = story.decide(index=index)
            if index == 1:
                story.reward(at, paid)
        story.seal()
        shares.append(story.learned()[1][0][1])
    assert shares[0] > 0.5
    assert shares[1] < 1 / 3


def test_another_experiment_s_decisions_are_not_learned() -> None:
    """Models belong to one experiment."""
    story = Story(id=ExperimentId("other"))
    story.decide()
    story.seal()
    assert story.learned()[0] == 0


def test_a_model_is_named_by_the_position_it_has_learned_up_to() -> None:
    """And keeps its name while there is nothing new to learn."""
    story = Story()
    story.decide()
    trainer = Trainer(story.log, HOME, spec("squarecb"))
    assert trainer.learn_up_to(story.log.head().mark) == 0
    assert trainer.model().position == START
    story.seal()
    end = story.log.head().mark
    assert trainer.learn_up_to(end) == 1
    assert trainer.model().position == end.position
    story.log.append([Tick()])
    assert trainer.learn_up_to(story.log.head().mark) == 0
    assert trainer.model().position == end.position


def test_a_published_model_is_not_changed_by_later_learning() -> None:
    """What serves must be what its name says."""
    story = Story()
    trainer = Trainer(story.log, HOME, spec("squarecb"))
    model = trainer.model()
    before = pmfs(model.policy, story.version)
    for _ in range(5):
        story.decide(index=1)
    story.seal()
    trainer.learn_up_to(story.log.head().mark)
    assert pmfs(model.policy, story.version) == before
    assert pmfs(trainer.model().policy, story.version) != before


# --- the learner


class Service(Process):
    """A process that serves the sample experiment to visitors."""

    def __init__(self) -> None:
        clock = Clock()
        super().__init__(MemoryLog(clock=clock), clock)
        self.count = 0

    @property
    def model(self) -> Model:
        """What serves."""
        return self.current[HOME].model

    def visit(self, units: int = 1, *, paying: str = "none") -> list[Decision]:
        """Decisions with the serving model, rewarded where the action is `paying`."""
        made = []
        for _ in range(units):
            self.count += 1
            context = CONTEXTS[self.count % len(CONTEXTS)]
            request = DecisionRequest(DecisionId(f"d{self.count}"), f"u{self.count}", context)
            made.append(decide(request, *self.current[HOME]))
            (mark,) = self.log.append([made[-1]])
            assert mark is not None
            if made[-1].action == paying:
                self.log.append([NewReward(mark.position, "click", 1.0)])
        return made

    def seal(self) -> None:
        """Until the windows are over, and a step of the learner."""
        self.clock.advance(11)
        self.step()


@pytest.fixture
def service() -> Service:
    """One that runs the sample experiment."""
    made = Service()
    made.apply(sample_experiment())
    return made


def test_the_learner_seals_learns_and_publishes(service: Service) -> None:
    """From rewards to a model that serves and is stored, named by its position."""
    service.visit(30)
    service.step()
    assert service.model.position == START
    service.seal()
    position = service.model.position
    assert position == service.log.head().position - 1  # its publishing is an entry, too
    stored = service.log.models.newest(HOME, sample_experiment().policy.signature)
    assert stored is not None
    assert stored[0] == position
    assert service.visit()[0].model == position


def test_a_tick_is_written_when_time_alone_ends_a_window(service: Service) -> None:
    """Otherwise the last visitors of the day would be learned tomorrow, and the log would not say when."""
    service.visit()
    before = service.log.head().position
    service.clock.advance(9)
    service.step()
    assert service.log.head().position == before
    service.clock.advance(1)
    service.step()
    assert service.log.head().position == before + 2  # the tick, and the model that it let be learned
    service.clock.advance(100)
    service.step()
    service.step()
    assert service.log.head().position == before + 2


def test_no_tick_is_needed_where_other_entries_move_time(service: Service) -> None:
    """A busy log moves its own time."""
    service.visit()
    service.clock.advance(10)
    service.visit()
    before = service.log.head().position
    service.step()
    assert service.log.head().position == before + 1
    assert service.model.position == before


def test_applying_the_same_content_makes_no_new_version(service: Service) -> None:
    """Files are read again at every start."""
    again = service.apply(sample_experiment())
    assert (again.changed, again.version.number) == (False, 1)
    changed = service.apply(sample_experiment(description="other"))
    assert (changed.changed, changed.version.number) == (True, 2)
    service.restart()
    assert service.apply(sample_experiment(description="other")).changed is False
    assert len(service.log.versions()) == 2


def test_validating_writes_nothing(service: Service) -> None:
    """A dry run that changes the log is none."""
    before = service.log.head()
    applied = service.apply(sample_experiment(description="other"), validate_only=True)
    assert (applied.changed, applied.version.number) == (True, 2)
    assert service.log.head() == before
    assert service.current[HOME].version.number == 1


def test_a_contradicting_version_is_refused_and_the_running_one_stays(service: Service) -> None:
    """An action's id keeps its meaning."""
    actions = (Action(ActionId("sale"), "cta"), *sample_experiment().actions[1:])
    with pytest.raises(InvalidExperiment):
        service.apply(sample_experiment(actions=actions))
    assert service.current[HOME].version.number == 1


def test_pausing_is_a_version_and_resuming_too(service: Service) -> None:
    """The log says when an experiment did not decide."""
    assert service.set_paused(HOME, paused=True).changed
    assert service.current[HOME].version.experiment.paused
    assert not service.set_paused(HOME, paused=True).changed
    assert service.set_paused(HOME, paused=False).changed
    assert [v.experiment.paused for v in service.log.versions()] == [False, True, False]
    with pytest.raises(NotFound):
        service.versions.set_paused(ExperimentId("nobody"), paused=True)


def test_a_version_that_keeps_the_policy_keeps_the_model(service: Service) -> None:
    """A new banner text must not cost what was learned."""
    service.visit(20)
    service.seal()
    before = service.model
    service.apply(sample_experiment(description="other", holdout=0.1))
    assert service.model == before


def test_changed_policy_settings_learn_the_whole_log_again(service: Service) -> None:
    """The new policy serves only with everything that is known, not from nothing."""
    service.visit(40)
    service.seal()
    changed = sample_experiment(policy=spec("epsilon_greedy"))
    service.apply(changed)
    fresh = Trainer(service.log, HOME, changed.policy)
    service.step()
    fresh.learn_up_to(service.log.head().mark)
    version = service.current[HOME].version
    assert pmfs(service.model.policy, version) == pmfs(fresh.model().policy, version)
    assert service.model.position > START
    service.visit(3)
    service.seal()
    service.apply(sample_experiment())
    service.step()
    again = Trainer(service.log, HOME, sample_experiment().policy)
    again.learn_up_to(service.log.head().mark)
    assert pmfs(service.model.policy, version) == pmfs(again.model().policy, version)


def test_a_frozen_experiment_keeps_its_model(service: Service) -> None:
    """Whatever comes, also over a restart."""
    service.visit(20)
    service.seal()
    service.visit(20)
    service.apply(sample_experiment(learning=Learning.FROZEN))
    before, seen = service.model.position, pmfs(service.model.policy, service.current[HOME].version)
    service.visit(20)
    service.seal()
    service.restart()
    service.seal()
    assert service.model.position == before
    assert pmfs(service.model.policy, service.current[HOME].version) == seen


def test_an_experiment_frozen_before_it_learned_stays_so_over_a_restart(service: Service) -> None:
    """FROZEN: the model no longer changes. A restart is no reason to learn what was sealed meanwhile."""
    service.visit(5)
    service.apply(sample_experiment(learning=Learning.FROZEN))
    service.seal()
    assert service.model.position == START
    service.restart()
    assert service.model.position == START


def test_a_restarted_learner_serves_the_same_and_goes_on_the_same(service: Service) -> None:
    """A crash between any two entries leaves no trace in later decisions."""
    twin = Service()
    twin.apply(sample_experiment())
    for _ in range(4):
        made = [each.visit(15) for each in (service, twin)]
        assert made[0] == made[1]
        for each in (service, twin):
            each.seal()
        service.restart()
        twin.log.name_build({})  # a start says who writes
        assert service.model.position == twin.model.position


def test_a_damaged_stored_model_is_learned_again_from_the_log(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    """A flipped bit on disk costs a moment, not the model; and it is said."""
    service.visit(20)
    service.seal()
    version = service.current[HOME].version
    before = pmfs(service.model.policy, version)
    of = version.experiment.policy
    stored = service.log.models.newest(HOME, of.signature)
    assert stored is not None
    position, saved = stored
    damaged = replace(saved, data=saved.data[:-1])
    service.log.models.store(ModelName(HOME, position, of.signature), damaged, keep_bytes=10**9)
    trainer, mismatch = resume_trainer(service.log, HOME, of)
    assert isinstance(mismatch, ModelMismatch)
    assert trainer.learned == 0
    with caplog.at_level(logging.ERROR):
        service.restart()
    assert "learning again from the log" in caplog.text
    assert pmfs(service.model.policy, version) == before
    assert service.model.position == position
    caplog.clear()
    service.restart()
    assert not caplog.records


def test_old_models_lose_their_data(service: Service) -> None:
    """Otherwise the log would grow by a model with every step. The newest one stays, however large."""
    service.restart(replace(PACE, store_bytes=1_000_000, keep_bytes=0))
    seen = []
    for _ in range(4):
        service.visit(3)
        service.seal()
        seen.append(service.model.position)
    signature = sample_experiment().policy.signature
    assert service.log.models.published_positions(HOME, signature) == seen
    assert service.log.models.stored_positions(HOME, signature) == seen[-1:]


def test_models_are_stored_now_and_then_but_named_always(service: Service) -> None:
    """Bytes of models are bounded by what the decisions learned are worth; a kill costs what was learned since."""
    service.restart(replace(PACE, store_bytes=0, store_interval=1e9))
    seen = []
    for _ in range(4):
        service.visit(3)
        service.seal()
        seen.append(service.model.position)
    signature = sample_experiment().policy.signature
    assert service.log.models.published_positions(HOME, signature) == seen
    assert service.log.models.stored_positions(HOME, signature) == seen[:1]
    before = pmfs(service.model.policy, service.current[HOME].version)
    service.restart()
    assert pmfs(service.model.policy, service.current[HOME].version) == before
    service.leader.finish()
    assert service.log.models.stored_positions(HOME, signature)[-1] == service.model.position


def test_the_leader_tells_what_it_learned(service: Service) -> None:
    """Metrics count decisions learned, and only those."""
    service.visit(7)
    service.seal()
    service.step()
    assert service.heard == [(HOME, 7)]


def test_a_changed_policy_waits_until_it_has_learned_and_what_served_goes_on(service: Service) -> None:
    """Nobody stands before a policy that knows nothing, and nobody waits for one that learns."""
    service.visit(40)
    service.seal()
    applied = service.apply(sample_experiment(policy=spec("softmax")))
    assert (applied.changed, applied.waits, applied.version.number) == (True, True, 2)
    assert service.current[HOME].version.number == 1
    assert service.visit()[0].version == service.current[HOME].version.position
    service.step()
    assert service.current[HOME].version.number == 2
    assert service.model.position > START
    service.restart()
    assert service.current[HOME].version.number == 2


def test_a_pause_takes_effect_at_once_and_ends_the_waiting(service: Service) -> None:
    """The emergency brake never waits; what waited is what a resume brings."""
    service.visit(40)
    service.seal()
    service.apply(sample_experiment(policy=spec("softmax")))
    paused = service.set_paused(HOME, paused=True)
    assert not paused.waits
    assert service.current[HOME].version.number == 3
    assert service.follower.lineup[HOME].waiting is None
    assert service.set_paused(HOME, paused=False).waits
    assert service.current[HOME].version.experiment.paused
    service.step()
    assert service.current[HOME].version.number == 4
    assert service.model.position > START


def test_a_pause_during_which_the_policy_has_learned_ends_at_once(service: Service) -> None:
    """Then there is nothing to wait for."""
    service.visit(40)
    service.seal()
    service.apply(sample_experiment(policy=spec("softmax")))
    service.set_paused(HOME, paused=True)
    service.step()
    assert not service.set_paused(HOME, paused=False).waits
    assert service.current[HOME].version.number == 4
    assert service.model.position > START


def test_a_newer_version_ends_the_waiting(service: Service) -> None:
    """Who goes back to the policy that serves is served by it at once."""
    service.visit(40)
    service.seal()
    service.apply(sample_experiment(policy=spec("softmax")))
    assert not service.apply(sample_experiment()).waits
    assert service.current[HOME].version.number == 3
    service.step()
    assert service.current[HOME].version.number == 3


@pytest.mark.parametrize("newer", ["a pause", "a version"])
def test_what_is_applied_while_a_waiting_ends_wins(service: Service, newer: str) -> None:
    """The leader says that a version serves; by then somebody has paused it. The log must stay readable for ever."""
    service.visit(40)
    service.seal()
    service.apply(sample_experiment(policy=spec("softmax")))

    def interfere() -> object:
        if newer == "a pause":
            return service.versions.set_paused(HOME, paused=True)
        return service.versions.apply(sample_experiment(description="newer"))

    service.interfere = interfere
    service.leader.step()
    service.interfere = lambda: None
    service.step()
    assert service.current[HOME].version.number == 3
    service.restart()
    assert service.current[HOME].version.number == 3


class Flaky(MemoryLog):
    """Reading a stored model fails, as often as it is told to."""

    failures = 0

    def follow(self, after: Position) -> ServingChanges:
        news = super().follow(after)
        if news.versions and self.failures:
            self.failures -= 1
            raise LogError("the disk had a hiccup")
        return news


def test_news_that_could_not_be_read_are_read_again(clock: Clock) -> None:
    """A hiccup at the wrong moment must not leave an experiment without its pause, or without a trainer, for ever."""
    log = Flaky(clock=clock)
    process = Process(log, clock)
    process.apply(sample_experiment())
    process.versions.set_paused(HOME, paused=True)
    log.failures = 1
    with pytest.raises(LogError):
        process.follower.follow()
    process.follower.follow()
    assert process.current[HOME].version.experiment.paused


@given(st.lists(st.sampled_from(["waits", "serves", "pauses", "old"]), max_size=12), st.lists(st.integers(0, 12)))
def test_any_order_of_entries_gives_one_version_that_serves(kinds: list[str], cuts: list[int]) -> None:
    """Several processes append; whatever order comes out, everybody reads the same from it, however it is cut."""
    log = MemoryLog(clock=Clock())
    log.append([NewVersion(sample_experiment(), 1)])
    for number, kind in enumerate(kinds, start=2):
        applied = log.versions()
        if kind == "serves":
            log.append([Serves(applied[-1].position)])
        elif kind == "old":
            log.append([Serves(applied[0].position)])
        else:
            changed = sample_experiment(paused=kind == "pauses", policy=spec("softmax"), salt=str(number))
            log.append([NewVersion(changed, number, waits=kind == "waits")])
    at_once, in_pieces, at = Lineup(log), Lineup(log), START
    at_once.follow(log.follow(START))
    head = log.head().position
    for cut in [*sorted(cut for cut in cuts if cut < head), head]:
        news = log.follow(at)
        in_pieces.follow(
            replace(
                news,
                versions=[one for one in news.versions if one[0].position <= cut],
                serves=[one for one in news.serves if one[0] <= cut],
            )
        )
        at = Position(max(at, cut))
    assert in_pieces == at_once
    assert at_once[HOME].newest == log.versions()[-1]


OTHER = ExperimentId("other")


def test_while_one_experiment_learns_anew_another_one_lives_on(service: Service) -> None:
    """A pause is the emergency brake, and models of other experiments must not grow old meanwhile."""
    service.restart(replace(PACE, slice=0.0))  # a decision at a time, however fast or slow the machine is
    service.apply(sample_experiment(id=OTHER))
    service.visit(300)
    service.seal()
    assert service.apply(sample_experiment(policy=spec("cover"))).waits
    service.versions.set_paused(OTHER, paused=True)
    service.versions.set_paused(OTHER, paused=False)
    request = DecisionRequest(DecisionId("one"), "unit", CONTEXTS[0])
    service.follower.follow()
    service.log.append([decide(request, *service.current[OTHER])])
    service.clock.advance(11)
    for _ in range(2):  # one decision, and then the end of its stride
        assert service.leader.step()
        service.follower.follow()
    assert service.current[HOME].version.number == 1
    assert [(one.experiment, one.version) for one in service.leader.progress()] == [(HOME, 2)]
    assert service.leader.lag() > 0
    assert service.current[OTHER].version.number == 3
    assert service.current[OTHER].model.position > START
    service.step()
    assert service.current[HOME].version.number == 2
    assert service.leader.progress() == []


def test_a_learner_that_traffic_outruns_publishes_on_its_way(service: Service) -> None:
    """On a busy machine the log's end is never reached within one slice: what serves would stay as it began."""
    service.visit(30, paying="sale")
    service.seal()
    before, published = service.model.position, set()
    service.restart(replace(PACE, slice=0.0))  # a decision at a time
    for _ in range(200):
        service.visit(paying="sale")
        service.clock.advance(11)
        service.leader.step()
        service.follower.follow()
        published.add(service.model.position)
    assert service.leader.lag() > 0, "it never caught up"
    assert len(published - {before}) >= 10
    assert verify(service.log).equal == service.count


def test_who_cannot_learn_now_does_not_keep_the_leader_busy(service: Service) -> None:
    """A log that cannot be written for an hour must not cost an hour of processor time."""
    service.restart(Pace(interval=3600.0))
    service.visit(20)
    service.clock.advance(11)
    log = service.log
    write = log.append

    def append(entries: Sequence[Entry]) -> list[Mark | None]:
        if any(isinstance(entry, NewModel) for entry in entries):
            raise LogError("the disk is away")
        return write(entries)

    log.append = append  # type: ignore[method-assign]
    service.leader.finish_learning(time.monotonic() + 60)  # whatever the pace, every trainer is due
    assert service.failed
    assert not service.leader.step()


class Broken(Exception):
    """What a policy of somebody's own may raise."""


def test_an_experiment_that_cannot_learn_does_not_stop_the_others(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said and counted, it tries again, and what it had learned is learned once."""
    service.apply(sample_experiment(id=OTHER, policy=spec("softmax")))
    learn = VwPolicy.learn
    broken = [True]

    def fails_at_first(policy: VwPolicy, *args: Any, **kwargs: Any) -> None:
        if broken[0]:
            raise Broken("no")
        learn(policy, *args, **kwargs)

    monkeypatch.setattr(VwPolicy, "learn", fails_at_first)
    service.visit(20)
    service.log.append([decide(DecisionRequest(DecisionId("o"), "u", CONTEXTS[0]), *service.current[OTHER])])
    service.clock.advance(11)
    for _ in range(3):
        service.leader.step()
    service.follower.follow()
    assert service.failed == [OTHER] * 3
    assert "experiment other could not learn" in caplog.text
    assert service.model.position > START
    assert service.current[OTHER].model.position == START
    broken[0] = False
    service.step()
    assert service.current[OTHER].model.position > START
    assert (OTHER, 1) in service.heard


def test_an_unlearning_policy_needs_no_model(service: Service) -> None:
    """`uniform` and `fixed` serve at once and store nothing."""
    for name in ("uniform", "fixed"):
        service.apply(sample_experiment(policy=spec(name)))
        service.visit(5)
        service.seal()
        assert service.model.position == START


# --- quality


FIVE = tuple(Action(ActionId(f"a{i}")) for i in range(5))


def mean_reward(context: Context, index: int) -> float:
    """Known means: each segment has an action of its own that pays well."""
    best = {"new": 0, "vip": 1, "bargain": 2}[context.segment]
    return 0.6 if index == best else 0.15 if index == 4 else 0.1


@pytest.mark.parametrize("algorithm", LEARNING)
def test_every_learning_default_beats_uniform(algorithm: str) -> None:
    """In a world with known means, by more than chance: the interval of the gain lies above 0 (level 0.9999)."""
    version = sample_version(actions=FIVE, baseline=None, policy=spec(algorithm))
    policy, source, gain = make_policy(version.experiment.policy), Random(3), Mean()
    choices = version.choices_of(version.all_active, {})
    for turn in range(2_500):
        context = Context(segment=source.choice(["new", "vip", "bargain"]), device=source.choice(["mobile", "desktop"]))
        made = decide(DecisionRequest(DecisionId(str(turn)), "unit", context), version, Model(policy))
        index = version.all_active.index(made.action)
        if turn >= 1_500:
            gain.add(mean_reward(context, index) - sum(mean_reward(context, i) for i in range(5)) / 5)
        reward = float(source.random() < mean_reward(context, index))
        policy.learn(context, choices, drawn=index, propensity=made.propensity, reward=reward)
    assert gain.interval(0.9999).low > 0


def test_the_interval_of_a_mean_covers_as_often_as_it_says() -> None:
    """The bound above is worth what the interval is: 95 % intervals cover the known mean in 92 to 98 % of 1,000."""
    source, covered = Random(4), 0
    for _ in range(1_000):
        mean = Mean()
        for _ in range(100):
            mean.add(source.gauss(3.0, 2.0))
        interval = mean.interval()
        covered += interval.low <= 3.0 <= interval.high
    assert 920 <= covered <= 980


@given(st.lists(st.floats(-1e6, 1e6), max_size=30), st.lists(st.floats(-1e6, 1e6), max_size=30))
def test_merged_means_are_one_pass_over_both(one: list[float], other: list[float]) -> None:
    """Shards of a log are counted apart and added up."""
    means = [Mean(), Mean(), Mean()]
    for mean, numbers in zip(means, (one, other, one + other), strict=True):
        for number in numbers:
            mean.add(number)
    merged, whole = means[0] + means[1], means[2]
    assert merged.count == whole.count
    assert merged.value == pytest.approx(whole.value, abs=1e-6)
    if whole.count >= 2:
        widths = [m.interval().high - m.interval().low for m in (merged, whole)]
        assert math.isclose(*widths, rel_tol=1e-6, abs_tol=1e-6)


@pytest.mark.parametrize("algorithm", ["bag", "rnd"])
def test_what_cannot_be_saved_whole_is_learned_from_the_beginning(clock: Clock, algorithm: str) -> None:
    """A stored bag or rnd predicts as it did but learns on otherwise: it may serve, not continue."""
    log, of = MemoryLog(clock=clock), spec(algorithm)
    log.append([Tick()] * 7)
    log.models.store(ModelName(HOME, Position(7), of.signature), save_model(of, make_policy(of)), keep_bytes=10**9)
    trainer, mismatch = resume_trainer(log, HOME, of)
    assert mismatch is None
    assert trainer.model().position == START
