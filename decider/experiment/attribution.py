"""A reward that names a unit -> the decisions that are credited with it. Called by every log in a commit; pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from decider.experiment.checks import LARGEST_REWARD
from decider.experiment.definition import Attribution, ExperimentVersion, OutOfRange, RewardDefinition
from decider.types import ANY_NAME, ExperimentId, Position, same_name

MOST_CREDITED = 50
"""Decisions of an experiment, the newest ones, that one reward is credited to by `all`: other writers wait for that."""


class OpenDecision(NamedTuple):
    """A decision whose window is open. activated: something was shown, as far as the log knows; overridden: that was
    another action."""

    position: Position
    version: ExperimentVersion
    activated: bool
    overridden: bool = False

    @property
    def counts(self) -> bool:
        """Whether it may be learned what it earns: its action was shown, or what was shown in its place is learned."""
        learned = not self.overridden or self.version.experiment.learns_overrides
        return learned and self.version.counts(activated=self.activated)


class SameId(NamedTuple):
    """A reward that named a decision of the person, with the reward_id of a reward by unit."""

    decision: Position
    experiment: ExperimentId
    name: str


class Credit(NamedTuple):
    """A decision that gets the reward, and the weight of the reward's name in its version."""

    decision: Position
    weight: float


def knows(reward: RewardDefinition, name: str) -> bool:
    """Whether rewards by unit with that name may be credited: there is a rule, and the name is known."""
    return reward.attribution is not None and (not reward.weights or name in {*reward.weights, ANY_NAME})


def takes(reward: RewardDefinition, name: str, value: float) -> bool:
    """Whether a reward by unit may be credited: its value is not refused either."""
    if not knows(reward, name):
        return False
    if name == ANY_NAME and (reward.weights or not value):  # taken back before it came; else its weight is needed
        return not value
    worth = value * reward.weights.get(name, 1.0)
    return reward.holds(worth) or (reward.out_of_range is OutOfRange.CLIP and abs(worth) <= LARGEST_REWARD)


def credited(
    decisions: Iterable[OpenDecision], name: str, value: float, same: Collection[SameId] = ()
) -> Sequence[Credit] | None:
    """Of a unit's open decisions those that get a reward, by position. Each experiment by its own rule: where versions
    have several, by that of the newest decision. Each gets the whole value.

    same: an experiment that has it under that name, or under none, by a decision has it already. None: all of them
    have.
    """
    chosen = _chosen(decisions, name, value)
    told, ids = {one.experiment for one in same if same_name(one.name, name)}, {one.decision for one in same}
    left = [one for one in chosen if one.version.experiment.id not in told and one.position not in ids]
    if not left and (chosen or told):
        return None
    return [Credit(one.position, weight_of(one.version.experiment.reward, name)) for one in left]


def weight_of(reward: RewardDefinition, name: str) -> float:
    """Of a name that is known; 0 of any name, where names have weights: nobody knows which one it will be."""
    return reward.weights.get(name, 0.0 if reward.weights and name == ANY_NAME else 1.0)


def _chosen(decisions: Iterable[OpenDecision], name: str, value: float) -> Sequence[OpenDecision]:
    able = [one for one in decisions if one.counts and takes(one.version.experiment.reward, name, value)]
    able.sort(key=lambda one: (one.version.experiment.id, one.position))
    chosen = [
        one for _, group in groupby(able, key=lambda one: one.version.experiment.id) for one in _by_rule(list(group))
    ]
    return sorted(chosen, key=lambda one: one.position)


def _by_rule(decisions: Sequence[OpenDecision]) -> Sequence[OpenDecision]:
    """Of one experiment's, in order."""
    match decisions[-1].version.experiment.reward.attribution:
        case Attribution.FIRST:
            return decisions[:1]
        case Attribution.LAST:
            return decisions[-1:]
        case _:
            return decisions[-MOST_CREDITED:]
