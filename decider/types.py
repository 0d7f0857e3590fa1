"""The words of the project as frozen types. Everything imports this; it imports nothing of ours.

A time is microseconds since 1970 (UTC) on the log's own clock, which never goes back. A position is the place of an
entry in the log's one total order, from 1; 0 is before the first.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NewType

ActionId = NewType("ActionId", str)
DecisionId = NewType("DecisionId", str)
ExperimentId = NewType("ExperimentId", str)
Position = NewType("Position", int)
Time = NewType("Time", int)

FeatureValue = str | float | bool
Features = Mapping[str, FeatureValue]

START = Position(0)

CONTEXT_FIELDS = ("segment", "device", "channel", "location", "intent_stage")


class Reason(enum.StrEnum):
    """Why this action; see the proto enum of the same name."""

    EXPLOIT = "EXPLOIT"
    EXPLORE = "EXPLORE"
    HOLDOUT = "HOLDOUT"
    BASELINE = "BASELINE"
    FALLBACK = "FALLBACK"
    ONLY_ELIGIBLE = "ONLY_ELIGIBLE"
    NO_EXPLORATION = "NO_EXPLORATION"


class RewardOutcome(enum.StrEnum):
    """What became of a reward that was sent."""

    JOINED = "joined"
    LATE = "late"
    DUPLICATE = "duplicate"
    ORPHAN = "orphan"


@dataclass(frozen=True, slots=True)
class Context:
    """What is known about the unit and the moment; an empty string is a field that was not given."""

    segment: str = ""
    device: str = ""
    channel: str = ""
    location: str = ""
    intent_stage: str = ""
    features: Features = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DecisionRequest:
    """One call of Decide, checked, with its decision id."""

    decision_id: DecisionId
    unit_id: str
    context: Context = Context()
    eligible: tuple[ActionId, ...] = ()
    excluded: tuple[ActionId, ...] = ()
    action_features: Mapping[ActionId, Features] = field(default_factory=dict)
    explore: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """One draw. `eligible` is in the experiment's order and `pmf` in that of `eligible`.

    pmf: whole slots, `sampler.SLOTS` in all. propensity: the drawn action's share of them, in (0, 1].
    model: the position that the model had learned up to; 0 for none. version: position of the experiment version.
    """

    decision_id: DecisionId
    version: Position
    unit_id: str
    context: Context
    eligible: tuple[ActionId, ...]
    action_features: Mapping[ActionId, Features]
    pmf: tuple[int, ...]
    action: ActionId
    propensity: float
    reason: Reason
    model: Position
