"""Is it known what a reward can be? Called by the checks of a log and of a candidate."""

from __future__ import annotations

from decider.text import between, figure
from simulator.evaluate.result import Finding
from simulator.evaluate.reward_bounds import ends_are_bounds, is_two_valued, possible_rewards
from simulator.logs.columns import Columns

_DECLARE = "Declare what one decision can earn: --reward-range LOW HIGH."


def reward_range(columns: Columns) -> Finding | None:
    """Where nobody declared the range: whether a reward larger than those seen is possible. None where it is declared.

    A log shows nothing of rewards that it did not draw: a purchase of 100 that one decision in 5,000 brings. If all are
    equal, it shows nothing of what rewards are.
    """
    if columns.range_declared or not len(columns):
        return None
    reward = columns.reward
    if is_two_valued(reward):
        return Finding("reward range", "fine", "Rewards have two values, so their range is known.")
    least, most = float(reward.min()), float(reward.max())
    if least == most:
        text = f"All rewards are {figure(least)}, and their range is not declared: what else one can be is unknown."
        return Finding("reward range", "do not use", text, 0.0, _DECLARE)
    if all(ends_are_bounds(columns)):
        text = f"The range of rewards is not declared; those seen are {between(least, most)}, both of them frequent."
    else:
        low, high = possible_rewards(columns)
        text = (
            f"The range of rewards is not declared. Those seen are {between(least, most)}, and others are possible: "
            f"the intervals allow for {between(low, high)}."
        )
    return Finding("reward range", "caution", text, most - least, _DECLARE)
