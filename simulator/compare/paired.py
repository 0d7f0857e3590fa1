"""Paired differences over seeds -> simultaneous intervals. Called by `compare` and by the bake-off.

Who compares twelve policies at 95 % each finds a false difference in every second table. So the intervals of one
family of comparisons are simultaneous: all of them hold their true differences in 95 % of such tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

Floats = NDArray[np.float64]

DRAWS = 20_000
"""Simulated families: their 95 % quantile is that of between 94.7 and 95.3 % (two standard errors)."""

AT_ONCE = 2_000_000
"""Numbers that are simulated at a time."""

EXACT = 1e-12
"""Differences that vary by less than this share of themselves do not vary: rounding does that."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`name` less `against`, the mean over seeds, with its simultaneous interval.

    p_adjusted: the chance that the largest of so many differences would be as large, were there none. real: the
    interval does not hold 0. With one seed low, high and p_adjusted are nan: nothing says how much chance is in it.
    """

    name: str
    against: str
    difference: float
    low: float
    high: float
    p_adjusted: float
    real: bool

    @property
    def conclusion(self) -> str:
        """In words.

        >>> Comparison("a", "b", 0.1, math.nan, math.nan, math.nan, real=False).conclusion
        'run more seeds'
        """
        if math.isnan(self.low):
            return "run more seeds"
        if not self.real:
            return "no significant difference"
        return "better" if self.difference > 0 else "worse"


def paired(
    values: Floats, names: Sequence[str], *, reference: int, level: float = 0.95, draws: int = DRAWS
) -> list[Comparison]:
    """Every other policy less the one at `reference`, in the order of the names.

    values: (policies, seeds), finite; one column is one seed, at which all policies met the same visitors. Raises
    ValueError. How, and what for: see `compare_pairs`.

    >>> values = np.array([[0.50, 0.61, 0.55, 0.58], [0.70, 0.83, 0.74, 0.79], [0.51, 0.60, 0.56, 0.57]])
    >>> for one in paired(values, ["softmax", "squarecb", "bag"], reference=0):
    ...     print(one.name, round(one.difference, 3), round(one.low, 3), round(one.high, 3), one.conclusion)
    squarecb 0.205 0.178 0.232 better
    bag 0.0 -0.024 0.024 no significant difference
    """
    pairs = [(index, reference) for index in range(len(names)) if index != reference]
    return compare_pairs(values, names, pairs, level=level, draws=draws)


def all_pairs(values: Floats, names: Sequence[str], *, level: float = 0.95, draws: int = DRAWS) -> list[Comparison]:
    """Every policy less every one that stands after it; there are many, so intervals are wider. See `paired`.

    >>> [f"{one.name}-{one.against}" for one in all_pairs(np.zeros((3, 2)), ["a", "b", "c"])]
    ['a-b', 'a-c', 'b-c']
    """
    return compare_pairs(values, names, list(combinations(range(len(names)), 2)), level=level, draws=draws)


def compare_pairs(
    values: Floats,
    names: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    *,
    level: float = 0.95,
    draws: int = DRAWS,
) -> list[Comparison]:
    """The first less the second of each pair, as one family, with simultaneous intervals of that level.

    Each is mean +- c * standard error of the differences over seeds, each difference with its own spread (policies
    that learn vary more than those that do not, so nothing is pooled). c is the quantile of the largest |t| of the
    family: single-step maxT (Westfall & Young, Resampling-Based Multiple Testing, 1993, section 2.3), from normal
    samples of as many seeds with the differences' correlation. That correlation is shrunk towards 0 (Schaefer &
    Strimmer, Statistical Applications in Genetics and Molecular Biology 2005, equation 10), since a few seeds show
    more of it than there is. c never exceeds Bonferroni's, which needs no correlation at all. Where seeds are few, c
    is nearly that; where they are twenty and policies share a reference, intervals are a twentieth to a tenth narrower.

    Differences over seeds are taken as normal: each is a mean over thousands of visits, but a policy that fails at one
    seed in ten is not seen as such with five seeds.

    >>> compare_pairs(np.array([[1.0, 2.0], [1.0, 2.0]]), ["a", "b"], [(0, 1)])[0].conclusion
    'no significant difference'
    """
    _check(values, names)
    apart = np.array([values[first] - values[second] for first, second in pairs]).reshape(len(pairs), values.shape[1])
    means, errors = apart.mean(axis=1), _errors(apart)
    largest = Largest.of(apart, draws=draws)
    half = largest.critical(level) * errors
    found = []
    for (first, second), mean, wide, error in zip(pairs, means.tolist(), half.tolist(), errors.tolist(), strict=True):
        p = largest.p_value(abs(mean) / error) if error else float(mean == 0)
        low, high = mean - wide, mean + wide
        found.append(Comparison(names[first], names[second], mean, low, high, p, real=low > 0 or high < 0))
    return found


def _check(values: Floats, names: Sequence[str]) -> None:
    if values.ndim != 2 or len(values) != len(names) or not values.shape[1]:
        raise ValueError(f"values: must be (policies, seeds) of {len(names)} policies; shape is {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("values: must be finite; leave out policies that lack a seed")


def _errors(apart: Floats) -> Floats:
    """(pairs,): standard errors of the means; nan with one seed; 0 where nothing but rounding varies."""
    seeds = apart.shape[1]
    if seeds < 2:
        return np.full(len(apart), math.nan)
    errors = apart.std(axis=1, ddof=1) / math.sqrt(seeds)
    return np.where(errors <= EXACT * np.maximum(np.abs(apart).max(axis=1), EXACT), 0.0, errors)


@dataclass(frozen=True, slots=True)
class Largest:
    """How large the largest |t| of a family is when there is no difference at all.

    drawn: simulated ones, ascending; of a single t infinite, since its own quantile is known. freedom: degrees of
    freedom of each t. comparisons: how many there are.
    """

    drawn: Floats
    freedom: float
    comparisons: int

    @classmethod
    def of(cls, apart: Floats, *, seed: int = 1, draws: int = DRAWS) -> Largest:
        """From the differences: (comparisons, seeds). The same for the same differences."""
        count, seeds = apart.shape
        if seeds < 2:
            return cls(np.full(1, math.nan), math.nan, count)
        if count < 2:
            return cls(np.full(1, math.inf), seeds - 1.0, count)
        random = np.random.default_rng(seed)
        standard = _standard(apart)
        kept = 1 - shrinkage(standard.T @ standard, seeds)
        rows = max(1, AT_ONCE // (seeds * count))
        drawn = []
        for start in range(0, draws, rows):
            many = min(rows, draws - start)
            shared = random.standard_normal((many, seeds, seeds)) @ standard
            noise = math.sqrt(kept) * shared + math.sqrt(1 - kept) * random.standard_normal((many, seeds, count))
            drawn.append(np.abs(_t(noise)).max(axis=1))
        return cls(np.sort(np.concatenate(drawn)), seeds - 1.0, count)

    @classmethod
    def normal(cls, correlation: Floats, *, seed: int = 1) -> Largest:
        """From a correlation that is known well, of means over thousands: (comparisons, comparisons)."""
        if len(correlation) < 2:
            return cls(np.full(1, math.inf), math.inf, len(correlation))
        values, vectors = np.linalg.eigh(correlation)
        random = np.random.default_rng(seed)
        noise = random.standard_normal((DRAWS, len(values))) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
        return cls(np.sort(np.abs(noise).max(axis=1, initial=0.0)), math.inf, len(values))

    def critical(self, level: float) -> float:
        """Which the largest |t| exceeds with probability 1 - level; at most Bonferroni's.

        >>> alone = Largest.of(np.array([[1.0, 2.0, 4.0]]))
        >>> round(alone.critical(0.95), 3)  # that of one t with 2 degrees of freedom
        4.303
        """
        if math.isnan(self.freedom):
            return math.nan
        bonferroni = float(student.isf((1 - level) / (2 * self.comparisons), self.freedom))
        return min(bonferroni, float(np.quantile(self.drawn, level, method="higher")))

    def p_value(self, t: float) -> float:
        """Probability that the largest is at least so large; at most Bonferroni's."""
        if math.isnan(self.freedom) or math.isnan(t):
            return math.nan
        beyond = len(self.drawn) - int(np.searchsorted(self.drawn, t))
        bonferroni = 2 * self.comparisons * float(student.sf(t, self.freedom))
        return min(bonferroni, (beyond + 1) / (len(self.drawn) + 1), 1.0)


def _standard(apart: Floats) -> Floats:
    """(seeds, comparisons): centred, of length 1; 0 where nothing varies."""
    centred = (apart - apart.mean(axis=1, keepdims=True)).T
    lengths = np.where(_errors(apart) > 0, np.linalg.norm(centred, axis=0), np.inf)
    return np.asarray(centred / lengths)


def _t(noise: Floats) -> Floats:
    """(draws, seeds, comparisons) -> (draws, comparisons)."""
    seeds = noise.shape[1]
    return np.asarray(noise.mean(axis=1) / noise.std(axis=1, ddof=1) * math.sqrt(seeds))


def shrinkage(correlation: Floats, seeds: int) -> float:
    """How much of a correlation that so many seeds show is taken away: 1 is all. Between 0 and 1.

    Variance of the correlations over their squares, both summed. The variance of one is (1 - r^2)^2 / (seeds - 1).
    Below five seeds all of it: two seeds show correlations of 1 whatever is true.

    >>> round(shrinkage(np.array([[1.0, 0.5], [0.5, 1.0]]), 11), 3)
    0.225
    """
    off = correlation[~np.eye(len(correlation), dtype=np.bool_)]
    squares = float((off**2).sum())
    if not squares or seeds < 5:
        return 1.0
    return min(1.0, float(((1 - off**2) ** 2).sum()) / (seeds - 1) / squares)
