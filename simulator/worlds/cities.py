"""500 cities in `location`, of which 30 matter: more features than a regression has room for. Called by `wide.py`.

The 30 are the frequent ones: of cities that hardly anybody comes from, no count can know whether they matter. Best: in
each of the 30 the action of that city; elsewhere that of the segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from random import Random

from decider.experiment.definition import Action
from decider.types import ActionId, Context
from simulator.worlds.scene import Outcome, Visitor, chance, define, scene
from simulator.worlds.world import World

CITIES, MATTER = 500, 30
SEGMENTS = ("new", "regular", "vip")
DEVICES = ("ios", "android", "web")
ACTIONS = tuple(Action(ActionId(f"offer-{number}"), "offer") for number in range(10))

TURN = 10_000
"""The visit from which on other cities are the frequent ones, where they change."""

FREQUENCIES = ("even", "zipf", "changing")
"""even: of 10 visitors, 6 are from the 30, each as likely, and 4 from the others. zipf: the city of rank r in
proportion to 1/r. changing: as even, but first with one half of the 30 alone and then with the other half."""

_BASE = -2.4
_EFFECTS: dict[str, dict[str, float]] = {action.id: {} for action in ACTIONS}
"""Log-odds of a click: of each action, what each value of the context adds."""
for _city in range(MATTER):
    _EFFECTS[ACTIONS[_city % 10].id][f"city-{_city}"] = 1.6
    _EFFECTS[ACTIONS[(3 * _city + 1) % 10].id][f"city-{_city}"] = 0.8
for _number, _segment in enumerate(SEGMENTS):
    _EFFECTS[ACTIONS[_number].id][_segment] = 0.8


def cities_world(frequencies: str, *, all_known: bool = True) -> World:
    """frequencies: one of `FREQUENCIES`. all_known: otherwise the location of all but the 30 is left empty.

    >>> cities_world("zipf").draw(1, 3).contexts[0].location
    'city-0'
    """
    before, after = (list(accumulate(shares)) for shares in _shares(frequencies))

    def visitor(random: Random, number: int) -> Visitor:
        (city,) = random.choices(range(CITIES), cum_weights=before if number < TURN else after)
        location = f"city-{city}" if all_known or city < MATTER else ""
        return Visitor(Context(random.choice(SEGMENTS), random.choice(DEVICES), location=location))

    return scene(
        name=f"cities-{frequencies}",
        line="Many cities, of which few matter.",
        experiment=define("cities", actions=ACTIONS, baseline=ACTIONS[0].id, window=600, weights={"click": 1.0}),
        visitor=visitor,
        outcomes=_outcomes,
        delay=100.0,
    )


def _shares(frequencies: str) -> tuple[Sequence[float], Sequence[float]]:
    """(cities,) how likely each is before the turn, and after."""
    if frequencies == "zipf":
        zipf = [1 / rank for rank in range(1, CITIES + 1)]
        return zipf, zipf
    if frequencies == "even":
        even = _frequent(range(MATTER))
        return even, even
    return _frequent(range(MATTER // 2)), _frequent(range(MATTER // 2, MATTER))


def _frequent(cities: range) -> Sequence[float]:
    return [0.6 / len(cities) if city in cities else 0.4 / (CITIES - len(cities)) for city in range(CITIES)]


def _outcomes(context: Context, action: ActionId, _phase: int) -> list[Outcome]:
    return [Outcome("click", 1.0, chance(_BASE, _EFFECTS[action], context))]
