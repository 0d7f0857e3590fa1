"""P(best): each of several normals' probability of being the largest. Called by `pmf.py`."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from decider.policy.thompson.arrays import Floats

CANDIDATES = 32
"""Where there are more actions, only this many of the most promising ones get probability; the others get the floor."""

_GRID = np.linspace(-3.5, 3.5, 16)
"""Points of the integral for each action, in standard deviations from its mean."""

_TINY = 1e-300
"""Added to a divisor that may be 0; the numerator is 0 there, too."""


def best_of_all(mean: Floats, deviation: Floats) -> Floats:
    """(n,): `best_of`; of many actions, all but the most promising ones get 0."""
    return best_of(mean, deviation) if len(deviation) <= CANDIDATES else _best_of_many(mean, deviation)


def best_of(mean: Floats, deviation: Floats) -> Floats:
    """(n,): P(each of n independent normals is the largest), within 0.005.

    The integral of P(all others are smaller) over each one's own distribution, by the trapezoidal rule.

    >>> best_of(np.array([0.0, 0.0]), np.array([1.0, 2.0])).round(3).tolist()
    [0.5, 0.5]
    """
    # One grid of all actions' points, so that a narrow normal has as many points as a wide one.
    grid = (mean[:, None] + deviation[:, None] * _GRID).ravel()
    grid.sort()
    below = ndtr((grid - mean[:, None]) / deviation[:, None])
    # The product over all others, as that over all divided by its own: n products instead of n^2.
    others = below.prod(axis=0) / (below + _TINY)
    return np.asarray(((below[:, 1:] - below[:, :-1]) * (others[:, 1:] + others[:, :-1])).sum(axis=1) / 2)


def _best_of_many(mean: Floats, deviation: Floats) -> Floats:
    promising = np.argsort(-(mean + 2 * deviation), kind="stable")[:CANDIDATES]
    pmf = np.zeros(len(mean))
    pmf[promising] = best_of(mean[promising], deviation[promising])
    return pmf
