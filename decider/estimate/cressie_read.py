"""The Cressie-Read interval: empirical likelihood with a divergence that has a closed form. Called for comparison.

The default interval is narrower and holds as well; this one needs nothing but means and variances. The estimate, as it
is in the literature, is `cressie_read_value.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import fdtri

from decider.estimate.mean import Interval
from decider.estimate.possible import ANY, Pairs, Range, UnitSizes, clip, corners, is_bounded, possible, weights_of
from decider.estimate.sample import Sample


def cressie_read(sample: Sample, *, value_range: Range = ANY, level: float = 0.95) -> Interval:
    """All values that some weighting of the decisions has whose mean weight is 1 and whose divergence is not too large.

    Karampatziakis, Langford & Mineiro, NeurIPS 2020, with the divergence of power -2. Each limit is the farther one of
    two, with one more decision that is as bad for it as a decision with the smallest or the largest weight can be.
    Units count as one decision each, corrected for their sizes (`UnitSizes.as_decisions`). The value is the mean term,
    corrected for the mean weight by regression. value_range: what the value can be. Without units, and where the
    sample's bounds are infinite, the interval is all that is possible.

    >>> import numpy as np
    >>> from decider.estimate.sample import by_unit
    >>> weight = np.array([0.0, 2.0] * 100)
    >>> reward = np.array([0.0, 0.0, 1.0, 1.0] * 50)
    >>> sample = by_unit(weight * reward, weight, np.arange(200), low=0, high=2, max_weight=2)
    >>> interval = cressie_read(sample, value_range=(0, 1))
    >>> interval.value, round(interval.low, 3), round(interval.high, 3)
    (0.5, 0.396, 0.604)
    """
    limits = possible(sample, value_range)
    if not len(sample.total) or not is_bounded(sample):
        return Interval(sample.value, *limits)
    shape = UnitSizes.of(sample.size)
    units = shape.as_decisions(total=sample.total, weight=weights_of(sample), size=sample.size, value=sample.value)
    extreme = shape.enlarge(corners(sample, limits), sample.value)
    seen = _Moments.of(units)
    with_one = [
        seen.plus(weight=w, term=t) for w, t in zip(extreme.weight.tolist(), extreme.term.tolist(), strict=True)
    ]
    allowed = with_one[2 if seen.weight < 1 else 0].cost + float(fdtri(1, seen.count, level)) / (seen.count + 1)
    low = min([moments.balanced_mean - moments.reach(allowed) for moments in with_one[0::2]])
    high = max([moments.balanced_mean + moments.reach(allowed) for moments in with_one[1::2]])
    return clip(Interval(seen.balanced_mean, low, high), limits)


@dataclass(frozen=True, slots=True)
class _Moments:
    """Means of weight and term; their variances and covariance."""

    count: int
    weight: float
    term: float
    weight_weight: float
    weight_term: float
    term_term: float

    @classmethod
    def of(cls, pairs: Pairs) -> _Moments:
        """The moments of pairs, with the count as divisor."""
        count, weight, term = len(pairs.term), float(pairs.weight.mean()), float(pairs.term.mean())
        w, t = pairs.weight - weight, pairs.term - term
        return cls(count, weight, term, float(w @ w) / count, float(w @ t) / count, float(t @ t) / count)

    def plus(self, *, weight: float, term: float) -> _Moments:
        """The moments with one more pair."""
        part = 1 / (self.count + 1)
        w, t = weight - self.weight, term - self.term
        return _Moments(
            self.count + 1,
            self.weight + part * w,
            self.term + part * t,
            (1 - part) * (self.weight_weight + part * w * w),
            (1 - part) * (self.weight_term + part * w * t),
            (1 - part) * (self.term_term + part * t * t),
        )

    @property
    def slope(self) -> float:
        """Of the regression of terms on weights."""
        return self.weight_term / self.weight_weight if self.weight_weight else 0.0

    @property
    def cost(self) -> float:
        """The divergence, per decision, that a mean weight of 1 needs."""
        return (self.weight - 1) ** 2 / self.weight_weight if self.weight_weight else 0.0

    @property
    def balanced_mean(self) -> float:
        """The mean term where the mean weight is 1."""
        return self.term + self.slope * (1 - self.weight)

    def reach(self, allowed: float) -> float:
        """Largest distance from there for the divergence that is allowed; -inf where `cost` exceeds it."""
        left = allowed - self.cost
        scatter = self.term_term - self.slope * self.weight_term
        return math.sqrt(max(0.0, scatter * left)) if left >= 0 else -math.inf
