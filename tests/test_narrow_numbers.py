"""Numbers whose range is small beside their size, as the seconds since 1970 have it: no model may lose its digits."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.policy.make import make_policy
from decider.policy.protocol import Choice, Policy
from decider.types import ActionId, Context, FeatureValue
from tests.conftest import plain_choices, spec

SIZES = st.sampled_from([0.0, 0.3, 19.99, 2026.0, 1.7e9, 1.7e12, -4e7])
RANGES = st.sampled_from([1e-15, 1e-9, 1e-3, 1.0, 600.0, 1e6])
NUMBERS = st.lists(st.tuples(SIZES, RANGES), min_size=1, max_size=5)


def described(count: int) -> tuple[Choice, ...]:
    """Actions with features: from 30 on, one regression learns from all."""
    return tuple(
        [Choice(ActionId(f"a{n}"), "content", {"brand": f"b{n % 6}", "price": 5.0 + n % 9}) for n in range(count)]
    )


def taught(
    numbers: list[tuple[float, float]], actions: tuple[Choice, ...], terms: tuple[str, ...], visits: int
) -> Policy:
    """It decides for itself; the second of three actions is the better one."""
    policy = make_policy(spec("thompson", *terms))
    random = Random(7)
    for _ in range(visits):
        features: dict[str, FeatureValue] = {
            f"n{place}": size * (1 + random.choice([0, 2e-16])) + width * random.random()
            for place, (size, width) in enumerate(numbers)
        }
        context = Context(device=random.choice("md"), features=features)
        pmf = policy.pmf(context, actions)
        assert all(0 <= share <= 1 for share in pmf)
        assert math.fsum(pmf) == pytest.approx(1.0)
        (drawn,) = random.choices(range(len(actions)), pmf)
        reward = float(random.random() < (0.6 if drawn % 3 == 1 else 0.2))
        policy.learn(context, actions, drawn=drawn, propensity=pmf[drawn], reward=reward)
    return policy


@settings(max_examples=25, deadline=None)
@given(NUMBERS, st.booleans())
def test_a_pmf_stays_a_pmf(numbers: list[tuple[float, float]], pairs: bool) -> None:
    """Two sums of squares that differ in digits which a float does not have gave no number, or an error in learning;
    the server then did not start any more."""
    taught(numbers, plain_choices(3), ("CA", "CCA") if pairs else ("CA",), visits=120)


@settings(max_examples=6, deadline=None)
@given(NUMBERS)
def test_nor_where_one_regression_learns_from_all(numbers: list[tuple[float, float]]) -> None:
    """It has its own sums."""
    taught(numbers, described(33), ("CA",), visits=130)


@pytest.mark.parametrize(("size", "width"), [(1.7e9, 600.0), (1.7e12, 6e5), (0.3, 1e-16)])
def test_such_numbers_cost_nothing_of_what_is_learned(size: float, width: float) -> None:
    """Two moments of a visit, as pages send them: the better action is found as if they were not there."""
    policy = taught([(size, width), (size, width)], plain_choices(3), ("CA",), visits=500)
    pmf = policy.pmf(Context(device="m", features={"n0": size, "n1": size}), plain_choices(3))
    assert pmf[1] > 0.9


def test_a_few_calls_with_such_numbers_do_not_poison_a_model() -> None:
    """Anybody who may call could have ended the learning of all."""
    policy, actions, random = taught([(30.0, 50.0)], plain_choices(3), ("CA",), visits=200), plain_choices(3), Random(3)
    for call in range(4):
        strange: dict[str, FeatureValue] = {f"y{place}": 1.7e9 + place + call % (3 + place) for place in range(3)}
        policy.learn(Context(device="m", features=strange), actions, drawn=call % 3, propensity=0.3, reward=0.0)
    for _ in range(200):
        policy.learn(Context(device="d"), actions, drawn=random.randrange(3), propensity=0.3, reward=random.random())
    assert math.fsum(policy.pmf(Context(device="m"), actions)) == pytest.approx(1.0)
