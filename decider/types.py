"""The words of the project as frozen types. Everything imports this; it imports nothing of ours.

A time is microseconds since 1970 (UTC) on the log's own clock, which never goes back. A position is the place of an
entry in the log's one total order, from 1; 0 is before the first.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, NewType

ActionId = NewType("ActionId", str)
DecisionId = NewType("DecisionId", str)
ExperimentId = NewType("ExperimentId", str)
Position = NewType("Position", int)
Time = NewType("Time", int)

FeatureValue = str | float | bool
Features = Mapping[str, FeatureValue]
NO_FEATURES: Features = MappingProxyType({})

START = Position(0)


def now() -> Time:
    """The wall clock, in microseconds since 1970."""
    return Time(time.time_ns() // 1000)


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
    HOLDOUT_UNAVAILABLE = "HOLDOUT_UNAVAILABLE"
    WITHHELD = "WITHHELD"
    APPRENTICE = "APPRENTICE"


STICKY = "STICKY"
"""The reason of an answer that repeats a decision; no decision is logged with it."""


ANY_NAME = ""
"""Of a reward whose change came first and named none, where several names are possible: it stands for each of them."""


def same_name(one: str, other: str) -> bool:
    """Whether two rewards with one id are the same as far as their names go.

    >>> same_name("purchase", "purchase"), same_name("purchase", ANY_NAME), same_name("purchase", "visit")
    (True, True, False)
    """
    return ANY_NAME in (one, other) or one == other


class RewardOutcome(enum.StrEnum):
    """What became of a reward that was sent."""

    JOINED = "joined"
    LATE = "late"
    DUPLICATE = "duplicate"
    ORPHAN = "orphan"
    CLIPPED = "clipped"
    CORRECTED = "corrected"
    RETRACTED = "retracted"
    OUT_OF_RANGE = "out_of_range"
    UNDECLARED = "undeclared"
    NO_DECISION = "no_decision"


class LinkOutcome(enum.StrEnum):
    """What became of a link between two units; see the proto enum of the same name."""

    LINKED = "linked"
    DUPLICATE = "duplicate"


class ActivationOutcome(enum.StrEnum):
    """What became of an activation that was sent; see the proto enum of the same name."""

    ACTIVATED = "activated"
    OVERRIDDEN = "overridden"
    DUPLICATE = "duplicate"
    LATE = "late"
    REMEMBERED = "remembered"


# What follows is made for every call. Named tuples are made in a third of a frozen dataclass's time.


class Context(NamedTuple):
    """What is known about the unit and the moment; an empty string is a field that was not given."""

    segment: str = ""
    device: str = ""
    channel: str = ""
    location: str = ""
    intent_stage: str = ""
    features: Features = NO_FEATURES


class CalledAction(NamedTuple):
    """An action that comes with a call. kind: empty where it was not given."""

    id: ActionId
    kind: str = ""
    features: Features = NO_FEATURES


class DecisionRequest(NamedTuple):
    """One call of Decide, checked, with its decision id. called: actions that it brings; `fit_actions` puts them among
    the others. at: when it came; None: whatever the time, all actions are available. default: what the caller would
    show by itself; None where it names nothing."""

    decision_id: DecisionId
    unit_id: str
    context: Context = Context()
    eligible: tuple[ActionId, ...] = ()
    excluded: tuple[ActionId, ...] = ()
    action_features: Mapping[ActionId, Features] = MappingProxyType({})
    explore: bool = True
    called: tuple[CalledAction, ...] = ()
    at: Time | None = None
    default: ActionId | None = None


class Reached(NamedTuple):
    """The caps, by their place in the experiment, and the daily budgets, by action, that are used up."""

    caps: tuple[int, ...] = ()
    budgets: tuple[ActionId, ...] = ()


NOTHING_REACHED = Reached()


class History(NamedTuple):
    """What a decision depends on of what the log has before it. reached: for its unit, at its time."""

    reached: Reached = NOTHING_REACHED


NO_HISTORY = History()


class Decision(NamedTuple):
    """One draw. `eligible` is in the experiment's order and `pmf` in that of `eligible`.

    pmf: whole slots, `slots.SLOTS` in all. propensity: the drawn action's share of them, in (0, 1].
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
