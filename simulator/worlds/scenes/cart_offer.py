"""An offer after a cart was left, judged by its margin: a discount is wasted on who would have bought anyway.

Best: `none` for a member or VIP whose cart is fresh (they come back by themselves, at full price); a discount for a
bargain hunter, the deeper one where the cart is old; `free-shipping` for a new customer; `reminder` for a member or VIP
whose cart is some days old. Discounts sell most and do not earn most.
"""

from __future__ import annotations

import math
from random import Random

from decider.experiment.definition import Action
from decider.types import ActionId, Context
from simulator.worlds.scene import Outcome, Visitor, chance, define, scene

SEGMENTS = ("new", "member", "vip", "bargain")
DEVICES = ("mobile", "desktop")
CART_VALUES = (30.0, 50.0, 80.0, 120.0)
DAYS_SINCE = (0.0, 1.0, 2.0, 3.0, 5.0, 7.0)

ACTIONS = (
    Action(ActionId("none"), "none"),
    Action(ActionId("reminder"), "content"),
    Action(ActionId("free-shipping"), "offer"),
    Action(ActionId("discount-5"), "offer", {"discount": 0.05}),
    Action(ActionId("discount-15"), "offer", {"discount": 0.15}),
)

MARGIN = 0.3
"""Of the price. What an offer takes from it is in `DISCOUNTS` and `SHIPPING`."""
DISCOUNTS = {"discount-5": 0.05, "discount-15": 0.15}
SHIPPING = {"free-shipping": 4.0}
BASKETS = ((0.5, 0.25), (1.0, 0.6), (1.5, 0.15))
"""What is bought in the end, as a part of the cart's value, and how likely each is."""

_BASE = -3.3
_EFFECTS: dict[str, dict[str, float]] = {
    "none": {"vip": 2.0, "member": 1.5, "new": 0.1, "bargain": -0.9},
    "reminder": {"vip": 1.5, "member": 1.0, "new": -0.1, "bargain": -0.6, "mobile": 0.1},
    "free-shipping": {"vip": 1.6, "member": 1.2, "new": 1.1, "bargain": 0.3, "mobile": 0.2},
    "discount-5": {"vip": 1.5, "member": 1.1, "new": 0.5, "bargain": 1.8},
    "discount-15": {"vip": 1.7, "member": 1.3, "new": 0.7, "bargain": 2.1},
}
_PER_DAY = {"none": -0.25, "reminder": -0.05, "free-shipping": -0.15, "discount-5": -0.25, "discount-15": -0.05}
"""Log-odds of a purchase: of each action, what a category adds and what each day since the cart was left adds."""


def _visitor(random: Random, _number: int) -> Visitor:
    features = {
        "cart_value": random.choices(CART_VALUES, (3, 4, 3, 2))[0],
        "days_since": random.choices(DAYS_SINCE, (6, 5, 4, 3, 2, 2))[0],
    }
    segment = random.choices(SEGMENTS, (35, 30, 10, 25))[0]
    return Visitor(Context(segment=segment, device=random.choices(DEVICES, (6, 4))[0], features=features))


def _outcomes(context: Context, action: ActionId, _phase: int) -> list[Outcome]:
    cart, days = float(context.features["cart_value"]), float(context.features["days_since"])
    buys = chance(_BASE + _PER_DAY[action] * days, _EFFECTS[action], context)
    kept = MARGIN - DISCOUNTS.get(action, 0.0)
    return [
        Outcome("margin", math.fsum((kept * part * cart, -SHIPPING.get(action, 0.0))), buys * likely)
        for part, likely in BASKETS
    ]


WORLD = scene(
    name="cart-offer",
    line="An offer after a cart was left: discounts cost margin.",
    experiment=define(
        "cart-offer",
        actions=ACTIONS,
        baseline="reminder",
        window=86_400,
        weights={"margin": 1.0},
        reward_range=(0.0, 60.0),
    ),
    visitor=_visitor,
    outcomes=_outcomes,
    delay=24_000.0,
    traffic=0.01,
)
