"""How far each action's rewards have lately been from what a regression expects of them. Called by `thompson.py`.

A regression that remembers everything is slow to see that an action wears out, or that its season has come; one that
forgets has too little data for its weights. This is between the two: one number an action forgets. The two pmfs, with
and without it, are averaged by how well each has foretold the rewards.

Local level models: West and Harrison, Bayesian Forecasting and Dynamic Models, 1997, chapter 2; averaging: Raftery,
Karny and Ettler 2010.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decider.policy.features import Vector
from decider.policy.thompson.arrays import Arrays, Indexes
from decider.policy.thompson.evidence import Foretold
from decider.policy.thompson.noise import LastingNoise
from decider.policy.thompson.posterior import LinearPredictor, Posterior
from decider.policy.thompson.served import Part, Served

PENALTY = 4.0
"""Of a level, in penalties of a weight before there are data: levels move little."""

STEPS = 64
"""A weight is a whole number of such parts: the last bits of `exp` depend on the C library, and must not decide."""


class Levels:
    """The levels of all actions, by their rows in a regression. memory: a decision counts 1/e after so many."""

    def __init__(self, memory: float) -> None:
        self._kept = 1 - 1 / memory
        self._counts = np.zeros((2, 1))  # by row: decisions, and sums of what they were off by
        self._penalty = PENALTY
        self._noise = LastingNoise()

    def learn(self, learned: Foretold, penalty: float) -> Foretold:
        """What the regression has just learned; penalty: of its weights before there are data."""
        if learned.row >= self._counts.shape[1]:
            self._counts = np.pad(self._counts, ((0, 0), (0, learned.row + 1 - self._counts.shape[1])))
        self._penalty = PENALTY * penalty
        count, off = self._counts[:, learned.row].tolist()
        scale = learned.scale + 1 / (count + self._penalty)
        residual = learned.residual - off / (count + self._penalty)
        foretold = Foretold(learned.row, residual, scale, self._noise.value)
        self._counts *= self._kept
        self._counts[:, learned.row] += (1.0, learned.residual)
        self._noise.add(residual, scale)
        return foretold

    def posterior(self, known: Posterior, rows: Indexes, noise: float) -> Posterior:
        """The regression's posterior, (contexts, actions), with the actions' levels. rows: theirs, (actions,); noise:
        the variance of rewards around the regression."""
        count, off = self._counts[:, rows]
        count = count + self._penalty
        return Posterior(known.mean + off / count, (known.variance / noise + 1 / count) * self._noise.value)

    def copy(self) -> Levels:
        """One that does not change."""
        copy = Levels(memory=1.0)
        copy._counts, copy._penalty = self._counts.copy(), self._penalty
        copy._noise.restore(self._noise.to_list(), int(self._noise.count))
        return copy

    def to_arrays(self) -> Arrays:
        """The whole state."""
        return {
            "counts": self._counts,
            "noise": np.array([*self._noise.to_list(), self._noise.count]),
            "penalty": np.array([self._penalty]),
        }

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `to_arrays()`."""
        self._counts = saved["counts"]
        *squares, count = saved["noise"].tolist()
        self._noise.restore(squares, int(count))
        (self._penalty,) = saved["penalty"].tolist()


class ServedWithLevels(Served):
    """A regression, with and without levels. weight: that of the pmf with levels."""

    def __init__(self, predictor: LinearPredictor, levels: Levels, weight: float) -> None:
        super().__init__(predictor)
        self._linear, self._levels, self._weight = predictor, levels, weight

    def parts(self, actions: tuple[str, ...], shared: Sequence[Vector], own: tuple[Vector, ...]) -> list[Part]:
        """See `Served`."""
        known = self._linear.posteriors(actions, shared, own)
        moved = self._levels.posterior(known, self._linear.rows_of(actions), self._linear.noise)
        both = [Part(1.0 - self._weight, known), Part(self._weight, moved)]
        return [one for one in both if one.weight > 0]

    def snapshot(self) -> Served:
        """See `Served`."""
        return ServedWithLevels(self._linear.linear_copy(), self._levels.copy(), self._weight)


def weight_of(ahead: float) -> float:
    """Of the one of two whose evidence is so many nats ahead of the other's.

    >>> weight_of(0.0), weight_of(-3.0), weight_of(-1e9)
    (0.5, 0.046875, 0.0)
    """
    return round(STEPS / (1.0 + math.exp(min(-ahead, 700.0)))) / STEPS
