"""What serves: a snapshot of what was learned, and how it gives a pmf, P(best)^draws, normalised.

A context and actions -> the posterior of each one's expected reward (`posterior.py`) -> each one's probability of being
the best, an integral. Learning is not needed here: `thompson.py` makes snapshots, and asks for pmfs as they do. The
codes of learning differ in how far they look beyond the mean (`rules.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

import numpy as np
from scipy.special import ndtr

from decider.policy.features import Vector
from decider.policy.protocol import Choice, Policy, Scores, Vocabulary
from decider.policy.thompson.arrays import Floats, Indexes
from decider.policy.thompson.posterior import (
    AT_ONCE,
    ActionNames,
    LinearPredictor,
    Posterior,
    Predictor,
    action_names,
    context_features,
)
from decider.types import Context

OPTIMISM, NARROW = 4 / 3, 2 / 3
"""Of `width`: how far above the mean, and how wide the draws are, in standard deviations: 0.6 and 0.3 by default."""

TINY = 1e-9
"""Added to deviations, which may be 0."""

UNDER_WAY = "under_way"
"""Of what a model stores: decisions that were made, and those of them that were sealed."""


class ThompsonSnapshot:
    """A copy of a `ThompsonPolicy` that serves and never changes."""

    def __init__(self, served: Served, to_pmf: PmfFromPosterior, vocabulary: Vocabulary) -> None:
        self._served, self._to_pmf, self._vocabulary = served, to_pmf, vocabulary

    @property
    def size(self) -> int:
        """See `Policy`."""
        return self._served.predictor.size

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """The policy's pmf when the snapshot was taken."""
        return self._to_pmf(self._served, context, actions)

    def pmfs(self, contexts: Sequence[Context], actions: Sequence[Choice]) -> Sequence[Sequence[float]]:
        """See `Policy`."""
        return self._to_pmf.several(self._served, contexts, actions)

    def learn(self, *_: object, **__: object) -> NoReturn:
        """Raises TypeError."""
        raise TypeError("a snapshot does not learn; the policy that it was taken from does")

    def count_under_way(self, **_: object) -> NoReturn:
        """Raises TypeError."""
        raise TypeError("a snapshot counts nothing; the policy that it was taken from does")

    def snapshot(self) -> Policy:
        """Itself: it never changes."""
        return self

    def shrink(self) -> None:
        """Empty the caches."""
        self._served.predictor.shrink()

    def vocabulary(self) -> Vocabulary:
        """The policy's vocabulary when the snapshot was taken."""
        return self._vocabulary

    def scores(self, contexts: Sequence[Context], actions: Sequence[Choice]) -> Sequence[Scores]:
        """See `Policy`."""
        return [self._to_pmf.scores(self._served, context, actions) for context in contexts]

    def save(self) -> NoReturn:
        """Raises TypeError: it does not have the sums that learning needs."""
        raise TypeError("a snapshot cannot be saved; save the policy that it was taken from")


# What a decision asks.


class Part(NamedTuple):
    """A posterior, and the part that its pmf has in the pmf."""

    weight: float
    posterior: Posterior


class Served:
    """What a decision asks: a regression."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def parts(self, actions: tuple[str, ...], shared: Sequence[Vector], own: tuple[Vector, ...]) -> list[Part]:
        """See `Predictor.posteriors`; the weights sum to 1."""
        return [Part(1.0, self.predictor.posteriors(actions, shared, own))]

    def snapshot(self) -> Served:
        """A copy that does not change."""
        return Served(self.predictor.snapshot())


class KnownLevels(NamedTuple):
    """How far each action's rewards have lately been from what a regression expects of them, as `levels.py` learns it.

    counts: (2, rows of the regression), decisions and sums of what they were off by. penalty: decisions without any
    such difference that count besides. noise: the variance of rewards around both.
    """

    counts: Floats
    penalty: float
    noise: float

    def posterior(self, known: Posterior, rows: Indexes, noise: float) -> Posterior:
        """The regression's posterior, (contexts, actions), with the actions' levels. rows: theirs, (actions,); noise:
        the variance of rewards around the regression."""
        count, off = self.counts[:, rows]
        count = count + self.penalty
        return Posterior(known.mean + off / count, (known.variance / noise + 1 / count) * self.noise)

    def frozen(self) -> KnownLevels:
        """A copy that does not change."""
        return self._replace(counts=self.counts.copy())


class ServedWithLevels(Served):
    """A regression, with and without levels. weight: that of the pmf with levels, in (0, 1]."""

    def __init__(self, predictor: LinearPredictor, levels: KnownLevels, weight: float) -> None:
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
        return ServedWithLevels(self._linear.linear_copy(), self._levels.frozen(), self._weight)


def weighted(parts: Sequence[tuple[float, Floats]]) -> Floats:
    """The sum of arrays, each with its weight; of one alone, itself."""
    (first, total), *others = parts
    if not others:
        return total
    total = first * total
    for weight, values in others:
        total = total + weight * values
    return total


# From posteriors to a pmf.


class PmfFromPosterior:
    """Turns posteriors into pmfs; see `ThompsonPolicy`. reward_range: (minimum, maximum), in the reward's unit."""

    def __init__(self, width: float, draws: int, reward_range: tuple[float, float]) -> None:
        self._width, self._draws = width, draws
        self._minimum, self._maximum = reward_range
        self._last: tuple[tuple[Choice, ...] | None, ActionNames] = (None, ((), ()))

    def __call__(self, served: Served, context: Context, actions: Sequence[Choice]) -> list[float]:
        (pmf,) = self.several(served, [context], actions)
        return pmf

    def several(self, served: Served, contexts: Sequence[Context], actions: Sequence[Choice]) -> list[list[float]]:
        """The pmf of each context, the same bits as one by one."""
        parts = self._parts(served, contexts, actions)
        pmfs: list[list[float]] = weighted(self._pmfs(parts)).tolist()
        return pmfs

    def _pmfs(self, parts: Sequence[Part]) -> list[tuple[float, Floats]]:
        """Weight and (contexts, actions), of each part."""
        posterior = parts[0].posterior
        if len(parts) > 1:  # one call of NumPy for all: each row's bits are its own
            both = zip(*[one.posterior for one in parts], strict=True)
            posterior = Posterior(*map(np.concatenate, both))
        power = self._power(*self._explore(posterior))
        pmfs = power / power.sum(axis=1)[:, None]
        return [(one.weight, part) for one, part in zip(parts, np.split(pmfs, len(parts)), strict=True)]

    def scores(self, served: Served, context: Context, actions: Sequence[Choice]) -> Scores:
        """In the reward's unit: what is expected, and how wide the pmf's draws are."""
        parts = self._parts(served, [context], actions)
        (mean,) = weighted([(one.weight, one.posterior.mean) for one in parts])
        (deviation,) = weighted([(one.weight, self._explore(one.posterior)[1]) for one in parts])
        size = self._maximum - self._minimum
        return Scores(tuple((self._minimum + size * mean).tolist()), tuple((size * deviation).tolist()))

    def _parts(self, served: Served, contexts: Sequence[Context], actions: Sequence[Choice]) -> list[Part]:
        """Posteriors of (contexts, actions)."""
        ids, own = self._names_of(tuple(actions))
        return served.parts(ids, list(map(context_features, contexts)), own)

    def _power(self, mean: Floats, deviation: Floats) -> Floats:
        """(contexts, actions): P(each one is the best)^draws."""
        power = best = self._best(mean, deviation)
        for _ in range(self._draws - 1):  # multiplied, not `**`: its last bits depend on the C library
            power = power * best
        return power

    def _best(self, mean: Floats, deviation: Floats) -> Floats:
        """(contexts, actions): P(each one is the best)."""
        return best_of_rows(mean, deviation)

    def count_under_way(self, *, decided: int, sealed: int) -> None:
        """See `Policy`. Here it makes no difference."""

    def to_arrays(self) -> dict[str, Any]:
        """What it has counted, to be saved."""
        return {}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Go on from what was saved."""

    def _explore(self, posterior: Posterior) -> tuple[Floats, Floats]:
        """(contexts, actions) each: mean and standard deviation of the normal distributions of which one is the
        largest."""
        raise NotImplementedError

    def _names_of(self, actions: tuple[Choice, ...]) -> ActionNames:
        # The same object as before in most calls: an `is` is cheaper than hashing all choices for the cache.
        last, names = self._last
        if last is not actions:
            names = action_names(actions)
            self._last = (actions, names)
        return names


class FirstPmf(PmfFromPosterior):
    """Learning codes 1 and 2: draws from the posterior, with its deviations times `width`."""

    def _explore(self, posterior: Posterior) -> tuple[Floats, Floats]:
        return posterior.mean, self._width * np.sqrt(posterior.variance) + TINY

    def _best(self, mean: Floats, deviation: Floats) -> Floats:
        return np.array(list(map(best_of_all, mean, deviation)))


class OptimisticPmf(PmfFromPosterior):
    """Learning code 3: narrower draws around a mean that is the higher, the less is known. They are narrower still
    while much is under way: what was drawn before will tell, so nobody need draw it again to learn it.

    Feel-good Thompson sampling: Zhang, SIAM Journal on Mathematics of Data Science 2022.
    """

    def __init__(self, width: float, draws: int, reward_range: tuple[float, float]) -> None:
        super().__init__(width, draws, reward_range)
        self._decided = self._sealed = 0

    def count_under_way(self, *, decided: int, sealed: int) -> None:
        """See `Policy`."""
        self._decided += decided
        self._sealed += sealed

    def to_arrays(self) -> dict[str, Any]:
        """See PmfFromPosterior."""
        return {UNDER_WAY: np.array([self._decided, self._sealed], np.int64)}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """See PmfFromPosterior."""
        self._decided, self._sealed = arrays[UNDER_WAY].tolist()

    def _explore(self, posterior: Posterior) -> tuple[Floats, Floats]:
        deviation = self._width * np.sqrt(posterior.variance)
        return posterior.mean + OPTIMISM * deviation, NARROW * self._known * deviation + TINY

    def _power(self, mean: Floats, deviation: Floats) -> Floats:
        return share_among_equals(super()._power(mean, deviation), mean, deviation)

    @property
    def _known(self) -> float:
        """Square root of the share of decisions that are sealed; 1 before the first."""
        return math.sqrt(min(1.0, self._sealed / self._decided)) if self._sealed and self._decided else 1.0


# P(best): each of several normals' probability of being the largest.


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

COARSE = 0.25
"""A step of the distribution of the largest, from one point to the next, above which the points are too few."""

_ROWS = np.arange(AT_ONCE // POINTS)[:, None]

_LEAST = 1e-300
"""Added to a divisor that may be 0; the numerator is 0 there, too."""


def best_of_all(mean: Floats, deviation: Floats) -> Floats:
    """(n,): `best_of`; of many actions, all but the most promising ones get 0."""
    return best_of(mean, deviation) if len(deviation) <= CANDIDATES else _best_of_many(mean, deviation)


def best_of(mean: Floats, deviation: Floats) -> Floats:
    """(n,): P(each of n independent normals is the largest), within 0.005 mostly; 0.02 at worst.

    The integral of P(all others are smaller) over each one's own distribution, by the trapezoidal rule.

    >>> best_of(np.array([0.0, 0.0]), np.array([1.0, 2.0])).round(3).tolist()
    [0.5, 0.5]
    """
    # One grid of all actions' points, so that a narrow normal has as many points as a wide one.
    grid = (mean[:, None] + deviation[:, None] * _GRID).ravel()
    grid.sort()
    below = ndtr((grid - mean[:, None]) / deviation[:, None])
    # The product over all others, as that over all divided by its own: n products instead of n^2.
    others = below.prod(axis=0) / (below + _LEAST)
    return np.asarray(((below[:, 1:] - below[:, :-1]) * (others[:, 1:] + others[:, :-1])).sum(axis=1) / 2)


def best_of_rows(mean: Floats, deviation: Floats) -> Floats:
    """(rows, n): `leaner_best_of`; of many actions, all but the most promising ones get 0."""
    rows = max(1, AT_ONCE // (POINTS * min(mean.shape[1], CANDIDATES)))
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
    """(rows, n): P(each of a row's n independent normals is the largest) up to a factor of the row, within 0.01 once
    each row is divided by its sum. The bits of a row do not depend on the other rows.

    Where the largest one lies is known at 48 points; what it gains between two of them is shared by the growth of each
    normal's own distribution function there. Where one of these steps is large, as with two uncertain actions above
    thirty well-known ones, which have most of the points, all nodes are points.

    >>> best = leaner_best_of(np.array([[0.0, 0.5]]), np.array([[1.0, 2.0]]))
    >>> (best / best.sum()).round(3).tolist()
    [[0.412, 0.588]]
    """
    centre, scale = mean[:, :, None], deviation[:, :, None]
    nodes = centre + scale * _NODES[: mean.shape[1]]
    lowest = np.maximum.reduce(nodes[:, :, 0], axis=1, keepdims=True)  # below it, one of them is larger for certain
    nodes = nodes.reshape(len(mean), -1)
    nodes.sort(axis=1)
    low = np.add.reduce(nodes < lowest, axis=1)
    best, steps = _best_at(nodes[_ROWS[: len(mean)], _places(nodes.shape[1])[low]], centre, scale)
    if steps.max() > COARSE:
        for row in np.flatnonzero(steps.max(axis=1) > COARSE).tolist():
            one = slice(row, row + 1)
            best[one], _ = _best_at(nodes[one, low[row] :], centre[one], scale[one])
    return best


def _best_at(points: Floats, centre: Floats, scale: Floats) -> tuple[Floats, Floats]:
    """(rows, n), as `leaner_best_of`, and (rows, points - 1): what the largest one gains from point to point. points:
    (rows, points); centre, scale: (rows, n, 1)."""
    below = ndtr((points[:, None] - centre) / scale)  # nowhere 0: no point is below the lower end of any
    left, right = below[:, :, :-1], below[:, :, 1:]
    # With a -> b of one distribution function and the mean (a + b) / 2 of it in between, this is proportional to
    # (b - a) x the product of the others' means: the trapezoidal rule for two, exact for equal ones of any number.
    growth = (right - left) / (right + left)
    largest = np.multiply.reduce(below, axis=1)
    steps = largest[:, 1:] - largest[:, :-1]
    share = steps / (np.add.reduce(growth, axis=1) + _LEAST)
    return np.asarray(np.add.reduce(growth * share[:, None], axis=2)), steps


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
