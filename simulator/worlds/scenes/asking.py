"""Asking back: what a visitor likes is not known until the visitor has been asked and has answered.

People come about six times. An answer has a small agreed worth of its own. Best: `ask` those who came by e-mail or
directly, since they answer often; `bestsellers` for the others, who would not; and what somebody likes once that is
known. Nobody who has answered is asked again.
"""

from __future__ import annotations

from functools import lru_cache
from random import Random

from decider.experiment.definition import Action
from decider.types import ActionId, Context
from simulator.worlds.scene import Outcome, Visitor, chance, define, mixture, scene

DEVICES = ("mobile", "desktop")
CHANNELS = ("search", "social", "email", "direct")
TASTES = ("dresses", "denim", "sport", "shoes")

ACTIONS = (
    Action(ActionId("ask"), "ask"),
    Action(ActionId("bestsellers"), "content"),
    *(Action(ActionId(taste), "content") for taste in TASTES),
)

ANSWERS = {"search": 0.15, "social": 0.1, "email": 0.4, "direct": 0.35}
"""How many answer when they are asked, by the channel on which they came."""

_BASE = -2.6
_LIKED, _NOT_LIKED = 1.3, -0.9
"""Log-odds of a click on what a visitor likes and on what not."""


@lru_cache(maxsize=4096)
def _taste(unit: int) -> str:
    return Random(unit).choice(TASTES)


def _visitor(random: Random, number: int) -> Visitor:
    unit = number // 6 + random.randrange(150)
    channel = random.choice(CHANNELS)
    known = Context(device=random.choices(DEVICES, (7, 3))[0], channel=channel)
    answers = random.random() < ANSWERS[channel]
    after_answer = known._replace(features={"taste": _taste(unit)})
    return Visitor(
        known, unit, known._replace(features={"taste": _taste(unit), "answers": answers}), after_answer, answers
    )


def _outcomes(context: Context, action: ActionId, _phase: int) -> list[Outcome]:
    if action == "ask":
        return [Outcome("answer", 1.0, float(context.features.get("answers", ANSWERS[context.channel])))]
    if "taste" in context.features:
        return _liking(context, action, str(context.features["taste"]))
    return mixture((1 / len(TASTES), _liking(context, action, taste)) for taste in TASTES)


def _liking(context: Context, action: ActionId, taste: str) -> list[Outcome]:
    fits = 0.1 if action == "bestsellers" else _LIKED if action == taste else _NOT_LIKED
    return [Outcome("click", 1.0, chance(_BASE + fits, {"desktop": 0.2, "email": 0.2}, context))]


def _eligible(context: Context, action: ActionId, _phase: int) -> bool:
    return action != "ask" or "taste" not in context.features


WORLD = scene(
    name="asking",
    line="Asking back: a taste is unknown until somebody answers; people return.",
    experiment=define(
        "asking", actions=ACTIONS, baseline="bestsellers", window=600, weights={"answer": 0.3, "click": 1.0}
    ),
    visitor=_visitor,
    outcomes=_outcomes,
    eligible=_eligible,
    delay=170.0,
    asks=ActionId("ask"),
)
