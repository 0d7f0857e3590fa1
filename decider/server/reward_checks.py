"""What a reward is checked for before its commit, and whether it came too late, after it. Called by `feedback.py` and
`unit_rewards.py`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from decider.errors import InvalidArgument, RewardOutOfRange, UndeclaredReward, Violation
from decider.experiment.checks import LARGEST_REWARD
from decider.experiment.definition import ExperimentVersion, OutOfRange
from decider.log.protocol import END, DecisionRef, LogReader, Mark
from decider.types import ANY_NAME, START


def weight_of(version: ExperimentVersion, name: str) -> float:
    """The weight of a reward's name. Raises UndeclaredReward; InvalidArgument for none where it is needed."""
    reward = version.experiment.reward
    if reward.weights and name not in reward.weights:
        known = ", ".join(reward.weights)
        if name == ANY_NAME:
            raise InvalidArgument([Violation("name", name_needed(version.experiment.id, known))])
        raise UndeclaredReward(
            [Violation("name", f"experiment {version.experiment.id!r} has no reward {name!r}; it has {known}")]
        )
    return reward.weights.get(name, 1.0)


def no_weight(reward_id: str) -> Violation:
    """Why a reward cannot be corrected that was taken back, without a name, before it came."""
    problem = f"{reward_id!r} was taken back before it came, without a name; send what counts under another reward_id"
    return Violation("reward_id", problem)


def name_needed(experiment: str, known: str) -> str:
    """What is wrong with a correction that names none, where its reward is not known."""
    return (
        f"is needed: the reward that this corrects is not known, and experiment {experiment!r} has {known}; send the "
        "name that the reward has, or retract"
    )


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
