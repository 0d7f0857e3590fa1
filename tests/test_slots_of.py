"""The one way from a policy to slots: whatever a policy does, a decision comes out; replay rounds as serving does."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.decide.decide import MAX_FAILURE_KINDS, decide, log_failure, slots_of
from decider.decide.slots import SLOTS, uniform_slots
from decider.errors import LogCorrupt
from decider.experiment.definition import Action
from decider.log.memory import MemoryLog
from decider.log.protocol import NewVersion
from decider.policy.protocol import Choice, Model, UnusablePmf
from decider.policy.static import Fixed, Uniform
from decider.server.service import DeciderService
from decider.serving.current import Current
from decider.types import ActionId, Context, DecisionId, DecisionRequest, ExperimentId, Reason
from decider.v1 import decider_service_pb2 as pb
from simulator.evaluate.replay_decisions import ReplayedPolicy
from simulator.load_policy import BadPolicy, CheckedPolicy
from simulator.run.play import play
from simulator.run.policies import LearningPolicy, find_policy
from simulator.worlds.registry import find
from tests.conftest import Clock, sample_version, spec

Answer = Callable[[int], Any]
"""Number of actions -> what the policy answers, or it raises."""


class Answering(Uniform):
    """A policy that answers as it is told."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:  # noqa: ARG002
        """Whatever it is."""
        answered: Sequence[float] = self.answer(len(actions))
        return answered


def raising(error: Exception) -> Answer:
    """An answer that is none."""

    def answer(count: int) -> Any:  # noqa: ARG001
        raise error

    return answer


FAILURES: dict[str, Answer] = {
    "KeyError": raising(KeyError("age")),
    "ZeroDivisionError": raising(ZeroDivisionError()),
    "an error of ours": raising(LogCorrupt("not mine")),
    "no pmf": raising(UnusablePmf("gone wrong")),
    "too few": lambda count: [1 / (count - 1)] * (count - 1),
    "too many": lambda count: [1 / (count + 1)] * (count + 1),
    "nothing": lambda count: [],  # noqa: ARG005
    "None": lambda count: None,  # noqa: ARG005
    "a number": lambda count: 1.0,  # noqa: ARG005
    "nan": lambda count: [math.nan] * count,
    "nan among them": lambda count: [1.0, math.nan, *[0.0] * (count - 2)],
    "infinity": lambda count: [math.inf] * count,
    "negative": lambda count: [1.5, -0.5, *[0.0] * (count - 2)],
    "a sum of 2": lambda count: [2 / count] * count,
    "strings": lambda count: ["0.5"] * count,
    "a text": lambda count: "x" * count,
    "decimals": lambda count: [Decimal(1) / count] * count,
    "a generator": lambda count: (1 / count for _ in range(count)),
    "a table": lambda count: np.full((count, count), 1 / count),
}


def request(number: int = 0, **fields: Any) -> DecisionRequest:
    """One of many."""
    return DecisionRequest(DecisionId(f"d{number}"), "unit", **fields)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_policy_that_fails_is_replaced_by_the_baseline(failure: str) -> None:
    """A visitor waits: whatever goes wrong in a policy, the page must get an action, and the log must say why."""
    version = sample_version()
    made = decide(request(), version, Model(Answering(FAILURES[failure])))
    assert (made.action, made.propensity, made.reason) == ("outfit", 1.0, Reason.FALLBACK)
    without = decide(request(excluded=(ActionId("outfit"),)), version, Model(Answering(FAILURES[failure])))
    assert (without.pmf, without.reason) == (uniform_slots(2), Reason.FALLBACK)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_policy_that_fails_never_ends_a_call(failure: str, clock: Clock) -> None:
    """To a frontend INTERNAL means that the service is broken; it has an action for this visitor."""
    version, running, log = sample_version(), Current(), MemoryLog(clock=clock)
    running.put(version, Model(Answering(FAILURES[failure])))
    log.append([NewVersion(version.experiment, version.number)])  # a log takes decisions of versions that serve
    service = DeciderService(running, log, append=log.append)
    answer = service.Decide(pb.DecideRequest(experiment="home", unit_id="u"))
    assert (answer.action.id, answer.reason) == ("outfit", pb.REASON_FALLBACK)


def test_a_numpy_pmf_is_as_good_as_a_list() -> None:
    """Somebody's own policy computes in numpy."""
    one, other = (
        decide(request(), sample_version(), Model(Answering(answer)))
        for answer in (lambda _: np.array([0.5, 0.3, 0.2]), lambda _: [0.5, 0.3, 0.2])
    )
    assert one == other


def test_an_interrupted_process_is_not_a_failed_policy() -> None:
    """Ctrl-C while a policy computes must end the process, not serve the baseline."""

    class Interrupted(Uniform):
        def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:  # noqa: ARG002
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decide(request(), sample_version(), Model(Interrupted()))


def test_a_failing_policy_is_logged_once_for_each_kind_of_error(caplog: pytest.LogCaptureFixture) -> None:
    """With its traceback, or nobody can mend it; once, or a busy server fills its disk with it."""
    home, other = (sample_version(id=ExperimentId(f"logged-{one}")) for one in ("home", "other"))
    answers = [raising(KeyError("age")), raising(ZeroDivisionError()), raising(KeyError("hour"))] * 50
    with caplog.at_level(logging.ERROR):
        for version in (home, other):
            for number, answer in enumerate(answers):
                decide(request(number), version, Model(Answering(answer)))
        newer = sample_version(id=ExperimentId("logged-home"), policy=spec("squarecb"))
        decide(request(), newer, Model(Answering(answers[0])))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 5
    assert sum("logged-home" in text and "KeyError('age')" in text for text in said) == 2
    assert all(record.exc_info and record.exc_info[2] for record in caplog.records)
    assert "in answer" in caplog.text  # a line of the traceback


def test_what_was_logged_is_forgotten_at_some_time(caplog: pytest.LogCaptureFixture) -> None:
    """A server of years with thousands of versions must not remember each of them."""
    with caplog.at_level(logging.ERROR):
        for number in range(2 * MAX_FAILURE_KINDS + 2):
            log_failure(sample_version(id=ExperimentId(f"forgotten-{number}")), KeyError())
        before = len(caplog.records)
        log_failure(sample_version(id=ExperimentId("forgotten-0")), KeyError())
    assert len(caplog.records) == before + 1


# Evaluating

IDS = tuple(ActionId(f"a{number}") for number in range(6))


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """Any pmf, and what is none."""
    if draw(st.integers(0, 3)) == 0:
        return FAILURES[draw(st.sampled_from(sorted(FAILURES)))]
    weights = draw(st.lists(st.floats(0, 1) | st.sampled_from([0.0, 1e-9, 1.0]), min_size=6, max_size=6))
    off = draw(st.sampled_from([1.0, 1.0009, 1.01, 0.999_5]))

    def answer(count: int) -> list[float]:
        total = sum(weights[:count])
        return [weight / total * off for weight in weights[:count]] if total else [1.0, *[0.0] * (count - 1)]

    return answer


@given(
    given_answers=st.lists(answers(), min_size=1, max_size=8),
    eligible=st.lists(st.sets(st.sampled_from(range(6)), min_size=1), min_size=8, max_size=8),
    minimum=st.floats(0, 1) | st.sampled_from([0.0, 0.001, 1e-7]),
    baseline=st.sampled_from([None, *IDS]),
    algorithm=st.sampled_from(["uniform", "fixed"]),
)
def test_replay_in_blocks_gives_the_slots_that_serving_gives(
    given_answers: list[Answer],
    eligible: list[set[int]],
    minimum: float,
    baseline: ActionId | None,
    algorithm: str,
) -> None:
    """`evaluate` rounds many decisions at once; off by one slot, it would evaluate another policy than is served."""
    version = sample_version(
        actions=tuple(Action(id_) for id_ in IDS), baseline=baseline, minimum_propensity=minimum, policy=spec(algorithm)
    )
    waiting: Iterator[Answer] = iter(())
    policy = Answering(lambda count: next(waiting)(count)) if algorithm == "uniform" else Fixed()
    asked = ReplayedPolicy("mine", version, policy, actions=IDS)
    sets = [tuple(sorted(one)) for one in eligible[: len(given_answers)]]
    menus = [asked.menu(members, "") for members in sets]

    def answers_asked() -> Iterator[Answer]:
        """A rule asks for none."""
        return iter([answer for answer, members in zip(given_answers, sets, strict=True) if len(members) > 1])

    waiting = answers_asked()
    placed = asked.served(menus, [asked.pmf(Context(), menu) for menu in menus])
    waiting = answers_asked()
    for row, members in zip(placed, sets, strict=True):
        choices = version.choices_of(tuple(IDS[member] for member in members), {})
        slots, _ = slots_of(version, policy, Context(), choices)
        assert [round(share * SLOTS) for share in row.tolist()] == [
            slots[members.index(column)] if column in members else 0 for column in range(6)
        ]


# Playing a world


READ_AS_NUMBERS = {"decimals", "a generator", "strings"}
"""Somebody's own policy may answer with what `float` can read."""


@pytest.mark.parametrize("failure", sorted(FAILURES.keys() - READ_AS_NUMBERS))
def test_somebodys_own_policy_that_fails_ends_a_run_with_its_name(failure: str) -> None:
    """The baseline in its place would be somebody else's result."""
    world, policy = find("storefront"), CheckedPolicy("mine:P", Answering(FAILURES[failure]))
    with pytest.raises(BadPolicy, match="mine:P"):
        play(world, world.draw(1, 50), policy, floor=0.0, random=Random(1))


def test_a_name_of_somebodys_own_policy_gives_one_that_is_checked() -> None:
    """`simulator run` and `simulator evaluate` say the same of the same mistake."""
    player = find_policy("tests.custom_policy:first", find("storefront"))
    assert isinstance(player, LearningPolicy)
    assert isinstance(player.make(1), CheckedPolicy)
