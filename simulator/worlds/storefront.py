"""A fashion store's home banner: who sees it and in which stage of buying they are decides what they click.

The world of the demo, for the experiment in `simulator/storefront.toml`.
"""

from __future__ import annotations

import math
from random import Random

from decider.types import Context

SEGMENTS = ("new", "regular", "vip", "bargain")
DEVICES = ("mobile", "desktop", "tablet")
CHANNELS = ("search", "social", "email", "direct")
LOCATIONS = ("north", "south", "east", "west")
STAGES = ("browse", "compare", "cart", "checkout")

BASE = -2.6
"""Log-odds of a click on a banner that nothing speaks for or against."""

_EFFECTS: dict[str, dict[str, float]] = {
    "new-arrivals": {"vip": 1.3, "regular": 0.4, "bargain": -0.8, "browse": 0.6, "social": 0.4, "checkout": -1.0},
    "sale": {"bargain": 1.5, "vip": -0.9, "new": 0.3, "compare": 0.6, "search": 0.3},
    "outfit": {"regular": 0.9, "vip": 0.6, "desktop": 0.5, "browse": 0.3, "email": 0.4, "cart": -0.4},
    "free-shipping": {"new": 1.1, "mobile": 0.3, "cart": 0.9, "compare": 0.3, "north": 0.4},
    "finish-checkout": {"checkout": 1.9, "cart": 1.1, "browse": -1.4, "compare": -0.6, "direct": 0.3},
    "none": {"vip": -0.5, "browse": -0.5, "cart": -1.0, "checkout": -0.6},
}


def visitor(random: Random) -> Context:
    """A visitor's context; one in ten is anonymous: segment and location are not known."""
    known = random.random() < 0.9
    return Context(
        segment=random.choices(SEGMENTS, (4, 3, 1, 2))[0] if known else "",
        device=random.choices(DEVICES, (6, 3, 1))[0],
        channel=random.choice(CHANNELS),
        location=random.choice(LOCATIONS) if known else "",
        intent_stage=random.choices(STAGES, (5, 3, 2, 1))[0],
    )


def mean(context: Context, action: str) -> float:
    """The true probability of a click, in (0, 1).

    >>> mean(Context(segment="vip", intent_stage="browse"), "new-arrivals") > mean(Context(), "new-arrivals")
    True
    """
    effects = _EFFECTS[action]
    fields = (context.segment, context.device, context.channel, context.location, context.intent_stage)
    return 1 / (1 + math.exp(-BASE - sum(effects.get(value, 0.0) for value in fields)))
