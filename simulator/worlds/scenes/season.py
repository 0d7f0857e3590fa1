"""A season that turns: what sells follows the time of the year, which the context does not say.

A year is 12,000 visits, in steps of 250. Best: each action around its own peak, moved a little by who comes; so the
best action of a year on average earns far less than what a policy that keeps learning can earn.
"""

from __future__ import annotations

import math
from random import Random

from decider.experiment.definition import Action
from decider.types import ActionId, Context
from simulator.worlds.scene import Outcome, Visitor, chance, define, scene

SEGMENTS = ("women", "men", "family")
DEVICES = ("mobile", "desktop")
CHANNELS = ("search", "social", "email")

STEP, STEPS = 250, 48
"""Visits in a step of the year, and steps in a year."""

PEAKS = {"coats": 2, "dresses": 16, "swimwear": 24, "school": 32, "knitwear": 40}
"""The step of the year in which each sells best; half a year later it sells worst."""
SWING = 1.1

ACTIONS = tuple(Action(ActionId(one), "content") for one in PEAKS)

_BASE = -2.9
_EFFECTS: dict[str, dict[str, float]] = {
    "coats": {"women": 0.2, "men": 0.3, "search": 0.2},
    "dresses": {"women": 0.9, "men": -1.2, "social": 0.3},
    "swimwear": {"family": 0.4, "women": 0.2, "mobile": 0.2},
    "school": {"family": 1.0, "men": -0.4, "women": -0.4, "email": 0.2},
    "knitwear": {"men": 0.8, "email": 0.2, "desktop": 0.2},
}
"""Log-odds of a click: of each action, what each value of the context adds."""


def _visitor(random: Random, _number: int) -> Visitor:
    context = Context(
        segment=random.choices(SEGMENTS, (5, 3, 2))[0],
        device=random.choices(DEVICES, (7, 3))[0],
        channel=random.choice(CHANNELS),
    )
    return Visitor(context)


def _outcomes(context: Context, action: ActionId, phase: int) -> list[Outcome]:
    season = SWING * math.cos(2 * math.pi * (phase - PEAKS[action]) / STEPS)
    return [Outcome("click", 1.0, chance(_BASE + season, _EFFECTS[action], context))]


def _phase(number: int) -> int:
    return number // STEP % STEPS


WORLD = scene(
    name="season",
    line="What sells follows the time of the year, which nobody tells.",
    experiment=define("season", actions=ACTIONS, baseline="coats", window=600, weights={"click": 1.0}),
    visitor=_visitor,
    outcomes=_outcomes,
    phase=_phase,
    delay=170.0,
    traffic=1.0,
)
