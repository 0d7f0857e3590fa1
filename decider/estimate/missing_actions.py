"""Tests whether an action is drawn at all, from the sum of its probabilities: exact, and at every look.

Called by the metrics with the log's totals. `propensities.py` finds wrong probabilities of any kind; an action that is
never drawn is found here three times as soon, and named. If the draws are right, the wealth of a bet against the action

    exp(sum of its probabilities), and nothing as soon as it is drawn,

cannot be expected to grow, since (1 - p) e^p is 1 at most, whatever the policy learned before. Half of the wealth is
bet from the first draw on, the other half in parts that begin anew each day, of which the newest are kept: so an action
that was drawn for years is missed within a day or so. It is shared evenly among the actions. So a false alarm at x, of
any of them, has probability 1 / x at most in the first week and, with seven days, 1 / (14 x) more for each day after.
"""

from __future__ import annotations

import math

import numpy as np

from decider.estimate.sample import Flags, Floats


def missing_action_log_evalue(expected: Floats, drawn: Flags, *, days: int, actions: int) -> float:
    """Natural logarithm of the evidence that one of so many actions is never drawn; 0 where it was drawn just now.

    expected: (1 + n,) sums of its probabilities, first of the time before, then of the newest n days, at most `days`.
    drawn: whether it was, at least once.

    >>> expected = np.array([900.0, 5.0, 20.0])
    >>> missing_action_log_evalue(expected, np.array([True, True, True]), days=7, actions=4)
    0.0
    >>> round(missing_action_log_evalue(expected, np.array([True, True, False]), days=7, actions=4), 3)
    15.975
    """
    since = expected[::-1].cumsum()[::-1]
    drawn_since = np.logical_or.accumulate(drawn[::-1])[::-1]
    shares = np.array([0.5, *[0.5 / days] * (len(expected) - 1)])
    wealth = np.where(drawn_since, -np.inf, since + np.log(shares))
    return max(0.0, float(np.logaddexp.reduce(wealth)) - math.log(actions))
