"""What a reward is checked for before its commit, and whether it came too late, after it. Called by `feedback.py` and
`unit_rewards.py`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from decider.errors import InvalidArgument, RewardOutOfRange, Violation
from decider.experiment.checks import LARGEST_REWARD
from decider.experiment.definition import ExperimentVersion, OutOfRange
from decider.log.protocol import END, DecisionRef, LogReader, Mark
from decider.types import START


def weight_of(version: ExperimentVersion, name: str) -> float:
    """The weight of a reward's name. Raises InvalidArgument for an unknown name."""
    reward = version.experiment.reward
    if reward.weights and name not in reward.weights:
        known = ", ".join(reward.weights)
        raise InvalidArgument(
            [Violation("name", f"experiment {version.experiment.id!r} has no reward {name!r}; it has {known}")]
        )
    return reward.weights.get(name, 1.0)


def check_value(version: ExperimentVersion, value: float, weight: float) -> bool:
    """Whether value x weight is in the experiment's range by itself. Raises InvalidArgument where it is beyond every
    range, RewardOutOfRange where it is outside and the experiment refuses that."""
    reward = version.experiment.reward
    if reward.holds(value * weight):
        return True
    if reward.out_of_range is OutOfRange.REFUSE:
        raise RewardOutOfRange(
            [
                Violation(
                    "value",
                    f"{value:g} x weight {weight:g} is not in the experiment's reward.range "
                    f"[{reward.minimum:g}, {reward.maximum:g}], and reward.out_of_range is refuse; send another value, "
                    "declare a wider range, or take out_of_range = clip",
                )
            ]
        )
    if not abs(value * weight) <= LARGEST_REWARD:
        problem = f"{value:g} x weight {weight:g} is not within +-{LARGEST_REWARD:g}; send a smaller value"
        raise InvalidArgument([Violation("value", problem)])
    return False


def are_late(log: LogReader, said: Collection[tuple[DecisionRef, Mark | None]]) -> Sequence[bool]:
    """For each decision, whether its window was over when something was said about it. No mark: it was refused, and is
    late where the decision is archived."""
    cut = log.cut().position if any(mark is None for _, mark in said) else START
    last = max((mark.position for _, mark in said if mark is not None), default=START)
    seals = log.seals([place.position for place, mark in said if mark is not None], until=last)
    return [
        place.position <= cut
        if mark is None
        else mark.position > seals.get(place.position, END)
        or mark.time >= place.time + log.version_at(place.version).experiment.reward.window
        for place, mark in said
    ]
