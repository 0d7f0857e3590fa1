"""The default interval: empirical likelihood with a third of an extreme decision added. Called by the evaluation.

It contains the value of every distribution whose mean weight is 1 and under which the log is not much less likely than
under the likeliest one: the log likelihood is lower by at most half a chi-square quantile. For many decisions that has
the nominal coverage, whatever their distribution (Owen, Empirical Likelihood, 2001; Qin & Lawless, Annals of Statistics
1994, Theorem 2, for the known mean weight; Karampatziakis, Langford & Mineiro, NeurIPS 2020, for logs of decisions). It
fails where few decisions carry the estimate: the seen ones say little about a rare, large reward. So each limit is
computed as if a third of one more decision had been seen, the worst possible one for this limit. (Chen, Variyath &
Abraham, Journal of Computational and Graphical Statistics 2008, add one of another kind.)

Why a third: where no decision is rewarded, the upper limit is then the exact one, 3.0 rewards (the "rule of three") at
the largest weight; the likelihood alone gives 1.9, at which no reward is seen with a chance of 15 %, not 5 %. The same
third fits levels of 90 % and 99 %. In this case, rare rewards that all have the largest weight, the interval covers
93.9 % or more at every rate, except 91.7 % in a narrow range around three expected rewards (2.98 to 3.03).
"""

from __future__ import annotations

import numpy as np
from scipy.special import chdtri

from decider.estimate.likelihood import balance, extremes
from decider.estimate.mean import Interval
from decider.estimate.nodes import Nodes, gather
from decider.estimate.possible import ANY, Pairs, Range, UnitSizes, clip, corners, is_bounded, possible, weights_of
from decider.estimate.sample import Sample

NAME = "empirical likelihood"

TRACE = 1e-3
"""Count of every extreme decision, so that none is impossible."""

EXTREME_COUNT = 1 / 3
"""Additional count of the extreme decision that is worst for a limit."""

CONTRADICTION = 20.0
"""Largest loss of log likelihood for a mean weight of 1; where that is true, a larger one has a chance of 1e-9."""

UPWARD = np.array([-1.0, 1.0, -1.0, 1.0])
"""For each of the `corners`: -1 where it is the worst case for the lower limit, 1 for the upper limit."""


def default_interval(sample: Sample, *, value_range: Range = ANY, level: float = 0.95) -> Interval:
    """The likeliest value and its interval. value_range: of the value; for a policy's value the range of rewards.

    The value uses that the mean weight is 1, as the Cressie-Read estimate does, so it differs from sample.value; nan
    without units. The interval is all that is possible without units, where the sample's bounds are infinite, and where
    the weights contradict a mean of 1.

    >>> from decider.estimate.sample import by_unit
    >>> weight = np.array([0.0, 2.0] * 100)
    >>> reward = np.array([0.0, 0.0, 1.0, 1.0] * 50)
    >>> sample = by_unit(weight * reward, weight, np.arange(200), low=0, high=2, max_weight=2)
    >>> interval = default_interval(sample, value_range=(0, 1))
    >>> round(interval.value, 3), round(interval.low, 3), round(interval.high, 3)
    (0.5, 0.401, 0.599)
    """
    limits = possible(sample, value_range)
    if not len(sample.total) or not is_bounded(sample):
        return Interval(sample.value, *limits)
    shape = UnitSizes.of(sample.size)
    units = shape.as_decisions(total=sample.total, weight=weights_of(sample), size=sample.size, value=sample.value)
    extreme = shape.enlarge(corners(sample, limits), sample.value)
    seen = gather(np.stack([units.weight, units.term], axis=1), stops=np.array([len(units.term)]))
    return interval_of_nodes(seen, extreme, limits, level=level)


def interval_of_nodes(seen: Nodes, extreme: Pairs, limits: Range, *, level: float = 0.95) -> Interval:
    """The same of nodes for the pairs (weight, term) of units, in one block. extreme: of a unit, as of `enlarge`.

    >>> seen = Nodes(np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 2.0]]), np.array([[100.0, 50.0, 50.0]]))
    >>> extreme = Pairs(np.array([0.0, 0.0, 2.0, 2.0]), np.array([0.0, 0.0, 0.0, 2.0]))
    >>> round(interval_of_nodes(seen, extreme, (0.0, 1.0)).low, 3)
    0.401
    """
    weight = np.concatenate([seen.place[:, 0], extreme.weight])
    term = np.concatenate([seen.place[:, 1], extreme.term])
    count = np.tile(np.concatenate([seen.count[0], np.full(4, TRACE)]), (5, 1))
    count[1:, -4:] += EXTREME_COUNT * np.eye(4)
    cost, likeliest = balance(weight, count)
    value = float(np.clip(likeliest[0] @ term / likeliest[0].sum(), *limits))
    if cost[0] > CONTRADICTION:
        return Interval(value, *limits)
    found = extremes(weight, term, count[1:], upward=UPWARD, drop=cost[1:] + chdtri(1, 1 - level) / 2).mean
    return clip(Interval(value, float(found[UPWARD < 0].min()), float(found[UPWARD > 0].max())), limits)
