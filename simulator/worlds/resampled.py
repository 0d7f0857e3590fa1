"""Rewards with a given mean, out of rewards that were logged. Called by `fitted.py`.

Where the wanted mean is above that of the logged rewards, they are resampled from their top share that has just this
mean; where it is below, from their bottom share. Rewards of 0 and 1 become 1 with the probability that is wanted; where
most are 0, as with orders, what changes above all is how often one is not.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from simulator.worlds.world import Floats


class Shares(NamedTuple):
    """Parts of the distribution, for each wanted mean: where it starts and how wide it is, both in [0, 1]."""

    start: Floats
    width: Floats


class LoggedRewards:
    """The distribution of logged rewards. values: (k,), ascending and distinct; weights: (k,), positive.

    >>> clicks = LoggedRewards(np.array([0.0, 1.0]), np.array([9.0, 1.0]))
    >>> clicks.rewards(np.array([0.5, 0.7, 0.7]), clicks.shares(np.array([0.2, 0.2, 0.4]))).tolist()
    [0.0, 0.0, 1.0]
    """

    def __init__(self, values: Floats, weights: Floats) -> None:
        self._values = values
        self._weights = weights / weights.sum()
        self._edges = np.cumsum(self._weights)[:-1]
        self.mean = float(self._values @ self._weights)

    def shares(self, means: Floats) -> Shares:
        """The parts that have these means. means: (m,), from the least of the values to the greatest."""
        top = _top(self._values, self._weights, means)
        bottom = 1 - _top(-self._values[::-1], self._weights[::-1], -means)
        above = means >= self.mean
        return Shares(np.where(above, top, 0.0), np.where(above, 1 - top, bottom))

    def rewards(self, luck: Floats, shares: Shares) -> Floats:
        """(m,): with each luck in [0, 1) the reward at that place of its part. More luck, no smaller reward."""
        return np.asarray(self._values[np.searchsorted(self._edges, shares.start + luck * shares.width, side="right")])


def _top(values: Floats, weights: Floats, means: Floats) -> Floats:
    """(m,): where the top share begins that has this mean, for means that are not below the mean of all.

    Between two edges the top share's sum falls in a straight line, so the place is exact.
    """
    inner = np.cumsum(weights)[:-1]
    begins = np.append(0.0, inner)
    latest = np.append(inner, begins[-1])  # the last part has one value: all of it
    sums = np.cumsum((values * weights)[::-1])[::-1]
    left = np.cumsum(weights[::-1])[::-1]
    wanted = np.maximum(means, sums[0] / left[0])
    part = np.clip(np.searchsorted(sums / left, wanted, side="right") - 1, 0, len(values) - 1)
    after, ends = np.append(sums[1:], 0.0), np.append(inner, 1.0)
    rise = wanted - values[part]
    place = (wanted - after[part] - values[part] * ends[part]) / np.where(rise > 0, rise, 1.0)
    return np.asarray(np.clip(place, begins[part], latest[part]))
