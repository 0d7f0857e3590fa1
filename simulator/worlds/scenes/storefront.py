"""A fashion store's home banner: who sees it and in which stage of buying they are decides what they click.

The demo's world; its experiment is in `simulator/storefront.toml`. Best: `finish-checkout` for all at the checkout,
`free-shipping` for somebody new with a cart, `sale` for a bargain hunter who browses or compares, `new-arrivals` for a
VIP who browses; no banner is best for all, and the one that is best on average, `free-shipping`, is wrong for most.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

from decider.experiment.schema import from_message
from decider.experiment_files import read_toml
from decider.types import ActionId, Context
from simulator.worlds.scene import Outcome, Visitor, chance, scene

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
    return chance(BASE, _EFFECTS[action], context)


_EXPERIMENT = from_message(read_toml(Path(__file__).parents[2] / "storefront.toml"))
DELAY = 80.0
"""Mean seconds from a decision to its click."""

_WINDOW = 600_000_000
"""As in a real shop; the demo's is short, so that one can watch."""


def _visit(random: Random, _number: int) -> Visitor:
    return Visitor(visitor(random))


def _outcomes(context: Context, action: ActionId, _phase: int) -> tuple[Outcome, ...]:
    return (Outcome("click", 1.0, mean(context, action)),)


WORLD = scene(
    name="storefront",
    line="The home banner of a fashion store: segment and stage of buying decide what is clicked.",
    experiment=replace(_EXPERIMENT, reward=replace(_EXPERIMENT.reward, window=_WINDOW), holdout=0.0),
    visitor=_visit,
    outcomes=_outcomes,
    delay=DELAY,
)
