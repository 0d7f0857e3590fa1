"""The data of an interval: sums over independent units. Made by the simulator's evaluation.

Every estimate here is a mean of terms, one a decision: w r for IPS, expected + w (r - predicted) for DR, their
difference for two policies. Decisions of one unit (a visitor who comes back) are not independent, so intervals see
units: the sum of a unit's terms, the sum of its weights w, and how many decisions it had. The weights are there
because their true mean is known to be 1: an interval that uses this is narrower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Sample:
    """Sums by unit, in the order in which the units came. total, weight, size: (units,).

    low, high: what one decision's term can be at least and at most (not only what was seen). max_weight: the largest
    weight that one decision can have; min_weight: the smallest. idle: what its term can be where it has min_weight,
    at least and at most; None: 0, or what the value can be. The estimate is total.sum() / size.sum().
    """

    total: Floats
    weight: Floats
    size: Floats
    low: float
    high: float
    max_weight: float
    min_weight: float = 0.0
    idle: tuple[float, float] | None = None

    @property
    def value(self) -> float:
        """The mean term of a decision; nan of no decisions."""
        decisions = float(self.size.sum())
        return float(self.total.sum()) / decisions if decisions else float("nan")


class Units:
    """The decisions of each unit, computed once for all samples of a log.

    >>> units = Units(np.array([7, 9, 7]))
    >>> units.sums(np.array([1.0, 0.0, 2.0])).tolist(), units.size.tolist()
    ([3.0, 0.0], [2.0, 1.0])
    """

    __slots__ = ("_code", "size")

    def __init__(self, units: Longs) -> None:
        self._code: Longs | None = None
        self.size: Floats = np.ones(len(units))
        if not _all_different(units):
            _, first, code, size = np.unique(units, return_index=True, return_inverse=True, return_counts=True)
            order = np.argsort(first)
            rank = np.empty(len(order), np.int64)
            rank[order] = np.arange(len(order))
            self._code = rank[code]
            self.size = size[order].astype(np.float64)

    def part(self, rows: Longs) -> Units:
        """Of some of the decisions, by their (rising) indexes; without looking for repeated units again.

        >>> Units(np.array([7, 9, 7, 9])).part(np.array([1, 3])).size.tolist()
        [2.0]
        """
        part = Units.__new__(Units)
        part._code, part.size = None, np.ones(len(rows))
        if self._code is not None:
            code = self._code[rows]
            counts = np.bincount(code, minlength=1)
            present = counts > 0
            part._code = (np.cumsum(present) - 1)[code]
            part.size = counts[present].astype(np.float64)
        return part

    def sums(self, terms: Floats) -> Floats:
        """(units,) sums of (n,) terms, units in the order in which they came."""
        if self._code is None:
            return terms
        return np.bincount(self._code, weights=terms, minlength=len(self.size)).astype(np.float64)

    def sample(self, terms: Floats, weights: Floats, *, low: float, high: float, max_weight: float) -> Sample:
        """The sample of (n,) terms and weights; the bounds are those of one decision."""
        return Sample(self.sums(terms), self.sums(weights), self.size, low, high, max_weight)


def _all_different(units: Longs) -> bool:
    """Counted where the numbers are dense, as codes are; sorted otherwise."""
    if not len(units):
        return True
    low, high = int(units.min()), int(units.max())
    if high - low < 4 * len(units):
        return int(np.bincount(units - low).max()) == 1
    return len(np.unique(units)) == len(units)


def by_unit(terms: Floats, weights: Floats, units: Longs, *, low: float, high: float, max_weight: float) -> Sample:
    """The sample of (n,) terms and weights; `units` is equal where the unit is.

    >>> sample = by_unit(np.array([1.0, 0.0, 2.0]), np.ones(3), np.array([7, 9, 7]), low=0, high=2, max_weight=1)
    >>> sample.total.tolist(), sample.size.tolist(), sample.value
    ([3.0, 0.0], [2.0, 1.0], 1.0)
    """
    return Units(units).sample(terms, weights, low=low, high=high, max_weight=max_weight)
