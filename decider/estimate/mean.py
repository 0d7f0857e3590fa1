"""The mean of numbers seen one by one or many at once, with its asymptotic interval.

Called by the simulator's tables and by every estimate of this folder that is the mean of one term a decision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from decider.estimate.sample import Floats


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its two-sided interval, in the unit of the numbers."""

    value: float
    low: float
    high: float


class Mean:
    """Streaming mean and variance (Welford 1962); mergeable with `+` (Chan, Golub, LeVeque 1979, eq. 2.1).

    >>> mean = Mean()
    >>> for x in (1.0, 2.0, 3.0): mean.add(x)
    >>> mean.value, round(mean.interval().low, 3)
    (2.0, 0.868)
    """

    __slots__ = ("_squares", "count", "value")

    def __init__(self) -> None:
        self.count = 0
        self.value = 0.0
        self._squares = 0.0

    def add(self, x: float) -> None:
        """One more finite number."""
        self.count += 1
        before = x - self.value
        self.value += before / self.count
        self._squares += before * (x - self.value)

    def add_many(self, xs: Floats) -> None:
        """Many more finite numbers, (n,). Into an empty one: value is xs.mean(), to the last bit.

        >>> import numpy as np
        >>> mean = Mean()
        >>> mean.add_many(np.array([1.0, 2.0, 3.0]))
        >>> mean.value, round(mean.interval().low, 3)
        (2.0, 0.868)
        """
        if not xs.size:
            return
        many = Mean()
        many.count = xs.size
        many.value = float(xs.mean())
        apart = xs - many.value
        many._squares = float(apart @ apart)
        both = self + many
        self.count, self.value, self._squares = both.count, both.value, both._squares

    def __add__(self, other: Mean) -> Mean:
        """As if the numbers of both had been added to one."""
        both = Mean()
        both.count = self.count + other.count
        if both.count:
            apart = other.value - self.value
            both.value = self.value + apart * (other.count / both.count)
            both._squares = self._squares + other._squares + apart**2 * self.count * other.count / both.count
        return both

    def interval(self, level: float = 0.95) -> Interval:
        """The asymptotic (normal) interval; infinitely wide below two numbers. Holds for many numbers only."""
        if self.count < 2:
            return Interval(self.value, -math.inf, math.inf)
        error = math.sqrt(self._squares / (self.count - 1) / self.count)
        width = NormalDist().inv_cdf((1 + level) / 2) * error
        return Interval(self.value, self.value - width, self.value + width)
