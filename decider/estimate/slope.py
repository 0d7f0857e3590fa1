"""SLOPE: chooses among estimators with less and less variance but more and more bias. Called by those with a parameter.

It goes from the widest interval to the narrowest for as long as the estimates agree within their widths, and needs no
estimate of the bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from decider.estimate.mean import Interval, Mean
from decider.estimate.sample import Floats

Spread = Callable[[Floats], Interval]
"""Terms, (n,) -> the interval of their mean."""


def normal_interval(terms: Floats) -> Interval:
    """The asymptotic 95 % interval of the mean of independent terms; infinitely wide below two.

    >>> interval = normal_interval(np.array([1.0, 2.0, 3.0]))
    >>> interval.value, round(interval.low, 3)
    (2.0, 0.868)
    """
    mean = Mean()
    mean.add_many(terms)
    return mean.interval()


def slope(estimates: Sequence[Interval]) -> int:
    """Index of the narrowest estimate that agrees with all wider ones. At least one of them should be unbiased.

    Ordered by half width h, decreasing: the last m with |value_m - value_j| <= h_m + (sqrt(6) - 1) h_j for all j
    before it. Of equal widths the one that stands later here counts as the narrower one.
    Su, Srinath & Krishnamurthy, ICML 2020; in this form Tucker & Lee, ICML 2021 workshop on reinforcement learning
    theory, Theorem 1 (SLOPE++). Raises ValueError of no estimates.

    >>> slope([Interval(5.0, 4.9, 5.1), Interval(0.5, 0.2, 0.8), Interval(0.0, -1.0, 1.0)])
    1
    """
    if not estimates:
        raise ValueError("there is no estimate to choose from")
    order = sorted(range(len(estimates)), key=lambda index: -_half(estimates[index]))
    agreeing = [
        index
        for place, index in enumerate(order)
        if all(_agree(estimates[index], estimates[wider]) for wider in order[:place])
    ]
    return agreeing[-1]


def choose(parameters: Sequence[float], terms: Callable[[float], Floats], interval: Spread = normal_interval) -> float:
    """The parameter whose estimate SLOPE chooses; `parameters` from the most biased to the least biased.

    >>> choose([1.0, 2.0], lambda parameter: parameter * np.array([0.0, 1.0]))
    1.0
    """
    return parameters[slope([interval(terms(parameter)) for parameter in parameters])]


def limits_for(weights: Floats) -> tuple[float, ...]:
    """Limits of a weight worth trying: quantiles of those above 0, then none at all.

    >>> limits_for(np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]))[0]
    3.0
    """
    positive = weights[weights > 0]
    if not positive.size:
        return (math.inf,)
    return (*np.quantile(positive, (0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)).tolist(), math.inf)


def strengths_for(weights: Floats) -> tuple[float, ...]:
    """Strengths of shrinkage worth trying: about the squares of the weights above 0, then none at all.

    >>> [round(strength, 2) for strength in strengths_for(np.ones(5))]
    [0.01, 0.04, 0.14, 0.52, 1.93, 7.2, 26.83, 100.0, inf]
    """
    positive = weights[weights > 0]
    if not positive.size:
        return (math.inf,)
    low, high = np.quantile(positive, (0.05, 0.95))
    return (*np.geomspace(0.01 * low**2, 100 * high**2, 8).tolist(), math.inf)


def _half(estimate: Interval) -> float:
    return (estimate.high - estimate.low) / 2


def _agree(narrow: Interval, wide: Interval) -> bool:
    return abs(narrow.value - wide.value) <= _half(narrow) + (math.sqrt(6) - 1) * _half(wide)
