"""A reward that names a unit -> the decisions that are credited with it. Called by every log in a commit; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from decider.experiment.checks import LARGEST_REWARD
from decider.experiment.definition import Attribution, ExperimentVersion, OutOfRange, RewardDefinition
from decider.types import Position

MOST_CREDITED = 50
"""Decisions of an experiment, the newest ones, that one reward is credited to by `all`: other writers wait for that."""


class OpenDecision(NamedTuple):
    """A decision whose window is open. activated: something was shown, as far as the log knows."""

    position: Position
    version: ExperimentVersion
    activated: bool


class Credit(NamedTuple):
    """A decision that gets the reward, and the weight of the reward's name in its version."""

    decision: Position
    weight: float


def takes(reward: RewardDefinition, name: str, value: float) -> bool:
    """Whether a reward by unit may be credited: there is a rule, its name is known, its value is not refused."""
    if reward.attribution is None or (reward.weights and name not in reward.weights):
        return False
    worth = value * reward.weights.get(name, 1.0)
    return reward.holds(worth) or (reward.out_of_range is OutOfRange.CLIP and abs(worth) <= LARGEST_REWARD)


def credited(decisions: Iterable[OpenDecision], name: str, value: float) -> Sequence[Credit]:
    """Of a unit's open decisions those that get a reward, by position. Each experiment by its own rule: where versions
    have several, by that of the newest decision. Each gets the whole value."""
    able = [
        one
        for one in decisions
        if one.version.counts(activated=one.activated) and takes(one.version.experiment.reward, name, value)
    ]
    able.sort(key=lambda one: (one.version.experiment.id, one.position))
    chosen = [
        one for _, group in groupby(able, key=lambda one: one.version.experiment.id) for one in _by_rule(list(group))
    ]
    chosen.sort(key=lambda one: one.position)
    return [Credit(one.position, one.version.experiment.reward.weights.get(name, 1.0)) for one in chosen]


def _by_rule(decisions: Sequence[OpenDecision]) -> Sequence[OpenDecision]:
    """Of one experiment's, in order."""
    match decisions[-1].version.experiment.reward.attribution:
        case Attribution.FIRST:
            return decisions[:1]
        case Attribution.LAST:
            return decisions[-1:]
        case _:
            return decisions[-MOST_CREDITED:]
