"""Anonymous visitors: of 85 in 100 nothing is known but the device and where they came from.

All of them have a segment and a stage of buying, and click accordingly; few say so. Best: where it is known, `checkout`
with a full cart, `lookbook` for a VIP, `sale` for a bargain hunter, `guide` for somebody new who searched; where it is
not, what is best on average over those who come that way: `guide` from a search, `lookbook` from social media, `sale`
otherwise.
"""

from __future__ import annotations

from itertools import product
from random import Random

from decider.experiment.definition import Action
from decider.types import ActionId, Context
from simulator.worlds.scene import Outcome, Visitor, chance, define, mixture, scene

SEGMENTS = {"new": 0.45, "vip": 0.2, "bargain": 0.35}
STAGES = {"browse": 0.65, "compare": 0.25, "cart": 0.1}
"""How many are so, whether one knows it or not."""
DEVICES = ("mobile", "desktop")
CHANNELS = ("search", "social", "direct")
KNOWN = 0.15

ACTIONS = (
    Action(ActionId("guide"), "content"),
    Action(ActionId("lookbook"), "content"),
    Action(ActionId("sale"), "offer"),
    Action(ActionId("checkout"), "cta"),
)

_BASE = -2.8
_EFFECTS: dict[str, dict[str, float]] = {
    "guide": {"new": 0.9, "vip": -0.9, "bargain": -0.4, "search": 0.7, "compare": 0.4, "social": -0.2, "desktop": 0.2},
    "lookbook": {"vip": 1.5, "new": -0.1, "bargain": -0.7, "social": 0.8, "browse": 0.2, "search": -0.5, "cart": -0.5},
    "sale": {"bargain": 1.2, "vip": -1.0, "direct": 0.5, "cart": -0.2, "mobile": 0.1},
    "checkout": {"cart": 2.6, "browse": -1.3, "compare": -0.5, "direct": 0.2},
}
"""Log-odds of a click: of each action, what each value of the true context adds."""


def _visitor(random: Random, _number: int) -> Visitor:
    truth = Context(
        segment=random.choices([*SEGMENTS], [*SEGMENTS.values()])[0],
        device=random.choices(DEVICES, (7, 3))[0],
        channel=random.choice(CHANNELS),
        intent_stage=random.choices([*STAGES], [*STAGES.values()])[0],
    )
    known = random.random() < KNOWN
    return Visitor(truth if known else truth._replace(segment="", intent_stage=""), truth=truth)


def _outcomes(context: Context, action: ActionId, _phase: int) -> list[Outcome]:
    if context.segment:
        return [Outcome("click", 1.0, chance(_BASE, _EFFECTS[action], context))]
    return mixture(
        (SEGMENTS[segment] * STAGES[stage], _outcomes(context._replace(segment=segment, intent_stage=stage), action, 0))
        for segment, stage in product(SEGMENTS, STAGES)
    )


WORLD = scene(
    name="anonymous",
    line="Of 85 in 100 visitors only device and channel are known.",
    experiment=define("anonymous", actions=ACTIONS, baseline="guide", window=600, weights={"click": 1.0}),
    visitor=_visitor,
    outcomes=_outcomes,
    delay=170.0,
)
