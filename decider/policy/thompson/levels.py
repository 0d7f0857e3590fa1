"""How far each action's rewards have lately been from what a regression expects of them. Called by `thompson.py`.

A regression that remembers everything is slow to see that an action wears out, or that its season has come; one that
forgets has too little data for its weights. This is between the two: one number an action forgets. The two pmfs, with
and without it, are averaged by how well each has foretold the rewards.

Local level models: West and Harrison, Bayesian Forecasting and Dynamic Models, 1997, chapter 2; averaging: Raftery,
Karny and Ettler 2010.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decider.policy.thompson.arrays import Arrays
from decider.policy.thompson.evidence import Foretold
from decider.policy.thompson.noise import LastingNoise
from decider.policy.thompson.pmf import KnownLevels

PENALTY = 4.0
"""Of a level, in penalties of a weight before there are data: levels move little."""

STEPS = 8
"""A weight is a whole number of such parts: the last bits of `exp` depend on the C library, and must not decide. Few:
what is hardly believed costs a decision no second posterior."""


class Levels:
    """The levels of all actions, by their rows in a regression. memory: a decision counts 1/e after so many."""

    def __init__(self, memory: float) -> None:
        self._kept = max(0.0, 1 - 1 / memory)
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

    def known(self) -> KnownLevels:
        """What serves, until more is learned."""
        return KnownLevels(self._counts, self._penalty, self._noise.value)

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


def weight_of(ahead: float) -> float:
    """Of the one of two whose evidence is so many nats ahead of the other's.

    >>> weight_of(0.0), weight_of(-3.0), weight_of(-1e9)
    (0.5, 0.0, 0.0)
    """
    if not ahead > -700.0:  # also where it is no number
        return 0.0
    return round(STEPS / (1.0 + math.exp(-min(ahead, 700.0)))) / STEPS
