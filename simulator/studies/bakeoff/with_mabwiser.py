"""MABWiser's linear bandits as policies: a ridge regression for every action, in the bake-off's environment.

Its code scores and learns; what is left out are its parallel layer (with one job it calls the same functions one after
another) and copies of models that nobody else holds. A test compares all choices with those of its public methods.
Called by name from `rivals.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from decider.policy.protocol import Choice, PlainPolicy
from decider.types import Context
from simulator.studies.bakeoff.context_cache import ContextCache
from simulator.studies.bakeoff.rival_inputs import RivalInputs
from simulator.worlds.world import Floats


def lin_ucb(given: RivalInputs, alpha: float) -> PlainPolicy:
    """Its LinUCB; 1 is its default."""
    from mabwiser.mab import LearningPolicy  # type: ignore[import-not-found] # only in the bake-off's environment

    return Linear(given, LearningPolicy.LinUCB(alpha=alpha))


def lin_ts(given: RivalInputs, alpha: float) -> PlainPolicy:
    """Its LinTS; 1 is its default."""
    from mabwiser.mab import LearningPolicy

    return Drawing(given, LearningPolicy.LinTS(alpha=alpha))


def lin_greedy(given: RivalInputs, epsilon: float) -> PlainPolicy:
    """Its LinGreedy; 0.1 is its default."""
    from mabwiser.mab import LearningPolicy

    return Linear(given, LearningPolicy.LinGreedy(epsilon=epsilon))


class Linear:
    """Takes the best of the eligible actions by the library's scores; any of them before anything is learned.

    Contexts get a constant, since its regressions have none.
    """

    def __init__(self, given: RivalInputs, learning: Any) -> None:
        from mabwiser.mab import MAB

        self._numbers = given.numbers
        self._scaled = given.scaled
        self._rows = ContextCache(lambda context: np.concatenate([[1.0], given.vectors.of(context)])[None])
        self._mab = MAB(list(self._numbers.values()), learning, seed=given.seed)
        self._models: Any = None

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """1 for the best score."""
        if self._models is None:
            return [1 / len(actions)] * len(actions)
        scores = self._mab._imp.predict_expectations(self._rows(context))
        found = [scores[self._numbers[action.id]] for action in actions]
        best = found.index(max(found))
        return [float(place == best) for place in range(len(found))]

    def learn(
        self,
        context: Context,
        actions: Sequence[Choice],
        *,
        drawn: int,
        propensity: float,  # noqa: ARG002 - it does not use it
        reward: float,
    ) -> None:
        """One more row for the regression of the drawn action."""
        number, row = self._numbers[actions[drawn].id], self._rows(context)
        rewards = np.array([self._scaled(reward)])
        if self._models is None:
            self._mab.fit(np.array([number]), rewards, row)
            self._models = self._mab._imp.arm_to_model
            return
        self._fit(self._models[number], row, rewards)

    def _fit(self, model: Any, row: Floats, rewards: Floats) -> None:
        model.fit(row, rewards)


class Drawing(Linear):
    """Whose scores are drawn. The library fits a deep copy of a model and keeps that, random numbers and all."""

    def _fit(self, model: Any, row: Floats, rewards: Floats) -> None:
        model.rng = deepcopy(model.rng)
        super()._fit(model, row, rewards)
