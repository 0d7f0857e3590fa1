"""Tests whether actions are drawn with their logged probabilities, from two sums an action: exact, and at every look.

Called by the metrics with the log's totals. `sample_ratio.py` needs every pmf again; here sums that a log keeps for
good are enough. For each action the drawn ones less their probabilities have mean 0, whatever the policy learned
before, and jump by 1 at most. So for every rate t >= 0

    exp(t x excess - (e^t - 1 - t) x variance)

is the wealth of a bet that cannot be expected to grow (Bennett 1962; Freedman, Annals of Probability 1975): excess is
that sum or its negative, variance the sum of p (1 - p). This holds for rare actions and from the first draw on:
no normal distribution is assumed. The wealth is shared evenly among RATES, both directions and the actions, so it
reaches x with probability 1 / x at most (Ville 1939), however often somebody looks.

What goes wrong late would be lost among years of right draws. So half of the wealth is bet from the start on, and the
other half in parts that begin anew each day, of which the newest ones are kept (an e-detector: Shin, Ramdas and
Rinaldo 2023). A false alarm at x then has probability 2 / x ever and, with seven days, 1 / (14 x) more for each day.
"""

from __future__ import annotations

import math

import numpy as np

from decider.estimate.sample import Floats

RATES = 0.005 * 2.0 ** np.arange(10)
"""A rate t wins most where an action is drawn e^t times as often as logged, or that much less; so from 0.5 % on."""

_COSTS = np.expm1(RATES) - RATES


def propensity_log_evalue(excess: Floats, variance: Floats, *, days: int) -> float:
    """Natural logarithm of the evidence that some action is drawn with other probabilities; 0 without draws.

    excess: (1 + n, actions), how often each was drawn, less the sum of its probabilities: first of the time before,
    then of the newest n days, at most `days`. variance: the same of p (1 - p).

    >>> before, day = [30.0, -30.0], [0.0, 0.0]
    >>> variance = np.full((2, 2), 1_600.0)
    >>> right = propensity_log_evalue(np.array([before, day]), variance, days=7)
    >>> wrong = propensity_log_evalue(np.array([before, [400.0, -400.0]]), variance, days=7)
    >>> right < 0 < math.log(1_000) < wrong
    True
    """
    if not excess.size:
        return 0.0
    since = [rows[::-1].cumsum(axis=0)[::-1] for rows in (excess, variance)]
    wealth = np.array([_log_wealth(*rows) for rows in zip(*since, strict=True)])
    shares = np.array([0.5, *[0.5 / days] * (len(wealth) - 1)])
    kept = 1.0 - float(shares.sum())  # of days to come
    return float(np.logaddexp.reduce([*(wealth + np.log(shares)), math.log(kept) if kept > 1e-9 else -math.inf]))


def _log_wealth(excess: Floats, variance: Floats) -> float:
    """(actions,) each, of one time."""
    gains = np.multiply.outer(excess, RATES)
    wealth = np.concatenate([gains, -gains], axis=1) - np.tile(np.multiply.outer(variance, _COSTS), 2)
    return float(np.logaddexp.reduce(wealth, axis=None)) - math.log(wealth.size)
