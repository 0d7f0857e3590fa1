"""The interval of a weighted sum of estimates, from their own intervals. Called by the evaluation.

Each limit takes from every estimate the side that moves the sum that way, and adds the squares: the method of variance
estimates recovery (Zou & Donner, Statistics in Medicine 2008; for two proportions Newcombe, ibid. 1998, method 10).
Intervals that are not symmetric stay so, which a sum of variances would lose. Two estimates that are not independent
add twice their correlation x both sides (ibid., for correlated ones).
"""

from __future__ import annotations

from math import sqrt

from decider.estimate.mean import Interval


def weighted_sum(*parts: tuple[float, Interval], correlation: float = 0.0) -> Interval:
    """Each part: a weight (it may be negative) and an estimate. correlation: of each two of them.

    >>> weighted_sum((1.0, Interval(0.5, 0.2, 0.9)), (-1.0, Interval(0.25, 0.25, 0.65)))
    Interval(value=0.25, low=-0.25, high=0.65)
    >>> weighted_sum((1.0, Interval(0, -1, 1)), (-1.0, Interval(0, -1, 1)), correlation=1.0)
    Interval(value=0.0, low=0.0, high=0.0)
    """
    value = sum([weight * one.value for weight, one in parts])
    below = [weight * one.value - min(weight * one.low, weight * one.high) for weight, one in parts]
    above = [max(weight * one.low, weight * one.high) - weight * one.value for weight, one in parts]
    signs = [1.0 if weight > 0 else -1.0 for weight, _ in parts]
    return Interval(value, value - _length(below, signs, correlation), value + _length(above, signs, correlation))


def _length(sides: list[float], signs: list[float], correlation: float) -> float:
    squares = sum([side**2 for side in sides])
    if not correlation:
        return sqrt(squares)
    net = sum([sign * side for sign, side in zip(signs, sides, strict=True)])
    return sqrt(max(0.0, squares + correlation * (net**2 - squares)))


def share_of(one: Interval, other: Interval, correlation: float = 0.0) -> float:
    """The weight of the first in the mean of the two whose interval is the shortest; two digits are enough.

    From intervals, not from variances seen: few draws without a reward have no variance, and an interval knows better.

    >>> share_of(Interval(0.5, 0.4, 0.6), Interval(0.5, 0.3, 0.7)), share_of(Interval(1, 1, 1), Interval(1, 0, 1))
    (0.8, 1.0)
    """
    shares = [percent / 100 for percent in range(101)]
    return min(
        shares, key=lambda share: _width(weighted_sum((share, one), (1 - share, other), correlation=correlation))
    )


def _width(interval: Interval) -> float:
    return interval.high - interval.low
