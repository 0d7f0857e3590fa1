"""What Azure Personalizer would have logged of a world: Rank calls, and lines of dsjson as its service wrote them.

The logging policy is epsilon-greedy over a simple table of means, as good as a trial of some weeks gives: it explores
every action, so a model can learn from it more than it knew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from decider.types import CONTEXT_FIELDS, Context
from simulator.worlds.world import Visits, World

EPSILON = 0.2
"""Personalizer's exploration percentage."""

BEGIN = datetime(2021, 9, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Event:
    """One Rank call with what became of it. drawn: index of the action; propensities: by action."""

    number: int
    rank: Mapping[str, Any]
    drawn: int
    propensities: tuple[float, ...]
    reward: float
    delay: float

    @property
    def time(self) -> datetime:
        """Twenty events in a minute."""
        return BEGIN + timedelta(seconds=3 * self.number)


def rank_call(world: World, context: Context, number: int) -> dict[str, Any]:
    """The body of a Rank call: contexts and actions are lists of objects, nested as in Personalizer's quickstart."""
    named = {name: value for name, value in zip(CONTEXT_FIELDS, context[:5], strict=True) if value}
    visitor = {"cart": {"items": float(number % 4)}, "returning": number % 3 == 0}
    return {
        "eventId": f"event-{number}",
        "contextFeatures": [named, visitor],
        "actions": [
            {"id": action.id, "features": [{"price": 10.0 + place}, {"Look": {"colour": ("red", "blue")[place % 2]}}]}
            for place, action in enumerate(world.experiment.actions)
        ],
        "excludedActions": [],
        "deferActivation": False,
    }


def events(world: World, visits: Visits, random: Random) -> Iterator[Event]:
    """What an epsilon-greedy service decides for these visits; it learns a mean of every action by stage of buying."""
    actions = len(world.experiment.actions)
    sums: dict[tuple[str, int], list[float]] = {}
    for number, case in enumerate(visits.seen.tolist()):
        context = visits.contexts[case]
        means = [_mean(sums.get((context.intent_stage, action))) for action in range(actions)]
        greedy = means.index(max(means))
        pmf = [EPSILON / actions + (1 - EPSILON) * (action == greedy) for action in range(actions)]
        drawn = random.choices(range(actions), pmf)[0]
        reward = float(visits.rewards[number, drawn])
        known = sums.setdefault((context.intent_stage, drawn), [0.0, 0.0])
        known[0], known[1] = known[0] + reward, known[1] + 1
        yield Event(number, rank_call(world, context, number), drawn, tuple(pmf), reward, float(visits.delays[number]))


def _mean(known: list[float] | None) -> float:
    return 0.0 if known is None else known[0] / known[1]


def dsjson_line(event: Event) -> str:
    """The line of an event, in the form in which Personalizer's log has it."""
    order = [event.drawn, *[place for place in range(len(event.propensities)) if place != event.drawn]]
    rewards = [{"v": event.reward, "EventId": event.rank["eventId"], "EnqueuedTimeUtc": _text(event, event.delay)}]
    return json.dumps(
        {
            "_label_cost": -event.reward,
            "_label_probability": event.propensities[event.drawn],
            "_label_Action": event.drawn + 1,
            "_labelIndex": event.drawn,
            "o": rewards if event.reward else [],
            "Timestamp": _text(event, 0.0),
            "Version": "1",
            "EventId": event.rank["eventId"],
            "a": [place + 1 for place in order],
            "c": {
                "FromUrl": event.rank["contextFeatures"],
                "_multi": [
                    {"_tag": one["id"], "i": {"constant": 1, "id": one["id"]}, "j": one["features"]}
                    for one in event.rank["actions"]
                ],
            },
            "p": [event.propensities[place] for place in order],
            "VWState": {"m": "8f2d/1"},
        }
    )


def _text(event: Event, later: float) -> str:
    return f"{(event.time + timedelta(seconds=later)).isoformat().removesuffix('+00:00')}Z"
