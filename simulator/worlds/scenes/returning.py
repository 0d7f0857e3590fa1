"""Returning customers: what somebody bought before says what to offer next; nothing else does.

Three kinds of customers come about thirty times, some hours apart: the loyal buy what is new at its full price,
bargain hunters buy what is reduced, others only read. The context does not tell them apart, so a policy that knows no
more gives all of them what is best on average. Best: `new-in`, `reduced` and `lookbook` for one kind each, which only
somebody knows who looks into their heads. A few visits tell it, too.
"""

from __future__ import annotations

from functools import lru_cache
from random import Random

from decider.experiment.definition import Action
from decider.experiment.unit_history import DAY, HistoryDefinition
from decider.types import ActionId, Context
from simulator.worlds.scene import Outcome, Visitor, define, scene

KINDS = ("loyal", "bargain", "browsing")
DEVICES = ("mobile", "desktop")
CHANNELS = ("search", "email", "direct")

ACTIONS = (
    Action(ActionId("new-in"), "offer"),
    Action(ActionId("reduced"), "offer"),
    Action(ActionId("lookbook"), "content"),
)

CHANCES = {
    "loyal": {"new-in": ("full_price", 0.25), "reduced": ("reduced_price", 0.2), "lookbook": ("read", 0.15)},
    "bargain": {"new-in": ("full_price", 0.01), "reduced": ("reduced_price", 0.3), "lookbook": ("read", 0.1)},
    "browsing": {"new-in": ("full_price", 0.01), "reduced": ("reduced_price", 0.02), "lookbook": ("read", 0.6)},
}
"""What each kind does on each action, and how likely."""

HOURS = 3600.0


@lru_cache(maxsize=4096)
def _kind(unit: int) -> str:
    return Random(unit).choice(KINDS)


def _visitor(random: Random, number: int) -> Visitor:
    unit = number // 30 + random.randrange(150)
    known = Context(device=random.choices(DEVICES, (7, 3))[0], channel=random.choice(CHANNELS))
    return Visitor(known, unit, known._replace(segment=_kind(unit)))


def _outcomes(context: Context, action: ActionId, _phase: int) -> list[Outcome]:
    name, probability = CHANCES[context.segment][action]
    return [Outcome(name, 1.0, probability)]


WORLD = scene(
    name="returning",
    line="Returning customers: only what they did before tells what they like.",
    experiment=define(
        "returning",
        actions=ACTIONS,
        baseline="reduced",
        window=24 * HOURS,
        weights={"full_price": 1.0, "reduced_price": 0.6, "read": 0.15},
        history=HistoryDefinition(
            90 * DAY, ("full_price", "read", "reduced_price"), decisions=True, last_action=True, most=20
        ),
    ),
    visitor=_visitor,
    outcomes=_outcomes,
    delay=2 * HOURS,
    traffic=1 / 200,
    hidden=True,
)
