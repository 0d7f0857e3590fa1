"""P(best): each of several normals' probability of being the largest. Called by `pmf.py`."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.special import ndtr

from decider.policy.thompson.arrays import Floats, Indexes

CANDIDATES = 32
"""Where there are more actions, only this many of the most promising ones get probability; the others get the floor."""

_GRID = np.linspace(-3.5, 3.5, 16)
"""Points of the integral for each action, in standard deviations from its mean."""

NODES = 24
"""Of each action; the points of the leaner integral are among the nodes of all."""

POINTS = 48
"""Of the leaner integral: so many of the nodes, at even places among those above all lower ends."""


def _make_nodes() -> Floats:
    """(CANDIDATES, NODES): in standard deviations from the mean, from about -4 to 4, denser near it.

    Those of each action are moved by another part of a step (the golden ratio spreads them evenly): of equal actions
    the nodes would lie upon each other.
    """
    moved = (np.arange(CANDIDATES) * (math.sqrt(5) - 1) / 2) % 1 - 0.5
    steps = np.linspace(-1, 1, NODES) + moved[:, None] * (2 / (NODES - 1))
    nodes: Floats = np.sinh(1.7 * steps) * (4.0 / math.sinh(1.7))
    return nodes.round(6)  # the last bits of sinh depend on the machine


_NODES = _make_nodes()

_AT_ONCE = 16_000
"""Distribution functions that are computed at a time; see `posterior.AT_ONCE`."""

_ROWS = np.arange(_AT_ONCE // POINTS)[:, None]

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


def best_of_rows(mean: Floats, deviation: Floats) -> Floats:
    """(rows, n): `leaner_best_of`; of many actions, all but the most promising ones get 0."""
    rows = max(1, _AT_ONCE // (POINTS * min(mean.shape[1], CANDIDATES)))
    if len(mean) <= rows:
        return _best_of_few_rows(mean, deviation)
    starts = range(0, len(mean), rows)
    return np.concatenate([_best_of_few_rows(mean[at : at + rows], deviation[at : at + rows]) for at in starts])


def _best_of_few_rows(mean: Floats, deviation: Floats) -> Floats:
    if mean.shape[1] <= CANDIDATES:
        return leaner_best_of(mean, deviation)
    promising = np.argsort(-(mean + 2 * deviation), axis=1, kind="stable")[:, :CANDIDATES]
    pmfs = np.zeros(mean.shape)
    best = leaner_best_of(np.take_along_axis(mean, promising, 1), np.take_along_axis(deviation, promising, 1))
    np.put_along_axis(pmfs, promising, best, 1)
    return pmfs


def share_among_equals(power: Floats, mean: Floats, deviation: Floats) -> Floats:
    """(rows, n): the same, but of many actions those that equal the last candidate have equal parts: which of them are
    candidates is a matter of their order alone.

    Of 200 new actions, the first 32 would be tried again and again until the rewards of one were known.
    """
    if mean.shape[1] <= CANDIDATES:
        return power
    last = np.argsort(-(mean + 2 * deviation), axis=1, kind="stable")[:, CANDIDATES - 1 : CANDIDATES]
    equal = mean == np.take_along_axis(mean, last, 1)
    equal &= deviation == np.take_along_axis(deviation, last, 1)
    equal = np.ascontiguousarray(equal)  # the order of a sum depends on the layout
    part = (power * equal).sum(axis=1) / equal.sum(axis=1)
    return np.where(equal, part[:, None], power)


def leaner_best_of(mean: Floats, deviation: Floats) -> Floats:
    """(rows, n): P(each of a row's n independent normals is the largest) up to a factor of the row, within 0.0054 once
    each row is divided by its sum. The bits of a row do not depend on the other rows.

    Where the largest one lies is known at 48 points; what it gains between two of them is shared by the growth of each
    normal's own distribution function there.

    >>> best = leaner_best_of(np.array([[0.0, 0.5]]), np.array([[1.0, 2.0]]))
    >>> (best / best.sum()).round(3).tolist()
    [[0.412, 0.588]]
    """
    centre, scale = mean[:, :, None], deviation[:, :, None]
    nodes = centre + scale * _NODES[: mean.shape[1]]
    lowest = np.maximum.reduce(nodes[:, :, 0], axis=1, keepdims=True)  # below it, one of them is larger for certain
    nodes = nodes.reshape(len(mean), -1)
    nodes.sort(axis=1)
    points = nodes[_ROWS[: len(mean)], _places(nodes.shape[1])[np.add.reduce(nodes < lowest, axis=1)]]
    below = ndtr((points[:, None] - centre) / scale)  # nowhere 0: no point is below the lower end of any
    left, right = below[:, :, :-1], below[:, :, 1:]
    # With a -> b of one distribution function and the mean (a + b) / 2 of it in between, this is proportional to
    # (b - a) x the product of the others' means: the trapezoidal rule for two, exact for equal ones of any number.
    growth = (right - left) / (right + left)
    largest = np.multiply.reduce(below, axis=1)
    share = (largest[:, 1:] - largest[:, :-1]) / (np.add.reduce(growth, axis=1) + _TINY)
    return np.asarray(np.add.reduce(growth * share[:, None], axis=2))


@lru_cache(maxsize=CANDIDATES)
def _places(nodes: int) -> Indexes:
    """(nodes, points): which of so many nodes, in order, are the points, by how many of them are too low."""
    first = np.arange(nodes)[:, None]
    return first + np.arange(POINTS) * (nodes - 1 - first) // (POINTS - 1)


def _best_of_many(mean: Floats, deviation: Floats) -> Floats:
    promising = np.argsort(-(mean + 2 * deviation), kind="stable")[:CANDIDATES]
    pmf = np.zeros(len(mean))
    pmf[promising] = best_of(mean[promising], deviation[promising])
    return pmf
