"""The interval of a weighted sum of independent estimates, from their own intervals. Called by the evaluation.

Each limit takes from every estimate the side that moves the sum that way, and adds the squares: the method of variance
estimates recovery (Zou & Donner, Statistics in Medicine 2008; for two proportions Newcombe, ibid. 1998, method 10).
Intervals that are not symmetric stay so, which a sum of variances would lose.
"""

from __future__ import annotations

from math import sqrt

from decider.estimate.mean import Interval


def weighted_sum(*parts: tuple[float, Interval]) -> Interval:
    """Each part: a weight (it may be negative) and an estimate that is independent of the others.

    >>> weighted_sum((1.0, Interval(0.5, 0.2, 0.9)), (-1.0, Interval(0.25, 0.25, 0.65)))
    Interval(value=0.25, low=-0.25, high=0.65)
    """
    value = sum([weight * one.value for weight, one in parts])
    below = [weight * one.value - min(weight * one.low, weight * one.high) for weight, one in parts]
    above = [max(weight * one.low, weight * one.high) - weight * one.value for weight, one in parts]
    return Interval(value, value - _length(below), value + _length(above))


def _length(sides: list[float]) -> float:
    return sqrt(sum([side**2 for side in sides]))


def share_of(one: Interval, other: Interval) -> float:
    """The weight of the first in the best mean of the two: by the inverse squares of their widths.

    Widths, not variances seen: few draws without a reward have no variance, and an interval that knows better.

    >>> share_of(Interval(0.5, 0.4, 0.6), Interval(0.5, 0.3, 0.7)), share_of(Interval(1, 1, 1), Interval(1, 1, 1))
    (0.8, 0.5)
    """
    own, others = (one.high - one.low) ** 2, (other.high - other.low) ** 2
    return others / (own + others) if own + others > 0 else 0.5
