"""A person who is seen on several channels, and how to follow up: everybody has a channel of their own.

Everybody comes four times, 400 visits apart, mostly on the channel they like best; from the second time on it is known
which one that is. Best: follow up there; at the first visit on the channel on which they came, which most like best.
"""

from __future__ import annotations

from functools import lru_cache
from random import Random

from decider.experiment.definition import Action
from decider.types import ActionId, Context
from simulator.worlds.scene import Outcome, Visitor, chance, define, mixture, scene

PREFERENCES = {"app": 0.3, "email": 0.35, "web": 0.2, "store": 0.15}
"""How many like each channel best."""
FAITHFUL = 0.55
"""How often somebody comes on that one; otherwise on any, that one included."""
SEGMENTS = ("new", "member")
TIMES, APART = 4, 400

ACTIONS = (
    Action(ActionId("app-message"), "message"),
    Action(ActionId("email"), "message"),
    Action(ActionId("web-banner"), "content"),
    Action(ActionId("store-event"), "content"),
    Action(ActionId("sms"), "message"),
)

_BASE = -3.0
_EFFECTS: dict[str, dict[str, float]] = {
    "app-message": {"app": 1.6, "email": -0.4, "web": -0.2, "store": -0.8, "member": 0.2},
    "email": {"email": 1.5, "app": -0.5, "web": 0.2, "store": -0.1, "new": 0.2},
    "web-banner": {"web": 1.6, "app": -0.1, "email": 0.1, "store": -0.5},
    "store-event": {"store": 2.0, "app": -0.4, "email": -0.5, "web": -0.8, "member": 0.2},
    "sms": {"app": 0.2, "store": 0.5, "email": -0.3, "web": -0.2},
}
"""Log-odds of a click: of each action, what it adds which channel somebody likes best, and the segment."""


@lru_cache(maxsize=4096)
def _likes(unit: int) -> tuple[str, str]:
    random = Random(unit)
    return random.choices([*PREFERENCES], [*PREFERENCES.values()])[0], random.choice(SEGMENTS)


def _visitor(random: Random, number: int) -> Visitor:
    """One of four visits is somebody's first; the others come back from 400, 800 and 1,200 visits before."""
    time = number % TIMES
    unit = (number - APART * time + APART * TIMES) // TIMES
    likes, segment = _likes(unit)
    channel = likes if random.random() < FAITHFUL else random.choice([*PREFERENCES])
    truth = Context(segment=segment, channel=channel, features={"prefers": likes})
    return Visitor(truth if time else truth._replace(features={}), unit, truth)


def _outcomes(context: Context, action: ActionId, _phase: int) -> list[Outcome]:
    likes = context.features.get("prefers")
    if likes is None:
        return mixture((weight, _liking(context, action, one)) for one, weight in _guess(context.channel).items())
    return _liking(context, action, str(likes))


def _liking(context: Context, action: ActionId, likes: str) -> list[Outcome]:
    liked = Context(segment=context.segment, channel=likes)
    return [Outcome("click", 1.0, chance(_BASE, _EFFECTS[action], liked))]


def _guess(channel: str) -> dict[str, float]:
    """How likely each preference is for somebody who was seen on that channel once (Bayes)."""
    stray = (1 - FAITHFUL) / len(PREFERENCES)
    joint = {one: share * (stray + FAITHFUL * (one == channel)) for one, share in PREFERENCES.items()}
    return {one: weight / sum(joint.values()) for one, weight in joint.items()}


WORLD = scene(
    name="channels",
    line="People on several channels; the one they like is known once seen.",
    experiment=define("channels", actions=ACTIONS, baseline="email", window=86_400, weights={"click": 1.0}),
    visitor=_visitor,
    outcomes=_outcomes,
    delay=24_000.0,
    traffic=0.01,
)
