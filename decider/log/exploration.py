"""What exploration costs, from draws of a policy: reward of its most probable action less that of the action drawn.

Called by the totals of every log; `sqlite/totals.py` has the same in SQL. A test holds them against each other, and
against enumeration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from decider.types import Decision, Reason


class Shape(NamedTuple):
    """What matters of a pmf. most: actions that share its maximum. is_flat: it prefers none (reason EXPLORE only)."""

    most: int
    is_flat: bool


def shape_of(pmf: Sequence[int]) -> Shape:
    """Of whole slots.

    >>> shape_of((700, 200, 100)), shape_of((450, 450, 100)), shape_of((334, 333, 333))
    (Shape(most=1, is_flat=False), Shape(most=2, is_flat=False), Shape(most=1, is_flat=True))
    """
    most = max(pmf)
    return Shape(pmf.count(most), most <= min(pmf) + 1)


def exploration_cost(decision: Decision, reward: float) -> float:
    """Of one draw from a policy's pmf. Its mean over the draws of a context is what the context loses by exploration.

    Whoever never explores takes the most probable action, by lot among several; the weight of a draw for that policy is
    1 / (propensity x number of those), or 0. Where the pmf is flat nobody knows a better action: nothing is lost.
    """
    if decision.reason is Reason.EXPLOIT:
        weight = 1.0 / (decision.propensity * shape_of(decision.pmf).most)
    else:
        weight = 1.0 if shape_of(decision.pmf).is_flat else 0.0
    return reward * (weight - 1.0)
