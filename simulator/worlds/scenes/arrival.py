"""A new action arrives while the experiment runs, and an old one goes.

`video` can be chosen from visit 2,000 on, `catalogue` until visit 8,000. Best: `video` for those on a mobile who came
from social media, from the day on which it is there; `catalogue` for regulars on a desktop while it lasts, then
`outfit`; for the others what it always was: `sale` for bargain hunters, `new-in` for new visitors
who did not come from social media.
"""

from __future__ import annotations

from random import Random

from decider.experiment.definition import Action
from decider.types import ActionId, Context
from simulator.worlds.scene import Outcome, Visitor, chance, define, scene

SEGMENTS = ("new", "regular", "bargain")
DEVICES = ("mobile", "desktop")
CHANNELS = ("search", "social", "email", "direct")

ARRIVES, GOES = 2_000, 8_000
"""The visits from which on there is `video`, and no longer `catalogue`."""

ACTIONS = (
    Action(ActionId("new-in"), "content"),
    Action(ActionId("sale"), "offer"),
    Action(ActionId("outfit"), "content"),
    Action(ActionId("catalogue"), "content"),
    Action(ActionId("video"), "content"),
)

_BASE = -2.7
_EFFECTS: dict[str, dict[str, float]] = {
    "new-in": {"new": 0.6, "search": 0.2, "bargain": -0.4},
    "sale": {"bargain": 1.2, "regular": -0.4, "new": 0.1},
    "outfit": {"regular": 0.7, "desktop": 0.3, "bargain": -0.3},
    "catalogue": {"regular": 0.8, "desktop": 0.8, "mobile": -0.8, "new": -0.5, "bargain": -0.2},
    "video": {"social": 1.3, "mobile": 0.7, "desktop": -0.6, "email": -0.4, "search": -0.3, "direct": -0.1},
}
"""Log-odds of a click: of each action, what each value of the context adds."""


def _visitor(random: Random, _number: int) -> Visitor:
    context = Context(
        segment=random.choices(SEGMENTS, (4, 3, 3))[0],
        device=random.choices(DEVICES, (6, 4))[0],
        channel=random.choices(CHANNELS, (3, 4, 1, 2))[0],
    )
    return Visitor(context)


def _outcomes(context: Context, action: ActionId, _phase: int) -> list[Outcome]:
    return [Outcome("click", 1.0, chance(_BASE, _EFFECTS[action], context))]


def _phase(number: int) -> int:
    return (number >= ARRIVES) + (number >= GOES)


def _eligible(_context: Context, action: ActionId, phase: int) -> bool:
    return {"video": phase >= 1, "catalogue": phase < 2}.get(action, True)


WORLD = scene(
    name="arrival",
    line="A new action arrives that is better for some; later an old one goes.",
    experiment=define("arrival", actions=ACTIONS, baseline="new-in", window=600, weights={"click": 1.0}),
    visitor=_visitor,
    outcomes=_outcomes,
    phase=_phase,
    eligible=_eligible,
    delay=170.0,
    traffic=1.0,
)
