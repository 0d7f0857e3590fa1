"""Several rewards of one decision -> the one reward that is learned. Called by the trainer and the simulator.

The view `sealed_decisions` computes the same in SQL for people; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import fsum

from decider.experiment.definition import Aggregation, RewardDefinition

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
