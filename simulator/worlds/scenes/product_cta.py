"""The call to action on a product page: how far a visitor is with buying decides which one is followed.

Best: while browsing `wishlist`, while comparing `reviews` (on a desktop `compare-models`), with a full cart `buy-now`,
after a purchase `outfit`. Asking for the purchase too early puts off more visitors than it wins, so the generic
`buy-now` for everybody is far from the best.
"""

from __future__ import annotations

from random import Random

from decider.experiment.definition import Action
from decider.types import ActionId, Context
from simulator.worlds.scene import Outcome, Visitor, chance, define, scene

STAGES = ("browse", "compare", "cart", "bought")
DEVICES = ("mobile", "desktop")
CHANNELS = ("search", "social", "email", "direct")
SEGMENTS = ("new", "member")

ACTIONS = (
    Action(ActionId("buy-now"), "cta"),
    Action(ActionId("wishlist"), "cta"),
    Action(ActionId("compare-models"), "cta"),
    Action(ActionId("reviews"), "content"),
    Action(ActionId("size-guide"), "content"),
    Action(ActionId("outfit"), "content"),
)

_BASE = -2.7
_EFFECTS: dict[str, dict[str, float]] = {
    "buy-now": {"browse": -1.3, "compare": 0.1, "cart": 1.7, "bought": -1.2, "member": 0.3, "direct": 0.2},
    "wishlist": {"browse": 1.0, "compare": 0.2, "cart": -0.7, "bought": -0.3, "social": 0.4, "mobile": 0.2},
    "compare-models": {"browse": -0.2, "compare": 0.5, "cart": -0.6, "bought": -1.0, "desktop": 0.9, "search": 0.2},
    "reviews": {"browse": 0.1, "compare": 1.1, "cart": 0.4, "bought": -0.8, "new": 0.2, "search": 0.1},
    "size-guide": {"browse": -0.3, "compare": 0.4, "cart": 0.8, "bought": -0.9, "new": 0.3, "mobile": 0.1},
    "outfit": {"browse": 0.2, "compare": -0.5, "cart": 0.1, "bought": 1.2, "member": 0.3, "email": 0.3},
}
"""Log-odds of a click: of each action, what each value of the context adds."""


def _visitor(random: Random, _number: int) -> Visitor:
    context = Context(
        segment=random.choices(SEGMENTS, (6, 4))[0],
        device=random.choices(DEVICES, (7, 3))[0],
        channel=random.choice(CHANNELS),
        intent_stage=random.choices(STAGES, (50, 30, 12, 8))[0],
    )
    return Visitor(context)


def _outcomes(context: Context, action: ActionId, _phase: int) -> list[Outcome]:
    return [Outcome("click", 1.0, chance(_BASE, _EFFECTS[action], context))]


WORLD = scene(
    name="product-cta",
    line="The call to action on a product page: the stage decides.",
    experiment=define("product-cta", actions=ACTIONS, baseline="buy-now", window=600, weights={"click": 1.0}),
    visitor=_visitor,
    outcomes=_outcomes,
    delay=170.0,
)
