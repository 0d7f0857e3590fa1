"""The default interval of a sample that is divided into parts, none of which sees another. Called by the simulator for
logs larger than memory.

Three passes, each of which adds up over the parts: sums -> the spread of the points -> their counts on one grid. The
result is that of `default_interval` on all units at once, but for rounding, if they are too many for exact points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decider.estimate.default_interval import interval_of_nodes
from decider.estimate.mean import Interval
from decider.estimate.nodes import Grid
from decider.estimate.possible import ANY, Pairs, Range, UnitSizes, corners, is_bounded, possible
from decider.estimate.sample import Floats, Sample

Ends = tuple[float, float]


@dataclass(frozen=True, slots=True)
class SampleSums:
    """What the units of a sample add up to; `+` for several samples of different units. squares: of the sizes.

    low, high, max_weight, min_weight, idle: as of Sample.
    """

    units: int
    total: float
    weight: float
    size: float
    squares: float
    low: float
    high: float
    max_weight: float
    min_weight: float
    idle: Ends | None

    @classmethod
    def of(cls, sample: Sample) -> SampleSums:
        """Of one part.

        >>> ones = np.ones(2)
        >>> one = SampleSums.of(Sample(np.array([1.0, 2.0]), ones, ones, 0.0, 2.0, 1.0))
        >>> (one + one).units, (one + one).value
        (4, 1.5)
        """
        total, weight, size = (float(one.sum()) for one in (sample.total, sample.weight, sample.size))
        squares = float((sample.size**2).sum())
        bounds = (float(sample.low), float(sample.high), float(sample.max_weight), float(sample.min_weight))
        return cls(len(sample.size), total, weight, size, squares, *bounds, sample.idle)

    def __add__(self, other: SampleSums) -> SampleSums:
        """Of the units of both."""
        idle = (
            (min(self.idle[0], other.idle[0]), max(self.idle[1], other.idle[1])) if self.idle and other.idle else None
        )
        return SampleSums(
            self.units + other.units,
            self.total + other.total,
            self.weight + other.weight,
            self.size + other.size,
            self.squares + other.squares,
            min(self.low, other.low),
            max(self.high, other.high),
            max(self.max_weight, other.max_weight),
            min(self.min_weight, other.min_weight),
            idle,
        )

    @property
    def value(self) -> float:
        """The mean term of a decision; nan of none."""
        return self.total / self.size if self.size else float("nan")

    @property
    def shape(self) -> UnitSizes:
        """The sizes of all units."""
        mean = self.size / self.units
        return UnitSizes(mean, self.squares / self.units / mean**2)

    @property
    def bounds(self) -> Sample:
        """The bounds of a decision, as of a sample without units."""
        none = np.zeros(0)
        return Sample(none, none, none, self.low, self.high, self.max_weight, self.min_weight, self.idle)

    def points(self, part: Sample) -> Floats:
        """(units, 2): weight and term of a part's units, as if each were one decision; see UnitSizes."""
        weight = part.weight if self.max_weight > 1 else part.size  # of all parts, as `weights_of` has it of one
        units = self.shape.as_decisions(total=part.total, weight=weight, size=part.size, value=self.value)
        return np.stack([units.weight, units.term], axis=1)


@dataclass(frozen=True, slots=True)
class Spread:
    """The least and the largest weight and term of points; `+` for those of several parts."""

    least: Ends
    most: Ends

    @classmethod
    def of(cls, points: Floats) -> Spread:
        """Of (n, 2) points; n is 1 or more."""
        least, most = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return cls((least[0], least[1]), (most[0], most[1]))

    def __add__(self, other: Spread) -> Spread:
        """Of the points of both.

        >>> Spread((0.0, 1.0), (2.0, 3.0)) + Spread((1.0, 0.0), (1.0, 4.0))
        Spread(least=(0.0, 0.0), most=(2.0, 4.0))
        """
        low = tuple(map(min, self.least, other.least))
        high = tuple(map(max, self.most, other.most))
        return Spread((low[0], low[1]), (high[0], high[1]))

    @property
    def grid(self) -> Grid:
        """Of all points."""
        return Grid.of(np.array(self.least), np.array(self.most))


def divided_interval(
    sums: SampleSums, spread: Spread, count: Floats, *, value_range: Range = ANY, level: float = 0.95
) -> Interval:
    """The interval from the sums, the spread and the counts on its grid, (1, nodes), of all parts.

    >>> weight = np.array([0.0, 2.0] * 100)
    >>> total = weight * np.array([0.0, 0.0, 1.0, 1.0] * 50)
    >>> sample = Sample(total, weight, np.ones(200), low=0, high=2, max_weight=2)
    >>> sums = SampleSums.of(sample)
    >>> points = sums.points(sample)
    >>> spread = Spread.of(points)
    >>> found = divided_interval(sums, spread, spread.grid.count(points), value_range=(0, 1))
    >>> round(found.low, 3), round(found.high, 3)
    (0.401, 0.599)
    """
    limits = possible(sums.bounds, value_range)
    if not sums.units or not is_bounded(sums.bounds):
        return Interval(sums.value, *limits)
    extreme: Pairs = sums.shape.enlarge(corners(sums.bounds, limits), sums.value)
    return interval_of_nodes(spread.grid.nodes(count), extreme, limits, level=level)
