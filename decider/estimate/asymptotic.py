"""The asymptotic interval: right for many units whose terms are not too skewed. Called by the evaluation."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from decider.estimate.mean import Interval
from decider.estimate.possible import ANY, Range, clip
from decider.estimate.sample import Sample


def asymptotic(sample: Sample, *, value_range: Range = ANY, level: float = 0.95) -> Interval:
    """The mean term of a decision with its normal interval; as wide as value_range below two units.

    The delta method for a ratio of sums over units: Cochran, Sampling Techniques, 1977, section 6.3.

    >>> interval = asymptotic(Sample(np.array([1.0, 2, 3]), np.ones(3), np.ones(3), low=0, high=3, max_weight=1))
    >>> interval.value, round(interval.low, 3)
    (2.0, 0.868)
    """
    units, value = len(sample.total), sample.value
    if units < 2:
        return Interval(value, *value_range)
    apart = sample.total - value * sample.size
    error = math.sqrt(units / (units - 1) * float(np.dot(apart, apart))) / float(sample.size.sum())
    width = NormalDist().inv_cdf((1 + level) / 2) * error
    return clip(Interval(value, value - width, value + width), value_range)
