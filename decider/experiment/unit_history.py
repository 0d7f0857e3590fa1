"""Features of what a unit did before: what an experiment may ask for, and how they are made of the unit's decisions.

A part of an experiment's definition, and pure: the server reads the decisions in the log and logs the features with the
context that was scored; `simulator verify` reads the same entries and makes them again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from decider.errors import InvalidArgument, Violation
from decider.types import ActionId, Context, ExperimentId, Features, FeatureValue, Position, Time

PREFIX = "history."
"""Begins the name of each of these features. A call to an experiment that declares a history may send no such name: the
log would not say whose it is. To others it is a name as any."""

REWARD_FEATURES = ("recency", "frequency", "money")
"""Of each name of rewards: how long ago the last one was, how many there were, what they came to."""

MAX_REWARDS = 50
"""Rewards of one decision that are read: those without a reward_id in the order of arrival, then the others by it."""

DIGITS = 4
"""To which numbers are rounded: shorter in the log, and the same with every C library."""

DAY = 86_400_000_000


@dataclass(frozen=True, slots=True)
class HistoryDefinition:
    """What is asked for; see the proto message of the same name. period: microseconds."""

    period: int
    rewards: tuple[str, ...] = ()
    decisions: bool = False
    last_action: bool = False
    last_channel: bool = False
    most: int = 20

    @property
    def names(self) -> tuple[str, ...]:
        """Of all features that it may give."""
        of_rewards = [f"{PREFIX}{name}.{what}" for name in self.rewards for what in REWARD_FEATURES]
        counts = ["decisions", "activations"] if self.decisions else []
        last = ["last_action", "last_result"] if self.last_action else []
        channel = ["last_channel"] if self.last_channel else []
        return (*of_rewards, *[f"{PREFIX}{name}" for name in (*counts, *last, *channel)])


class Seen(NamedTuple):
    """Which entries a history was read from: those in (after, until], at a time. after: where the log began then."""

    after: Position
    until: Position
    time: Time


class PastReward(NamedTuple):
    """A reward that is in force. value: as sent, or corrected."""

    position: Position
    time: Time
    name: str
    value: float
    weight: float

    @property
    def worth(self) -> float:
        """What it counts."""
        return self.value * self.weight


class PastDecision(NamedTuple):
    """A decision of the unit, with what became of it. action: what was shown, as far as the log knows. deadline: of its
    rewards; it is that of the seal where a final reward had closed it. counts: whether somebody can have seen it, where
    the experiment counts only what was activated."""

    position: Position
    time: Time
    action: ActionId
    channel: str
    activated: bool
    counts: bool
    deadline: Time
    rewards: tuple[PastReward, ...]


def with_history(context: Context, known: Features) -> Context:
    """The context with features of the unit's history."""
    return context._replace(features={**context.features, **known})


def check_call(context: Context, experiment: ExperimentId) -> None:
    """Raises InvalidArgument where a call sends a feature that is the server's to make. experiment: declares a
    history."""
    sent = [name for name in context.features if name.startswith(PREFIX)]
    if sent:
        problem = (
            f"experiment {experiment!r} declares a history, so the server itself makes what begins with {PREFIX!r}; "
            "leave it out, or take another name"
        )
        raise InvalidArgument([Violation(f"context.features[{name}]", problem) for name in sent])


def without_history(context: Context) -> Context:
    """The context as the call sent it."""
    sent = {name: value for name, value in context.features.items() if not name.startswith(PREFIX)}
    return context._replace(features=sent)


def history_features(history: HistoryDefinition, past: Sequence[PastDecision], at: Time) -> Features:
    """past: the unit's newest decisions of the period, at most `history.most`, in order of position.

    >>> visit = PastDecision(Position(5), Time(0), ActionId("sale"), "email", True, True, Time(9), ())
    >>> history_features(HistoryDefinition(90 * DAY, decisions=True, last_action=True), [visit], Time(9))
    ... # doctest: +NORMALIZE_WHITESPACE
    {'history.decisions': 0.6931, 'history.activations': 0.6931, 'history.last_action': 'sale',
     'history.last_result': 'unrewarded'}
    """
    return {f"{PREFIX}{name}": value for name, value in _features(history, past, at)}


def _features(history: HistoryDefinition, past: Sequence[PastDecision], at: Time) -> Iterator[tuple[str, FeatureValue]]:
    rewards = [reward for decision in past for reward in decision.rewards]
    for name in history.rewards:
        yield from _of_rewards(name, [one for one in rewards if one.name == name], at, history.period)
    if history.decisions:
        yield "decisions", _logarithm(len(past))
        yield "activations", _logarithm(sum(one.activated for one in past))
    if history.last_action:
        yield from _of_last_action(past, at)
    if history.last_channel:
        yield from _of_last_channel(past)


def _of_rewards(name: str, rewards: Sequence[PastReward], at: Time, period: int) -> Iterator[tuple[str, FeatureValue]]:
    values = (
        _recency(at - max(one.time for one in rewards), period) if rewards else 0.0,
        _logarithm(len(rewards)),
        _logarithm(math.fsum([one.value for one in rewards])),
    )
    for what, value in zip(REWARD_FEATURES, values, strict=True):
        yield f"{name}.{what}", value


def _of_last_action(past: Sequence[PastDecision], at: Time) -> Iterator[tuple[str, FeatureValue]]:
    seen = [one for one in past if one.counts]
    if not seen:
        return
    last = seen[-1]
    yield "last_action", last.action
    if math.fsum([one.worth for one in last.rewards]) > 0:
        yield "last_result", "rewarded"
    else:
        yield "last_result", "open" if at < last.deadline else "unrewarded"


def _of_last_channel(past: Sequence[PastDecision]) -> Iterator[tuple[str, FeatureValue]]:
    answers = [(one.position, decision.channel) for decision in past for one in decision.rewards if one.worth > 0]
    if answers and (channel := max(answers)[1]):
        yield "last_channel", channel


def _recency(age: int, period: int) -> float:
    """1 for just now, 0 for a whole period ago and for never; the first days count most.

    >>> [_recency(days * DAY, 90 * DAY) for days in (0, 1, 7, 30, 90)]
    [1.0, 0.8463, 0.539, 0.2387, 0.0]
    """
    return max(0.0, round(1 - math.log1p(max(age, 0) / DAY) / math.log1p(period / DAY), DIGITS))


def _logarithm(number: float) -> float:
    """The second purchase says more than the twentieth; below 0 it is the mirror image.

    >>> [_logarithm(number) for number in (0, 1, 3, 100, -100)]
    [0.0, 0.6931, 1.3863, 4.6151, -4.6151]
    """
    return round(math.copysign(math.log1p(abs(number)), number), DIGITS) + 0.0  # no -0.0
