"""What a reward can be: the declared range, or what the rewards seen allow to say. Called by estimates and checks.

Without a declared range the largest reward that was seen is not the largest possible one: an interval that takes it for
that is too short where large rewards are rare.
"""

from __future__ import annotations

import numpy as np

from simulator.logs.columns import Columns, Flags, Floats

OFTEN = 20
"""Decisions with exactly the same lowest (or highest) reward: then that is a bound, not the last of what was drawn."""


def possible_rewards(columns: Columns) -> tuple[float, float]:
    """The declared range; otherwise that of the rewards seen, which grows by its own width at an end that is no bound.

    >>> from dataclasses import replace
    >>> from simulator.logs.example import example
    >>> log = replace(example(), reward=np.array([0.0, 3.0]), reward_range=(0.0, 3.0), range_declared=False)
    >>> possible_rewards(log), possible_rewards(example())
    ((0.0, 6.0), (0.0, 1.0))
    """
    low, high = columns.reward_range
    width = high - low
    bound = ends_are_bounds(columns)
    return low if bound[0] else low - width, high if bound[1] else high + width


def ends_are_bounds(columns: Columns) -> tuple[bool, bool]:
    """Whether rewards lie above the range's lower end, and below its upper end, by their nature.

    Yes if the range is declared, if rewards are 0 and 1, or if they have two values, each of them often. Else an end is
    a bound if many decisions have it, or if it is 0: amounts are seldom negative.
    """
    reward = columns.reward
    if columns.range_declared or is_two_valued(reward):
        return True, True
    low, high = columns.reward_range
    return low == 0.0 or _often(reward == low), high == 0.0 or _often(reward == high)


def is_two_valued(reward: Floats) -> bool:
    """Whether rewards are clicks, or have two values that many decisions have. One value tells nothing of another.

    >>> is_two_valued(np.array([0.0, 1.0])), is_two_valued(np.array([-1.0, 1.0] * 20)), is_two_valued(np.zeros(9))
    (True, True, False)
    """
    if not len(reward):
        return True
    least, most = float(reward.min()), float(reward.max())
    if least == most:
        return False
    at_most = reward == most
    if not bool((at_most | (reward == least)).all()):
        return False
    clicks = least in (0.0, 1.0) and most in (0.0, 1.0)
    return clicks or (_often(at_most) and _often(~at_most))


def _often(flags: Flags) -> bool:
    return int(np.count_nonzero(flags)) >= OFTEN
