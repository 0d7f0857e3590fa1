"""Where the gap between two actions comes from: scores of every algorithm, and the contributions of fields to them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.log.evicted import EvictedPolicies
from decider.policy.algorithms import ALGORITHMS
from decider.policy.contributions import Gap, asked_contexts, fields_of, gap_between
from decider.policy.make import make_policy
from decider.policy.memory import PolicyMemory
from decider.policy.protocol import Choice, Policy
from decider.policy.spec import PolicySpec
from decider.policy.static import Uniform
from decider.policy.thompson.thompson import ThompsonPolicy
from decider.types import ActionId, Context
from tests.conftest import LEARNING, spec

ACTIONS = (
    Choice(ActionId("sale"), "offer", {"discount": 0.2}),
    Choice(ActionId("outfit")),
    Choice(ActionId("none"), "none"),
)

STATIC = tuple(sorted(set(ALGORITHMS) - set(LEARNING)))

LINEAR = [spec(name) for name in LEARNING] + [PolicySpec(reward_range=(-2.0, 10.0))]
PRODUCTS = [spec("thompson", "CA", "CCA"), spec("squarecb", "CA", "CCA")]


def case_id(one: PolicySpec) -> str:
    """The id of a test case."""
    return f"{one.algorithm} {'+'.join(one.interactions)} {one.reward_range}"


def contexts() -> st.SearchStrategy[Context]:
    """Known and unknown values, some fields missing."""
    numbers = st.floats(-1e4, 1e4) | st.booleans() | st.sampled_from(["a", "b:c|d"])
    return st.builds(
        Context,
        segment=st.sampled_from(["", "vip", "new", "never seen"]),
        device=st.sampled_from(["", "mobile"]),
        features=st.dictionaries(st.sampled_from(["age", "segment", "app", "features.x", "q:1"]), numbers, max_size=4),
    )


def taught(of: PolicySpec) -> Policy:
    """A policy that has learned who likes what."""
    policy, random = make_policy(of), Random(3)
    low, high = of.reward_range
    for _ in range(150):
        segment, age = random.choice(["vip", "new", "bargain"]), random.uniform(18, 80)
        context = Context(segment=segment, device=random.choice(["mobile", ""]), features={"age": age, "app": age > 40})
        drawn = random.randrange(3)
        liked = drawn == (0 if segment == "vip" else 2 if age > 50 else 1)
        reward = low + (high - low) * (random.random() < (0.8 if liked else 0.2))
        policy.learn(context, ACTIONS, drawn=drawn, propensity=1 / 3, reward=reward)
    return policy.snapshot()


@cache
def known(id_: str) -> Policy:
    """One that has learned, by the id of its test case."""
    return next(taught(one) for one in [*LINEAR, *PRODUCTS] if case_id(one) == id_)


def gap(policy: Policy, context: Context, *, first: int = 0, second: int = 1) -> Gap:
    """Of a policy that has one."""
    found = gap_between(policy, context, ACTIONS, first=first, second=second)
    assert found is not None
    return found


def tolerance(of: PolicySpec, found: Gap) -> float:
    """Vowpal Wabbit computes in 32 bits, and scores beyond its range of labels are cut off."""
    largest = max(1.0, *map(abs, found.expected), *[abs(one.reward) for one in found.contributions])
    return (1e-9 if of.algorithm == "thompson" else 1e-4) * largest


@pytest.mark.parametrize("of", [*LINEAR, *PRODUCTS], ids=case_id)
@given(context=contexts(), pair=st.permutations([0, 1, 2]))
def test_contributions_sum_to_the_gap(of: PolicySpec, context: Context, pair: list[int]) -> None:
    """Otherwise a reader adds them up and finds that something was not said."""
    found = gap(known(case_id(of)), context, first=pair[0], second=pair[1])
    whole = found.constant + sum([one.reward for one in found.contributions]) + found.together
    assert whole == pytest.approx(found.total, abs=tolerance(of, found))
    assert [(one.field, one.value) for one in found.contributions] == fields_of(context)


@pytest.mark.parametrize("of", [one for one in [*LINEAR, *PRODUCTS] if one.algorithm == "thompson"], ids=case_id)
@given(context=contexts())
def test_where_two_fields_are_multiplied_at_most_nothing_is_left_over(of: PolicySpec, context: Context) -> None:
    """The remainder is for models that multiply three: on others it would be an error of ours."""
    found = gap(known(case_id(of)), context)
    assert abs(found.together) <= tolerance(of, found)


@given(context=contexts())
def test_a_contribution_is_weight_times_value(context: Context) -> None:
    """Of a linear model, against the weights themselves: the difference of two actions' weights on the field."""
    policy = make_policy(spec("thompson"))
    assert isinstance(policy, ThompsonPolicy)
    random = Random(5)
    for _ in range(60):
        known = Context(segment=random.choice(["vip", "new"]), features={"age": random.uniform(18, 80), "app": True})
        policy.learn(known, ACTIONS, drawn=random.randrange(3), propensity=0.3, reward=random.random())
    predictor = policy._best_predictor()
    found = gap(policy, context)
    for name, field in [(f"segment={context.segment}", "segment"), ("app=true", "features.app")]:
        for one in found.contributions:
            if one.field == field and one.value in (context.segment, True):
                place, rows = predictor._places.get(name), predictor._rows
                weights = [0.0] * 4 if place is None else predictor._weights[:, place].tolist()
                expected = weights[rows["id=sale"]] - weights[rows["id=outfit"]]
                assert one.reward == pytest.approx(expected, abs=tolerance(spec("thompson"), found))


@pytest.mark.parametrize("name", LEARNING)
def test_scores_are_what_the_pmf_is_made_from(name: str) -> None:
    """An explanation of something else than what chose would be a story."""
    policy = known(case_id(spec(name)))
    for context in (Context(segment="vip", features={"age": 30.0}), Context(segment="new", features={"age": 70.0})):
        pmf = policy.pmf(context, ACTIONS)
        (scores,) = policy.scores([context], ACTIONS) or ()
        if max(pmf) - min(pmf) > 0.01:  # `first` draws evenly at first
            assert pmf.index(max(pmf)) == scores.expected.index(max(scores.expected))


def test_squarecb_draws_by_the_inverse_of_the_gap() -> None:
    """The scores to the digit: the pmf of all but the best is 1 / (number + gamma x gap) (Foster and Rakhlin 2020)."""
    of = spec("squarecb", gamma_exponent=0.0)
    policy, context = taught(of), Context(segment="vip", features={"age": 30.0})
    pmf, (scores,) = policy.pmf(context, ACTIONS), policy.scores([context], ACTIONS) or ()
    best = max(scores.expected)
    for probability, expected in zip(pmf, scores.expected, strict=True):
        if expected < best:
            assert probability == pytest.approx(1 / (3 + 30 * (best - expected)), rel=1e-3)


@pytest.mark.parametrize("name", ["thompson", "bag"])
def test_who_explores_by_being_unsure_says_how_unsure(name: str) -> None:
    """Two actions of the same expectation may have different probabilities; this is why."""
    found = gap(known(case_id(spec(name))), Context(segment="vip"))
    assert found.spread is not None
    assert min(found.spread) > 0


@pytest.mark.parametrize("name", STATIC)
def test_a_policy_without_a_model_does_not_depend_on_the_context(name: str) -> None:
    """So there is nothing to contribute, and no table of zeros either."""
    assert gap_between(make_policy(spec(name)), Context(segment="vip"), ACTIONS, first=0, second=1) is None


@pytest.mark.parametrize("name", LEARNING)
def test_an_evicted_policy_has_the_same_scores(name: str) -> None:
    """The server keeps policies in a file while memory is short."""
    evicted = EvictedPolicies()
    memory = PolicyMemory(0, evicted)
    policy = known(case_id(spec(name)))
    asked = [Context(segment="vip"), Context(features={"age": 20.0})]
    before = policy.scores(asked, ACTIONS)
    kept = memory.keep(policy)
    memory.trim()
    assert memory.evictions == 1
    assert kept.scores(asked, ACTIONS) == before
    evicted.close()


@pytest.mark.parametrize("name", LEARNING)
def test_being_asked_for_scores_changes_no_pmf(name: str) -> None:
    """An explanation may be asked of the model that serves."""
    policy, context = known(case_id(spec(name))), Context(segment="vip", features={"age": 33.0})
    before = list(policy.pmf(context, ACTIONS))
    policy.scores([context, Context()], ACTIONS)
    assert list(policy.pmf(context, ACTIONS)) == before


def test_how_often_a_policy_is_asked_is_known_before() -> None:
    """The server bounds what a page may cost."""
    asked: list[int] = []

    class Counting(Uniform):
        def scores(self, contexts: Sequence[Context], actions: Sequence[Choice]) -> None:  # noqa: ARG002 - the protocol's
            asked.append(len(contexts))

    context = Context(segment="vip", features={"age": 1.0, "app": True})
    assert gap_between(Counting(), context, ACTIONS, first=0, second=1) is None
    assert asked == [asked_contexts(context)]
