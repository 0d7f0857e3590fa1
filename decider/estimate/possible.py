"""The extreme pairs of weight and term that a decision can have, and the sizes of units.

Called by every interval that has to allow for decisions that are possible but were not seen. `UnitSizes` turns units of
several decisions into single decisions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from decider.estimate.mean import Interval
from decider.estimate.sample import Floats, Sample

Range = tuple[float, float]

ANY: Range = (-math.inf, math.inf)


def possible(sample: Sample, within: Range) -> Range:
    """The range of the value: within `within` and within the range of one term.

    >>> from decider.estimate.sample import by_unit
    >>> possible(by_unit(np.ones(2), np.ones(2), np.arange(2), low=0.0, high=50.0, max_weight=50), (0.0, 1.0))
    (0.0, 1.0)
    """
    return max(float(sample.low), within[0]), min(float(sample.high), within[1])


def is_bounded(sample: Sample) -> bool:
    """Whether the range of a decision's weight and term is finite.

    >>> from decider.estimate.sample import by_unit
    >>> is_bounded(by_unit(np.ones(2), np.ones(2), np.arange(2), low=0.0, high=math.inf, max_weight=math.inf))
    False
    """
    return all(math.isfinite(bound) for bound in (sample.low, sample.high, sample.min_weight, sample.max_weight))


def clip(interval: Interval, limits: Range) -> Interval:
    """The interval's part within the limits.

    >>> clip(Interval(0.5, -0.1, 0.7), (0.0, 1.0))
    Interval(value=0.5, low=0.0, high=0.7)
    """
    low, high = limits
    return Interval(interval.value, min(max(interval.low, low), high), max(min(interval.high, high), low))


@dataclass(frozen=True, slots=True)
class Pairs:
    """Weights and terms that belong together, (n,) each: of decisions, or of units as if each were one decision."""

    weight: Floats
    term: Floats


def corners(sample: Sample, limits: Range) -> Pairs:
    """The extreme pairs that one decision can be; limits: what the value can be.

    In order: the lowest and the highest term at the smallest weight, the lowest and the highest at the largest. Where
    no weight above 1 is possible all are 1, since their mean is.

    >>> from decider.estimate.sample import by_unit
    >>> ips = by_unit(np.ones(2), np.ones(2), np.arange(2), low=0, high=50, max_weight=50)
    >>> found = corners(ips, (0.0, 1.0))
    >>> found.weight.tolist(), found.term.tolist()
    ([0.0, 0.0, 50.0, 50.0], [0.0, 1.0, 0.0, 50.0])
    """
    if sample.max_weight <= 1:
        return Pairs(np.ones(4), np.array([sample.low, sample.high] * 2, np.float64))
    idle = sample.idle or (max(sample.low, min(0.0, limits[0])), min(sample.high, max(0.0, limits[1])))
    least, most = sample.min_weight, sample.max_weight
    return Pairs(np.array([least, least, most, most]), np.array([*idle, sample.low, sample.high], np.float64))


def weights_of(sample: Sample) -> Floats:
    """(units,): sums of weights; of ones where no weight above 1 is possible.

    >>> from decider.estimate.sample import by_unit
    >>> weights_of(by_unit(np.ones(2), np.array([0.5, 1]), np.arange(2), low=0, high=1, max_weight=1)).tolist()
    [1.0, 1.0]
    """
    return sample.weight if sample.max_weight > 1 else sample.size


@dataclass(frozen=True, slots=True)
class UnitSizes:
    """The sizes of units in decisions. mean: per unit; alike: the mean per decision of its unit's size, over `mean`."""

    mean: float
    alike: float

    @classmethod
    def of(cls, size: Floats) -> UnitSizes:
        """The sizes of units with so many decisions each.

        >>> UnitSizes.of(np.array([1.0, 3.0]))
        UnitSizes(mean=2.0, alike=1.25)
        """
        mean = float(size.mean())
        return cls(mean, float((size**2).mean()) / mean**2)

    def as_decisions(self, *, total: Floats, weight: Floats, size: Floats, value: float) -> Pairs:
        """Units' sums, less what a unit has for being larger than the mean one: the linear part of a ratio's error.

        term = (total - value (size - mean)) / mean, and the weight likewise with 1 for the value (Cochran, Sampling
        Techniques, 1977, section 6.3: the delta method). Their means are the value and 1 where the totals' are.

        >>> two = np.array([1.0, 3.0])
        >>> pairs = UnitSizes.of(two).as_decisions(total=two / 2, weight=two, size=two, value=0.5)
        >>> pairs.term.tolist(), pairs.weight.tolist()
        ([0.5, 0.5], [1.0, 1.0])
        """
        if self.mean == self.alike == 1:
            return Pairs(weight, total)
        larger = size / self.mean - 1
        return Pairs(weight / self.mean - larger, total / self.mean - value * larger)

    def enlarge(self, extreme: Pairs, value: float) -> Pairs:
        """The extreme pairs of a unit whose decisions are all alike, of the average size that a decision's unit has.

        >>> UnitSizes(mean=1.0, alike=2.0).enlarge(Pairs(np.array([0.0]), np.array([0.0])), 0.25)
        Pairs(weight=array([-1.]), term=array([-0.25]))
        """
        return Pairs(1 + self.alike * (extreme.weight - 1), value + self.alike * (extreme.term - value))
