"""The posterior of many actions is read a block at a time: the same bits as all at once, in little memory."""

from __future__ import annotations

import tracemalloc
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decider.policy.features import Vector
from decider.policy.thompson import posterior
from decider.policy.thompson.admission import MostFrequent
from decider.policy.thompson.features import CONSTANT
from decider.policy.thompson.posterior import LinearPredictor, Posterior
from decider.policy.thompson.prior import UnitPrior
from decider.policy.thompson.regression import Regression
from decider.policy.thompson.rules import CODES
from tests.conftest import posterior_of

NAMES = [f"{kind}{number}{end}" for number in range(12) for kind, end in (("of", "=x"), ("size", ":"))]
ACTIONS = tuple([f"id={number}" for number in range(40)])


def some(random: Random, names: list[str], most: int) -> Vector:
    """Up to so many features."""
    return tuple(
        [
            (name, random.random() if name.endswith(":") else 1.0)
            for name in random.sample(names, random.randrange(most + 1))
        ]
    )


def taught(random: Random, *, actions: int) -> Regression:
    """Half of the actions have data; some features are unknown."""
    regression = Regression(MostFrequent(10**6), CODES[2])
    for _ in range(80):
        features = ((CONSTANT, 1.0), *some(random, NAMES[4:], 8))
        regression.learn(ACTIONS[random.randrange((actions + 1) // 2)], features, random.random())
    return regression


def at_once(regression: Regression, shared: Vector, own: tuple[Vector, ...], *, actions: int) -> Posterior:
    """The posterior as one expression over all actions, as it was in every release before."""
    rows = np.array([[regression._rows.get(id_, 0)] for id_ in ACTIONS[:actions]])
    known, table = regression._look_up(shared), regression._stack(own)
    shape = (actions, len(known.places))
    places = np.concatenate([np.broadcast_to(known.places, shape), table.places], axis=1)
    values = np.concatenate([np.broadcast_to(known.values, shape), table.values], axis=1)
    if not table.places.size:
        places, values = known.places[None], known.values[None]
    covariance = regression._covariance[rows[:, :, None], places[:, :, None], places[:, None, :]]
    variance = (covariance * (values[:, :, None] * values[:, None, :])).sum(axis=(1, 2))
    mean = (regression._weights[rows, places] * values).sum(axis=1)
    return Posterior(mean, np.maximum(variance + (known.unknown + table.unknown), 0.0) * regression.noise)


@pytest.mark.parametrize("block", [1, 50, 700, posterior.BLOCK])
@pytest.mark.parametrize("actions", [1, 2, 3, 10, 40])
@pytest.mark.parametrize("most", [0, 1, 3])
def test_blocks_of_any_size_give_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, *, block: int, actions: int, most: int
) -> None:
    """A log must replay to the last bit, also after the size of a block was changed. most: features of an action."""
    monkeypatch.setattr(posterior, "BLOCK", block)
    for seed in range(12):
        random = Random(seed)
        regression = taught(random, actions=actions)
        shared = ((CONSTANT, 1.0), *some(random, NAMES[:20], seed))
        own = tuple([some(random, NAMES, most) for _ in range(actions)])
        wanted = at_once(regression, shared, own, actions=actions)
        found = posterior_of(regression, ACTIONS[:actions], shared, own)
        assert found.mean.tobytes() == wanted.mean.tobytes()
        assert found.variance.tobytes() == wanted.variance.tobytes()


@given(st.integers(0, 3), st.lists(st.integers(0, 2**32), min_size=1, max_size=6))
def test_actions_with_the_same_features_get_the_same_arrays_without_a_loop(most: int, seeds: list[int]) -> None:
    """The order in which an array lies in memory is the order of its sums, so it is compared as well."""
    predictor = LinearPredictor(UnitPrior())
    predictor._places |= {name: place for place, name in enumerate(NAMES[:16], 1)}
    names = [CONSTANT, *NAMES[: 2 * most]]
    own = tuple([tuple([(name, Random(seed).random()) for name in names[:most]]) for seed in seeds])
    for known in (own, (*own, some(Random(most), NAMES, 3))):
        for found, wanted in zip(predictor._make_stack(known), predictor._make_ragged_stack(known), strict=True):
            assert (found.dtype, found.shape, found.tobytes()) == (wanted.dtype, wanted.shape, wanted.tobytes())
            assert found.strides == wanted.strides or not found.size


@pytest.mark.parametrize("own", [(), (("A price:", 0.5), ("A new=true", 1.0))])
def test_a_decision_takes_little_memory_however_many_actions_and_features(own: Vector) -> None:
    """1,000 actions x 100 features x 100 features are 80 MB an array: a few such calls would take a server down."""
    regression, actions = Regression(MostFrequent(10**6), CODES[2]), tuple([f"id={number}" for number in range(1_000)])
    shared: Vector = ((CONSTANT, 1.0), *[(f"size{number}:", number / 7) for number in range(100)])
    regression.learn(actions[0], shared + own, 1.0)
    tracemalloc.start()
    posterior_of(regression, actions, shared, (own,) * len(actions))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 20e6
