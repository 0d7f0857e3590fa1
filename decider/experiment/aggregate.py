"""Several rewards of one decision -> the one reward that is learned. Called by the trainer and the simulator.

The view `sealed_decisions` computes the same in SQL for people; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import fsum
from typing import NamedTuple

from decider.experiment.definition import Aggregation, OutOfRange, RewardDefinition

_FOLDS: dict[Aggregation, Callable[[Sequence[float]], float]] = {
    Aggregation.FIRST: lambda rewards: rewards[0],
    Aggregation.LAST: lambda rewards: rewards[-1],
    Aggregation.SUM: fsum,
    Aggregation.MAX: max,
    Aggregation.MIN: min,
    Aggregation.MEAN: lambda rewards: fsum(rewards) / len(rewards),
}


def final_reward(definition: RewardDefinition, rewards: Sequence[float]) -> float:
    """The reward of a sealed decision, within the declared range; `rewards` are weighted and in order of arrival.

    >>> final_reward(RewardDefinition(minimum=-1, maximum=9, aggregation=Aggregation.MAX), [-0.5, -0.25])
    -0.25
    >>> final_reward(RewardDefinition(default=0.5), [])
    0.5

    The range cuts off what they come to, not each of them: 60 of a purchase of 210 were returned.

    >>> final_reward(RewardDefinition(maximum=200), [210.0, -60.0])
    150.0
    """
    if not rewards:
        return definition.default
    return min(max(_FOLDS[definition.aggregation](rewards), definition.minimum), definition.maximum)


class NamedReward(NamedTuple):
    """A reward without a weight: its name and the value in force."""

    name: str
    value: float


def rewards_under(definition: RewardDefinition, sent: Sequence[NamedReward]) -> list[float]:
    """What rewards are worth by a definition that may have come after them; those that it does not take are left out.

    >>> sent = [NamedReward("click", 1.0), NamedReward("purchase", 80.0)]
    >>> rewards_under(RewardDefinition(weights={"purchase": 0.01}), sent)
    [0.8]
    >>> rewards_under(RewardDefinition(out_of_range=OutOfRange.REFUSE), sent)
    [1.0]
    """
    weights = definition.weights
    taken = [value * weights.get(name, 1.0) for name, value in sent if not weights or name in weights]
    if definition.out_of_range is OutOfRange.REFUSE:
        return [reward for reward in taken if definition.holds(reward)]
    return taken
