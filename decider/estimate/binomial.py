"""Shares of successes, like click rates: their interval, and the interval of a difference. Called by the drives.

Score intervals: they hold at rare successes too, where the normal interval of `mean.py` is too narrow or below 0.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

from decider.estimate.mean import Interval


class Counted(NamedTuple):
    """Successes among trials."""

    successes: int
    trials: int


def wilson(counted: Counted, level: float = 0.95) -> Interval:
    """The share and its score interval; of no trials nan in [0, 1]. Wilson, JASA 1927.

    >>> share = wilson(Counted(81, 263))  # Newcombe 1998a, table I
    >>> round(share.value, 4), round(share.low, 4), round(share.high, 4)
    (0.308, 0.2553, 0.3662)
    """
    successes, trials = counted
    if trials == 0:
        return Interval(math.nan, 0.0, 1.0)
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / trials
    centre = share + z**2 / (2 * trials)
    width = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    return Interval(share, max(0.0, (centre - width) / scale), min(1.0, (centre + width) / scale))


def difference(one: Counted, other: Counted, level: float = 0.95) -> Interval:
    """Share of one less that of the other, independent ones; nan where there were no trials.

    Newcombe, Statistics in Medicine 1998b, method 10.

    >>> apart = difference(Counted(56, 70), Counted(48, 80))  # its table II
    >>> round(apart.value, 4), round(apart.low, 4), round(apart.high, 4)
    (0.2, 0.0524, 0.3339)
    """
    a, b = wilson(one, level), wilson(other, level)
    value = a.value - b.value
    return Interval(
        value,
        value - math.hypot(a.value - a.low, b.high - b.value),
        value + math.hypot(a.high - a.value, b.value - b.low),
    )


def part_less_whole(part: Counted, whole: Counted, level: float = 0.95) -> Interval:
    """Share of a part less that of the whole that holds it; the two are not independent, the part and the rest are.

    part - whole = (1 - part's size / whole's size) x (part - rest), so the interval is that of the right side.

    >>> apart = part_less_whole(Counted(5, 50), Counted(5, 100))
    >>> round(apart.value, 4), round(apart.low, 4), round(apart.high, 4)
    (0.05, 0.0045, 0.1068)
    """
    rest = Counted(whole.successes - part.successes, whole.trials - part.trials)
    apart = difference(part, rest, level)
    scale = rest.trials / whole.trials if whole.trials else math.nan
    return Interval(scale * apart.value, scale * apart.low, scale * apart.high)
