"""The empirical Bernstein interval: it always holds, for any number of units, and is wide. Called for comparison."""

from __future__ import annotations

import math

import numpy as np

from decider.estimate.mean import Interval
from decider.estimate.possible import ANY, Range, clip, possible
from decider.estimate.sample import Sample


def empirical_bernstein(sample: Sample, *, value_range: Range = ANY, level: float = 0.95) -> Interval:
    """The mean term of a decision, and how far it can be from the truth by variance and by range.

    sqrt(2 V ln(2 / d) / n) + 7 R ln(2 / d) / (3 (n - 1)) on each side with d = (1 - level) / 2: Maurer & Pontil, COLT
    2009, Theorem 4, with V the sample variance and R the range of one of n independent terms. Of units, these are the
    deviations of their totals from the mean for their sizes, and R is that of the largest unit. All that is possible
    below two units. value_range: what the value can be.

    >>> from decider.estimate.sample import by_unit
    >>> terms = np.array([0.0, 1.0] * 500)
    >>> sample = by_unit(terms, np.ones(1000), np.arange(1000), low=0, high=1, max_weight=1)
    >>> interval = empirical_bernstein(sample)
    >>> round(interval.low, 4), interval.value, round(interval.high, 4)
    (0.4429, 0.5, 0.5571)
    """
    limits = possible(sample, value_range)
    units = len(sample.total)
    if units < 2:
        return Interval(sample.value, *limits)
    log = math.log(4 / (1 - level))
    mean_size = float(np.mean(sample.size))
    apart = (sample.total - sample.value * sample.size) / mean_size
    reach = (sample.high - sample.low) * float(np.max(sample.size)) / mean_size
    width = math.sqrt(2 * float(apart @ apart) / (units - 1) * log / units) + 7 * reach * log / (3 * (units - 1))
    return clip(Interval(sample.value, sample.value - width, sample.value + width), limits)
