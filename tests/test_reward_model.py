"""The reward model of the doubly robust estimates: never judged on what it has seen, and worth having."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.evaluate.reward_model import RewardModel
from simulator.logs.columns import Category, Columns, Floats, Number
from tests.logged_worlds import logged_world


def predictions(columns: Columns) -> Floats:
    """(n, actions), fitted and asked on the same log."""
    return RewardModel(columns).predict(columns)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 199), st.integers(0, 10_000))
def test_a_units_rewards_never_change_what_is_predicted_for_it(unit: int, seed: int) -> None:
    """A model that has seen a reward 'predicts' it: coba's DR of a learner was 43 % too high that way."""
    columns = logged_world(seed=seed, decisions=600, repeats=3).columns
    mine = columns.unit == unit
    changed = replace(columns, reward=np.where(mine, 1 - columns.reward, columns.reward))
    before, after = predictions(columns), predictions(changed)
    assert (before[mine] == after[mine]).all()
    assert (before[~mine] != after[~mine]).any()


def test_folds_keep_units_together_and_are_about_even() -> None:
    """A visitor who comes back would otherwise be predicted from himself."""
    columns = logged_world(seed=1, decisions=9_000, repeats=3).columns
    fold = RewardModel(columns).fold(columns)
    assert all(len(set(fold[start : start + 3].tolist())) == 1 for start in range(0, 9_000, 3))
    assert np.bincount(fold).min() > 1_500


def test_it_predicts_known_means_better_than_the_actions_own_means() -> None:
    """Otherwise the doubly robust estimate had no use for it."""
    world = logged_world(seed=3, decisions=20_000, epsilon=0.5)
    found = predictions(world.columns)
    by_action = np.array([world.columns.reward[world.columns.action == a].mean() for a in range(5)])
    error, crude = np.abs(found - world.means).mean(), np.abs(by_action - world.means).mean()
    assert error < 0.35 * crude


def test_rare_rewards_are_not_predicted_higher_than_they_are() -> None:
    """Weights that scatter by chance, cut off at 0, would add up to more than there is."""
    rng = np.random.default_rng(5)
    columns = replace(logged_world(seed=5).columns, reward=(rng.random(2_000) < 0.005).astype(np.float64))
    assert predictions(columns).mean() == pytest.approx(columns.reward.mean(), rel=0.1)


def test_predictions_stay_in_the_declared_range() -> None:
    """The bounds of the intervals rest on it."""
    columns = logged_world(seed=7, decisions=300).columns
    odd = replace(columns, reward=np.where(np.arange(300) % 50 == 0, 9.0, -1.0), reward_range=(-1.0, 9.0))
    found = predictions(odd)
    assert found.min() >= -1
    assert found.max() <= 9


@pytest.mark.parametrize("reward", [0.0, 1.0, -3.0])
def test_equal_rewards_are_predicted_as_they_are(reward: float) -> None:
    """No variance anywhere: nothing to divide by."""
    columns = logged_world(seed=2, decisions=200).columns
    same = replace(columns, reward=np.full(200, reward), reward_range=(-5.0, 5.0))
    assert predictions(same) == pytest.approx(reward, abs=1e-6)


def test_numbers_missing_values_and_fields_with_many_values_are_taken() -> None:
    """Real logs have all of these."""
    columns = logged_world(seed=4, decisions=1_000).columns
    rng = np.random.default_rng(0)
    age = np.where(rng.random(1_000) < 0.2, np.nan, rng.uniform(18, 80, 1_000))
    ids = Category(np.arange(1_000, dtype=np.int32), tuple(f"id-{i}" for i in range(1_000)))
    empty = Category(np.full(1_000, -1, np.int32), ())
    fields = {
        **columns.fields,
        "age": Number(age),
        "id": ids,
        "empty": empty,
        "nothing": Number(np.full(1_000, np.nan)),
    }
    found = predictions(replace(columns, fields=fields))
    assert np.isfinite(found).all()
    assert found.mean() == pytest.approx(predictions(columns).mean(), rel=0.1)


def test_no_fields_and_few_decisions_are_enough() -> None:
    """The mean is a model, too."""
    columns = replace(logged_world(seed=1, decisions=12).columns, fields={})
    assert np.isfinite(predictions(columns)).all()
    none = columns.take(slice(0, 0))
    assert predictions(none).shape == (0, 5)
