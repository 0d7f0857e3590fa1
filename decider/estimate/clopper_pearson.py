"""The exact interval of a share of successes. Called by the evaluation, where rewards are 0 or 1 and weights are 1."""

from __future__ import annotations

import math

from scipy.special import betaincinv

from decider.estimate.binomial import Counted
from decider.estimate.mean import Interval


def clopper_pearson(counted: Counted, *, level: float = 0.95) -> Interval:
    """The share and the rates that are not excluded by it; of no trials nan in [0, 1]. Clopper & Pearson, 1934.

    >>> interval = clopper_pearson(Counted(0, 10))
    >>> interval.value, interval.low, round(interval.high, 4)
    (0.0, 0.0, 0.3085)
    """
    successes, trials = counted
    if trials == 0:
        return Interval(math.nan, 0.0, 1.0)
    tail = (1 - level) / 2
    low = float(betaincinv(successes, trials - successes + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, trials - successes, 1 - tail)) if successes < trials else 1.0
    return Interval(successes / trials, low, high)
