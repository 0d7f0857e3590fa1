"""contextualbandits' bootstrapped bandits as policies: ten classifiers for every action, in the bake-off's environment.

As its streaming example does it: stochastic gradient descent on the logistic loss, `batch_train`, fifty rounds at a
time, and its own prior until an action was seen to earn and not to earn. It chooses and learns; left out are the
checks of scikit-learn's classifier at every batch, and its predictions are made at once, from its weights. A test
compares all choices with those of the plain classifier and the library's `decision_function`.
Called by name from `rivals.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit

from decider.policy.protocol import Choice, PlainPolicy
from decider.types import Context
from simulator.studies.bakeoff.context_cache import ContextCache
from simulator.studies.bakeoff.rival_inputs import RivalInputs
from simulator.worlds.world import Floats

BATCH = 50
"""Rounds that are learned at a time, as in its examples."""


def make(given: RivalInputs, name: str) -> PlainPolicy:
    """`BootstrappedUCB` or `BootstrappedTS`, with its default parameters."""
    from contextualbandits import online  # type: ignore[import-not-found] # only in the bake-off's environment

    base = unchecked()(loss="log_loss", random_state=given.seed)
    chooser = getattr(online, name)
    return Bootstrapped(
        given, chooser(base, len(given.choices), batch_train=True, random_state=given.seed, njobs_arms=1)
    )


def unchecked() -> Any:
    """scikit-learn's SGDClassifier, which from its second batch on takes its input as it is."""
    from sklearn.linear_model import SGDClassifier  # type: ignore[import-not-found] # only in the bake-off's environment

    class Unchecked(SGDClassifier):  # type: ignore[misc] # it has no types
        def partial_fit(self, X: Floats, y: Floats, classes: Any = None, sample_weight: Any = None) -> Any:  # noqa: N803
            if not hasattr(self, "coef_"):
                return super().partial_fit(X, y, classes=classes, sample_weight=sample_weight)
            self._fit_binary(X, y, self.alpha, np.ascontiguousarray(sample_weight), self.learning_rate, 1)
            return self

    return Unchecked


class Bootstrapped:
    """Takes the best of the eligible actions by the library's scores. Learns from rewards of two amounts only."""

    def __init__(self, given: RivalInputs, chooser: Any) -> None:
        self._numbers = given.numbers
        self._highest = given.highest
        self._rows = ContextCache(lambda context: given.vectors.of(context)[None])
        self._chooser = chooser
        self._waiting: list[tuple[Floats, int, float]] = []
        self._scores = chooser.decision_function

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """1 for the best score."""
        scores = self._scores(self._rows(context))[0].tolist()
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
        """Once a batch is full."""
        earned = float(reward >= self._highest)
        self._waiting.append((self._rows(context)[0], self._numbers[actions[drawn].id], earned))
        if len(self._waiting) == BATCH:
            rows, numbers, rewards = map(np.array, zip(*self._waiting, strict=True))
            self._chooser.partial_fit(rows, numbers, rewards)
            self._scores = Scores(self._chooser._oracles)
            self._waiting.clear()


class Scores:
    """`decision_function` between two fits: actions that it has a prior for are left to the library."""

    def __init__(self, oracles: Any) -> None:
        self._oracles = oracles
        self._settled = np.flatnonzero(oracles.beta_counters[0])
        self._unsettled = np.flatnonzero(oracles.beta_counters[0] == 0)
        algorithms = [oracles.algos[number] for number in self._settled]
        self._weights = np.array([[one.coef_[0] for one in each.bs_algos] for each in algorithms])
        self._constants = np.array([[one.intercept_[0] for one in each.bs_algos] for each in algorithms])
        self._percentile = oracles.base.percentile
        self._random = [each.random_state for each in algorithms]

    def __call__(self, row: Floats) -> Floats:
        """(1, actions)."""
        scores = np.zeros((1, self._oracles.n))
        for number in self._unsettled:
            self._oracles._decision_function_single(number, row, scores, 1)
        if len(self._settled):
            each = expit(self._weights @ row[0] + self._constants)
            scores[0, self._settled] = self._combined(each)
        return scores

    def _combined(self, each: Floats) -> Floats:
        """(actions, samples) -> (actions,): a percentile, or one of them at random."""
        if self._percentile is not None:
            return np.asarray(np.percentile(each, self._percentile, axis=1))
        drawn = [random.integers(each.shape[1], size=1)[0] for random in self._random]
        return np.asarray(each[np.arange(len(each)), drawn])
