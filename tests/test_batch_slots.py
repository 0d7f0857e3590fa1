"""Slots of several requests from one call of the policy: the same as alone, and whoever fails, fails alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.decide.batch import Waiting, asks_for
from decider.decide.decide import Ask, SlotsCache, decide, eligible_actions
from decider.experiment.definition import ExperimentVersion
from decider.log.group_commit import Call, CommitExecutor
from decider.log.memory import MemoryLog
from decider.log.protocol import NewVersion
from decider.policy.protocol import Choice, Model
from decider.policy.static import Uniform
from decider.policy.work import Budget
from decider.server.service import DeciderService
from decider.serving.current import Current
from decider.types import Context, Decision, DecisionId, DecisionRequest, Reason
from decider.v1 import decider_service_pb2 as pb
from tests.conftest import Clock, sample_version, spec
from tests.test_slots_cache import MODELS, REQUESTS
from tests.test_slots_of import FAILURES, Answering

AGES = tuple([float(age) for age in range(20, 28)])


class Asked(Uniform):
    """Notes how many contexts it is asked for at once; `broken` are ages whose pmfs are none."""

    def __init__(self, *broken: float) -> None:
        self.sizes: list[int] = []
        self._broken = broken

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """By age."""
        if context.features["age"] in self._broken:
            return [2.0] * len(actions)
        return [0.5, 0.25, 0.25]

    def pmfs(self, contexts: Sequence[Context], actions: Sequence[Choice]) -> Sequence[Sequence[float]]:
        """One by one."""
        self.sizes.append(len(contexts))
        return super().pmfs(contexts, actions)


def decided(
    requests: Sequence[DecisionRequest], version: ExperimentVersion, model: Model, budget: Budget | None = None
) -> list[Decision]:
    """All of them as a batch."""
    cache = SlotsCache()
    waiting = [Waiting(one, version, model, cache, eligible_actions(version, one), budget) for one in requests]
    return [decide(one, version, model, ask, budget) for one, ask in zip(requests, asks_for(waiting), strict=True)]


def of_age(age: float) -> DecisionRequest:
    """A context that no cache keeps."""
    return DecisionRequest(DecisionId(f"d{age}"), "u", Context(features={"age": age}))


@pytest.mark.parametrize("algorithm", ["thompson", "squarecb"])
@given(requests=st.lists(REQUESTS, min_size=1, max_size=20), holdout=st.sampled_from([0.0, 0.5]))
@settings(max_examples=40)
def test_a_batch_changes_no_decision(algorithm: str, requests: list[DecisionRequest], holdout: float) -> None:
    """`verify` recomputes each decision alone: one other bit, and a served decision counts as forged."""
    version = sample_version(policy=spec(algorithm), holdout=holdout)
    alone = [decide(one, version, MODELS[algorithm]) for one in requests]
    assert decided(requests, version, MODELS[algorithm]) == alone


def test_all_new_contexts_are_asked_for_at_once() -> None:
    """Equal ones that are kept once; what is known already, or decided without the policy, not at all."""
    policy = Asked()
    decided([of_age(age) for age in AGES], sample_version(), Model(policy))
    assert policy.sizes == [len(AGES)]
    decided([of_age(30.0)], sample_version(), Model(policy))
    assert policy.sizes == [len(AGES)], "alone it takes the shorter way"
    decided([of_age(age) for age in AGES], sample_version(holdout=1.0), Model(policy))
    assert policy.sizes == [len(AGES)], "nobody is asked"


def test_what_costs_more_than_the_budget_is_not_computed_in_a_batch_either() -> None:
    """One dear call would hold up all others."""
    policy = Asked()
    made = decided([of_age(age) for age in AGES], sample_version(), Model(policy), Budget(1e-9))
    assert {one.reason for one in made} == {Reason.FALLBACK}
    assert policy.sizes == []


def test_a_context_that_fails_falls_back_alone() -> None:
    """The others of its batch were decided without it, and are logged and learned as such."""
    made = decided([of_age(age) for age in AGES], sample_version(), Model(Asked(AGES[2], AGES[5])))
    assert [index for index, one in enumerate(made) if one.reason is Reason.FALLBACK] == [2, 5]
    assert {one.pmf for index, one in enumerate(made) if index not in (2, 5)} == {(500_000, 250_000, 250_000)}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_policy_that_fails_ends_no_batch(failure: str, clock: Clock) -> None:
    """As a single call: every visitor gets the baseline action."""
    service = serving(Model(Answering(FAILURES[failure])), clock)
    batch = pb.DecideBatchRequest(requests=[message(age) for age in AGES])
    answers = [result.response for result in service.DecideBatch(batch).results]
    assert [(one.action.id, one.reason) for one in answers] == [("outfit", pb.REASON_FALLBACK)] * len(AGES)


def serving(
    model: Model,
    clock: Clock,
    executor: CommitExecutor | None = None,
    asks: Callable[[Sequence[Waiting]], list[Ask]] = asks_for,
) -> DeciderService:
    """One experiment. executor: shares the questions of calls, which `asks` answers."""
    version, running, log = sample_version(), Current(), MemoryLog(clock=clock)
    running.put(version, model)
    log.append([NewVersion(version.experiment, version.number)])
    ask_all = executor.share(asks) if executor else None
    return DeciderService(running, log, append=log.append, ask_all=ask_all)


def message(age: float) -> pb.DecideRequest:
    """Of a visitor."""
    request = pb.DecideRequest(experiment="home", unit_id="u")
    request.context.features.update({"age": age})
    return request


def test_calls_that_wait_at_the_same_time_ask_once(clock: Clock) -> None:
    """Thirty visitors in flight need not be thirty times the calls of NumPy that one is."""
    policy, begin, answers = Asked(), threading.Event(), list[pb.DecideResponse]()
    executor = CommitExecutor(lambda entries: [None for _ in entries], threads=1)
    service = serving(Model(policy), clock, executor)
    executor.run(Call(begin.wait, ()))
    for age in AGES:
        executor.run(Call(lambda age=age: answers.append(service.Decide(message(age))), ()))
    begin.set()
    executor.shutdown()
    assert policy.sizes == [len(AGES)]
    assert {answer.propensity for answer in answers} <= {0.5, 0.25}
    assert len(answers) == len(AGES)


def test_a_call_alone_asks_the_cache(clock: Clock) -> None:
    """It need not step aside for others that are not there."""
    policy, asked, answers = Asked(), list[int](), SimpleQueue[pb.DecideResponse]()

    def noted(waiting: Sequence[Waiting]) -> list[Ask]:
        asked.append(len(waiting))
        return asks_for(waiting)

    executor = CommitExecutor(lambda entries: [None for _ in entries], threads=1)
    service = serving(Model(policy), clock, executor, noted)
    for age in AGES:
        executor.run(Call(lambda age=age: answers.put(service.Decide(message(age))), ()))
        assert answers.get(timeout=10).propensity in (0.5, 0.25)
    executor.shutdown()
    assert (asked, policy.sizes) == ([], [])
