"""A push message at the right place and time: for about half of the people at most times, no message is right.

Best: `lunch` at work between 11 and 14, `store-nearby` in the city in opening hours, `evening-sale` at home from 18 on
for those who opted in to offers; otherwise `none`, since every message makes some unsubscribe, most of all before 9.
`hour` is a number that matters by ranges: what is linear in it cannot find lunch.
"""

from __future__ import annotations

from random import Random

from decider.experiment.definition import Action
from decider.types import ActionId, Context
from simulator.worlds.scene import Outcome, Visitor, chance, define, scene

LOCATIONS = ("home", "work", "city", "transit")
SEGMENTS = ("offers", "news", "quiet")
"""What somebody has opted in to."""

ACTIONS = (
    Action(ActionId("none"), "none"),
    Action(ActionId("store-nearby"), "content"),
    Action(ActionId("lunch"), "offer"),
    Action(ActionId("evening-sale"), "offer"),
    Action(ActionId("new-in"), "content"),
)

_CLICK = -4.2
_EFFECTS: dict[str, dict[str, float]] = {
    "store-nearby": {"city": 1.8, "transit": 0.5, "home": -1.2, "work": -0.6, "offers": 0.2},
    "lunch": {"work": 0.9, "city": 0.4, "home": -0.8, "transit": -0.3, "offers": 0.3},
    "evening-sale": {"home": 0.5, "work": -1.0, "transit": 0.1, "offers": 0.9, "news": -0.3},
    "new-in": {"transit": 0.6, "home": 0.2, "news": 0.9, "offers": -0.2},
}
_HOURS: dict[str, tuple[range, float]] = {
    "store-nearby": (range(10, 20), 1.0),
    "lunch": (range(11, 14), 2.0),
    "evening-sale": (range(18, 22), 2.0),
    "new-in": (range(16, 20), 1.0),
}
"""Log-odds of a click: of each action, what a category adds, and from when to when the hour adds how much."""

_UNSUBSCRIBES = {"offers": 0.01, "news": 0.016, "quiet": 0.045}
_TOO_EARLY = 0.012


def _visitor(random: Random, _number: int) -> Visitor:
    hour = random.randrange(7, 23)
    likely = (1, 5, 2, 1) if 9 <= hour < 17 else (5, 1, 2, 2)
    context = Context(
        segment=random.choices(SEGMENTS, (35, 30, 35))[0],
        channel="push",
        location=random.choices(LOCATIONS, likely)[0],
        features={"hour": float(hour)},
    )
    return Visitor(context)


def _outcomes(context: Context, action: ActionId, _phase: int) -> list[Outcome]:
    if action == "none":
        return []
    hour, (hours, adds) = int(context.features["hour"]), _HOURS[action]
    clicks = chance(_CLICK + adds * (hour in hours), _EFFECTS[action], context)
    leaves = _UNSUBSCRIBES[context.segment] + _TOO_EARLY * (hour < 9)
    return [Outcome("click", 1.0, clicks), Outcome("unsubscribe", 1.0, leaves)]


WORLD = scene(
    name="push",
    line="A push at the right place and hour; none is often right.",
    experiment=define(
        "push",
        actions=ACTIONS,
        baseline="none",
        window=7_200,
        weights={"click": 1.0, "unsubscribe": -4.0},
        reward_range=(-4.0, 1.0),
    ),
    visitor=_visitor,
    outcomes=_outcomes,
    delay=2_000.0,
    traffic=0.1,
)
