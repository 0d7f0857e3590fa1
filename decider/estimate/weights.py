"""Importance weights: effective sample size, and how few decisions carry them. Called by the simulator's diagnostics.

A weight is w = pmf[drawn action] / propensity: the candidate's probability of the logged draw over that of the log. Its
true mean is 1 where the log could draw every action that the candidate would.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from decider.estimate.sample import Floats, Longs, Units


def effective_size(weights: Floats) -> float:
    """(sum w)^2 / sum w^2: the number of equally weighted draws with the same variance; 0 where all weights are 0.

    Kish, Survey Sampling, 1965, section 11.7; for importance weights Kong, 1992.

    >>> effective_size(np.array([1.0, 1.0, 1.0])), effective_size(np.array([3.0, 0.0, 0.0]))
    (3.0, 1.0)
    """
    squares = float(np.dot(weights, weights))
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def top_share(weights: Floats, *, top: float = 0.01) -> float:
    """Share of the total weight that the largest `top` of the weights (at least one) have; 0 where all are 0.

    >>> top_share(np.array([6.0, 1.0, 1.0, 1.0, 1.0]), top=0.2)
    0.6
    """
    total = float(weights.sum())
    if not total:
        return 0.0
    count = max(1, round(top * len(weights)))
    return float(np.partition(weights, len(weights) - count)[-count:].sum()) / total


def largest_share(contributions: Floats) -> float:
    """Share of the largest of the absolute contributions in their sum; 0 where all are 0.

    >>> largest_share(np.array([-3.0, 1.0, 0.0, 2.0]))
    0.5
    """
    sizes = np.abs(contributions)
    total = float(sizes.sum())
    return float(sizes.max()) / total if total else 0.0


def usual_value(rewards: Floats) -> float:
    """The reward that at least half of the decisions have, else the median; 0 without decisions.

    Estimates depend on the rewards that differ from it: clicks among zeros, zeros among -1.

    >>> usual_value(np.array([0.0, 1.0, 0.0])), usual_value(np.array([-1.0, -1.0, 0.0]))
    (0.0, -1.0)
    """
    if not len(rewards):
        return 0.0
    guess = _middle(rewards[:1_001])  # a full partition takes 30 times as long, above all where most are equal
    return guess if 2 * np.count_nonzero(rewards == guess) > len(rewards) else _middle(rewards)


def _middle(rewards: Floats) -> float:
    middle = len(rewards) // 2
    return float(np.partition(rewards, middle)[middle])


class MeanWeight(NamedTuple):
    """A mean with its asymptotic standard error (nan below two units)."""

    value: float
    error: float

    def z(self, expected: float) -> float:
        """Standard errors above `expected`; infinite where the error is 0 and the mean another.

        >>> MeanWeight(1.3, 0.1).z(1.0), MeanWeight(0.5, 0.0).z(1.0), MeanWeight(1.0, 0.0).z(1.0)
        (3.0000000000000004, -inf, 0.0)
        """
        apart = self.value - expected
        if math.isnan(self.error) or not apart:
            return 0.0
        return apart / self.error if self.error else math.copysign(math.inf, apart)


def mean_weight(weights: Floats, units: Longs) -> MeanWeight:
    """Mean of (n,) weights; the error lets decisions of one unit depend on each other. `units` is equal where it is.

    The linearised variance of a ratio of unit totals: Cochran, Sampling Techniques, 1977, chapter 6.

    >>> mean_weight(np.array([0.0, 2.0, 1.0, 1.0]), np.array([1, 2, 3, 4]))
    MeanWeight(value=1.0, error=0.408248290463863)
    >>> mean_weight(np.array([0.0, 0.0, 2.0, 2.0]), np.array([1, 1, 2, 2])).error
    1.0
    """
    if not len(weights):
        return MeanWeight(math.nan, math.nan)
    value = float(weights.mean())
    apart = Units(units).sums(weights - value)
    count = len(apart)
    if count < 2:
        return MeanWeight(value, math.nan)
    return MeanWeight(value, math.sqrt(count / (count - 1) * float(np.dot(apart, apart))) / len(weights))
