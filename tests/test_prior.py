"""The priors of the regressions: what `thompson/prior.py` promises, whatever is learned."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decider.policy.features import Vector
from decider.policy.thompson.admission import MostFrequent
from decider.policy.thompson.features import field_of
from decider.policy.thompson.prior import LARGEST_VARIANCE, FieldPrior
from decider.policy.thompson.regression import Regression
from decider.policy.thompson.rules import CODES, NEWEST
from tests.conftest import posterior_of

DEVICES, SEGMENTS = ("mobile", "desktop", "tablet"), ("new", "regular", "vip")


def visit(random: Random, *, unit: float = 1.0) -> Vector:
    """A category that will matter, one that will not, and a number in some unit."""
    return (
        ("constant", 1.0),
        (f"device={random.choice(DEVICES)}", 1.0),
        (f"segment={random.choice(SEGMENTS)}", 1.0),
        ("age:", unit * random.uniform(18, 80)),
    )


CHANCES = {"device=mobile": (0.6, 0.02), "device=desktop": (0.1, 0.1), "device=tablet": (0.02, 0.6)}
"""Of a reward: of action a, and of action b."""


def reward(random: Random, action: str, features: Vector, size: float) -> float:
    """Only the device matters."""
    return size * (random.random() < CHANCES[features[1][0]]["ab".index(action)])


def taught(count: int, *, size: float = 1.0, unit: float = 1.0, seed: int = 1, memory: float = 0.0) -> Regression:
    """A regression of the newest code."""
    random, regression = Random(seed), Regression(MostFrequent(), CODES[NEWEST], memory)
    for _ in range(count):
        features = visit(random, unit=unit)
        action = random.choice("ab")
        regression.learn(action, features, reward(random, action, features, size))
    return regression


ASKED: Vector = (("constant", 1.0), ("device=mobile", 1.0), ("segment=vip", 1.0), ("age:", 40.0))


def test_what_is_believed_scales_with_the_rewards() -> None:
    """A shop that declares 0 to 10 where orders are of 1 learns as well as one that declares 0 to 1, but for the guess
    of the noise, which counts as one observation."""
    large, small = taught(600, size=1.0), taught(600, size=0.1)
    one, other = (posterior_of(each, ("a", "new"), ASKED, ((), ())) for each in (large, small))
    assert other.mean / 0.1 == pytest.approx(one.mean, rel=0.05)
    assert np.sqrt(other.variance) / 0.1 == pytest.approx(np.sqrt(one.variance), rel=0.3)


@pytest.mark.parametrize("unit", [1_000.0, 0.001])
def test_the_unit_of_a_number_has_no_effect(unit: float) -> None:
    """Days or seconds: the same pmf, but for the first decision's part in the noise."""
    one, other = taught(500), taught(500, unit=unit)
    asked = (*ASKED[:3], ("age:", 40.0 * unit))
    ours, theirs = posterior_of(one, ("a",), ASKED, ((),)), posterior_of(other, ("a",), asked, ((),))
    assert theirs.mean == pytest.approx(ours.mean, rel=0.02)
    assert theirs.variance == pytest.approx(ours.variance, rel=0.02)


def test_a_field_that_matters_has_the_larger_variance() -> None:
    """Device decides, segment does not."""
    prior = taught(3_000)._prior
    assert prior.variance_of("device=mobile") > 1.3 * prior.variance_of("segment=vip")
    assert prior.variance_of("device=watch") == prior.variance_of("device=mobile")


@given(st.integers(0, 2**32 - 1), st.integers(1, 120), st.sampled_from([0.0, 30.0]))
@settings(max_examples=30, deadline=None)
def test_penalties_stay_within_bounds(seed: int, count: int, memory: float) -> None:
    """Numbers of any size, categories that come late, rewards that are all alike: no variance is negative or wild."""
    random, regression = Random(seed), Regression(MostFrequent(), CODES[NEWEST], memory)
    for number in range(count):
        features: Vector = (
            ("constant", 1.0),
            (f"late={random.randrange(1 + number // 10)}", 1.0),
            ("wild:", random.choice([0.0, 1e-6, -1.0, 999.0, -5e4, random.gauss(0, 1)])),
        )
        regression.learn(random.choice("ab"), features, random.choice([0.0, 0.0, 1.0, 0.5]))
    prior = regression._prior
    assert isinstance(prior, FieldPrior)
    assert all(0 < variance <= LARGEST_VARIANCE for variance in prior._variances.values())
    found = posterior_of(regression, ("a", "c"), (("constant", 1.0), ("late=0", 1.0), ("wild:", 7.0)), ((), ()))
    assert np.isfinite(found.mean).all()
    assert (found.variance >= 0).all()


def test_a_snapshot_keeps_the_variance_of_what_it_does_not_know() -> None:
    """Later learning changes what an unknown value is believed to be worth, but not in the copy that serves."""
    regression = taught(50)
    copy, asked = regression.snapshot(), (("constant", 1.0), ("device=watch", 1.0))
    before = posterior_of(copy, ("a",), asked, ((),))
    random = Random(3)
    for _ in range(200):
        features = visit(random)
        regression.learn("a", features, reward(random, "a", features, 1.0))
    assert posterior_of(copy, ("a",), asked, ((),)).variance == before.variance
    assert posterior_of(regression, ("a",), asked, ((),)).variance != before.variance


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("segment=a%3Db", "segment"),
        ("hour:", ":"),
        ("A price:", "A :"),
        ("A brand=x", "A brand"),
        ("hour:3", "hour:"),
        ("CC device=mobile segment=new", "CC device segment"),
        ("constant", "constant:"),
    ],
)
def test_what_shares_a_variance(name: str, field: str) -> None:
    """The values of a category; all numbers together, since a number alone has few weights."""
    assert field_of(name) == field
