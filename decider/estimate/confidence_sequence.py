"""A confidence sequence: an interval after every decision, all of them valid at once. Called by the evaluation.

So one may look at a growing log at any time, and the log may come from a policy that learned from it: each decision's
propensities may depend on everything before. A gambler bets on one decision after the other that the value is above m.
If it is m the bets are fair, and the probability that the capital ever grows by a factor of 2 / (1 - level) is at most
(1 - level) / 2 (Ville's inequality); each m for which it did is excluded. Another gambler bets that the value is below
m. Waudby-Smith, Wu, Ramdas, Karampatziakis & Mineiro, "Anytime-valid off-policy inference for contextual bandits",
2022; Karampatziakis, Mineiro & Ramdas, "Off-policy confidence sequences", ICML 2021, which adds bets on the weights,
since their mean is known. The bets (`bets.py`) affect only the width, never the coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import brentq

from decider.estimate.bets import BetLog, Gambler, play
from decider.estimate.mean import Interval
from decider.estimate.possible import ANY, Range, is_bounded, possible
from decider.estimate.sample import Floats, Sample

PRECISION = 1e-9
"""Of a limit, relative to what the value can be."""


def confidence_sequence(
    sample: Sample, *, value_range: Range = ANY, level: float = 0.95, max_weights: Floats | None = None
) -> Interval:
    """The interval after all units of the sample, which come in the order of the log. Arguments as of the path.

    >>> from decider.estimate.sample import by_unit
    >>> weight = np.array([0.0, 2.0] * 500)
    >>> reward = np.array([0.0, 0.0, 1.0, 1.0] * 250)
    >>> sample = by_unit(weight * reward, weight, np.arange(1000), low=0, high=2, max_weight=2)
    >>> interval = confidence_sequence(sample, value_range=(0, 1))
    >>> round(interval.value, 3), round(interval.low, 2), round(interval.high, 2)
    (0.5, 0.42, 0.58)
    """
    whole = [len(sample.total)]
    return confidence_sequence_path(sample, whole, value_range=value_range, level=level, max_weights=max_weights)[0]


def confidence_sequence_path(
    sample: Sample,
    counts: Sequence[int],
    *,
    value_range: Range = ANY,
    level: float = 0.95,
    max_weights: Floats | None = None,
) -> list[Interval]:
    """The intervals after the first `counts` units, each count in [0, units]; value is the mean term until then.

    value_range: of the value. max_weights: (units,), where the largest possible weight was not always the same: that of
    each unit, known before its draw; sample.max_weight is the largest of them.

    The interval is all that is possible where the sample's bounds are infinite, and where both gamblers win against
    every m: then an assumption does not hold (the mean weight is not 1, or the value changes over time).

    With units of one decision it assumes that a decision's expected term is the value whatever came before; where units
    come back and differ from each other, give sums by unit. Their sizes are taken as known beforehand.

    >>> from decider.estimate.sample import by_unit
    >>> sample = by_unit(np.ones(100), np.ones(100), np.arange(100), low=0, high=1, max_weight=1)
    >>> path = confidence_sequence_path(sample, [0, 50, 100])
    >>> [(one.value, round(one.low, 2), one.high) for one in path]
    [(nan, 0.0, 1.0), (1.0, 0.85, 1.0), (1.0, 0.93, 1.0)]
    """
    limits = possible(sample, value_range)
    stops, places = np.unique(np.array(counts, np.int64), return_inverse=True)
    units = int(stops.max(initial=0))
    if not units or not is_bounded(sample):
        return [Interval(_first(sample, count).value, *limits) for count in counts]
    log = BetLog.of(_first(sample, units), limits, None if max_weights is None else max_weights[:units])
    above, below = play(log, stops, level)
    total, size = (np.concatenate([np.zeros(1), np.cumsum(sums)])[stops] for sums in (log.total, log.size))
    value = np.divide(total, size, out=np.full(len(stops), np.nan), where=size > 0)
    goal = math.log(2 / (1 - level))
    low = [_limit(above, stop, goal, limits) for stop in range(len(stops))]
    high = [_limit(below, stop, goal, limits[::-1]) for stop in range(len(stops))]
    ends = [pair if pair[0] <= pair[1] else limits for pair in zip(low, high, strict=True)]
    return [Interval(float(value[place]), *ends[place]) for place in places]


def _first(sample: Sample, units: int) -> Sample:
    return replace(sample, total=sample.total[:units], weight=sample.weight[:units], size=sample.size[:units])


def _limit(gambler: Gambler, stop: int, goal: float, ends: Range) -> float:
    """The m at which the capital is `goal`. ends: the m at which it is largest, and the one at which it is smallest."""

    def beyond(m: float) -> float:
        return gambler.log_capital(m, stop) - goal

    if beyond(ends[0]) <= 0:
        return ends[0]
    if beyond(ends[1]) >= 0:
        return ends[1]
    return float(brentq(beyond, *ends, xtol=PRECISION * abs(ends[1] - ends[0])))
