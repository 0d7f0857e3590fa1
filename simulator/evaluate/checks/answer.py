"""What a candidate's answer is worth: how narrow its interval is beside the spread of rewards.

Called by `candidate.py`. The width decides, not a count of unusual rewards: whoever always earns the usual reward is
known well. Every figure here is the same for rewards r, r + c, -r and k r, with their range transformed alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from decider.estimate.sample import Floats
from decider.estimate.weights import largest_share
from decider.text import figure, more_decisions, percent
from simulator.evaluate.result import Estimate, Finding
from simulator.evaluate.verdicts import (
    DOMINATES,
    ENOUGH_ESS,
    ENOUGH_SUCCESSES,
    LEAST_ESS,
    MATERIAL,
    Z_95,
    at_least,
    caution_if,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The headline estimate, before anybody sees it. terms: (n,), whose mean it is. reward_range: what one can be."""

    estimate: Estimate
    terms: Floats
    reward_range: tuple[float, float]

    @property
    def half_width(self) -> float:
        """Of the interval."""
        return (self.estimate.high - self.estimate.low) / 2

    @property
    def range_width(self) -> float:
        """Of the rewards."""
        return self.reward_range[1] - self.reward_range[0]


def answer_findings(answer: Answer, reward: Floats, *, missing: float) -> tuple[Finding, ...]:
    """Of the interval and of the terms. reward: (n,) as logged; missing: what the log cannot show of the candidate."""
    spread = float(reward.std())
    if spread <= 1e-12 * answer.range_width:
        return (equal_rewards(answer, float(reward[0])),)
    return (interval(answer, reward, missing=missing), largest_contribution(answer.terms))


def equal_rewards(answer: Answer, reward: float) -> Finding:
    """Without any spread of rewards, the width is compared with what rewards can be.

    >>> import numpy as np
    >>> clicks = Answer(Estimate(0.0, 0.0, 0.02, ""), np.zeros(500), (0.0, 1.0))
    >>> equal_rewards(clicks, 0.0).verdict
    'caution'
    """
    known = answer.half_width <= MATERIAL / 2 * answer.range_width
    return Finding(
        "interval",
        "caution" if known else "do not use",
        f"Every reward in the log is {figure(reward)}: it cannot tell one policy from another.",
        None,
        "Rewards that differ: check that they are joined to their decisions. Say what they can be: --reward-range LOW "
        "HIGH.",
    )


def interval(answer: Answer, reward: Floats, *, missing: float) -> Finding:
    """The number of plain draws of the candidate that would tell as much, and how many of these would be unusual.

    n plain draws have an interval of 1.96 spread / sqrt(n) on either side. It is a good one only if n is large beside
    the squared skewness: of clicks, n / skewness^2 is about the number of clicks (or of those who did not click).

    >>> import numpy as np
    >>> reward = np.array([0.0, 1.0] * 500)
    >>> for half in (0.03, 0.1, 0.4):
    ...     answer = Answer(Estimate(0.5, 0.5 - half, 0.5 + half, ""), reward, (0, 1))
    ...     print(interval(answer, reward, missing=0).verdict)
    fine
    caution
    do not use
    """
    spread = float(reward.std())
    equal = (Z_95 * spread / answer.half_width) ** 2 if answer.half_width else math.inf
    uneven = max(1.0, _skewness(reward, spread) ** 2)
    verdict = at_least(equal, least=LEAST_ESS, enough=ENOUGH_ESS)
    text = f"The interval is as narrow as that of {figure(equal)} plain draws of the candidate."
    if verdict == "fine" and equal / uneven < ENOUGH_SUCCESSES:
        verdict = "caution"
        text += f" Rewards are so uneven that about {figure(equal / uneven)} of these would have an unusual one."
    if verdict == "fine":
        return Finding("interval", verdict, text, equal)
    enough = max(ENOUGH_ESS, uneven * ENOUGH_SUCCESSES)
    return Finding("interval", verdict, text, equal, _needed(answer, missing, spread, len(reward), equal, enough))


def _needed(answer: Answer, missing: float, spread: float, decisions: int, equal: float, enough: float) -> str:
    unseen = missing * answer.range_width / 2
    if unseen and (Z_95 * spread / unseen) ** 2 < enough:
        return (
            "A log that draws the actions that are missing in this one (see support); more of the same does not help."
        )
    return f"Log {more_decisions(decisions, value=equal, enough=enough)}."


def _skewness(reward: Floats, spread: float) -> float:
    return float((((reward - reward.mean()) / spread) ** 3).mean())


def largest_contribution(terms: Floats) -> Finding:
    """Share of the largest squared deviation from the mean in all of them. terms: (n,), whose mean is the estimate.

    >>> import numpy as np
    >>> largest_contribution(np.array([5.0, 1.0, 1.0, 1.0])).text
    'One decision carries 75 % of the spread of the estimate.'
    """
    share = largest_share((terms - terms.mean()) ** 2)
    text = f"One decision carries {percent(share)} of the spread of the estimate."
    much = share > DOMINATES and len(terms) > LEAST_ESS
    needed = "More decisions, or a cap on the reward that one decision can have." if much else ""
    return Finding("largest contribution", caution_if(much), text, share, needed)
