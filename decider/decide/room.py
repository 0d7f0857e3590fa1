"""Which actions a slot must leave to the slots behind it, so that each of them can get one. Pure. Called by `slate.py`.

Slots that have few actions of their own compete for them. A slot that draws the only action of another one would make
the page impossible, so it must not be able to draw it: then what is logged, the eligible actions and the propensity, is
what happened, and no page is lost to chance.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from typing import NamedTuple

from decider.types import ActionId


class Filling(NamedTuple):
    """An action for each slot, no action twice: the place of the slot, by action. short: places of slots that together
    have fewer actions than they are; empty where all can be filled."""

    places: Mapping[ActionId, int]
    short: tuple[int, ...] = ()


def fill(allowed: Mapping[int, Collection[ActionId]]) -> Filling:
    """A filling of slots with the actions that they allow, by place.

    >>> fill({0: ["x", "y"], 1: ["x"]}).places
    {'x': 1, 'y': 0}
    >>> fill({0: ["x"], 1: ["x", "y", "z"], 2: ["x"]}).short
    (0, 2)
    """
    places: dict[ActionId, int] = {}
    for place in allowed:
        tried: set[ActionId] = set()
        if not _give(place, allowed, places, tried):  # whoever has what was tried wants nothing else
            return Filling(places, tuple(sorted({place, *[places[id_] for id_ in tried]})))
    return Filling(places)


def _give(
    place: int, allowed: Mapping[int, Collection[ActionId]], places: dict[ActionId, int], tried: set[ActionId]
) -> bool:
    """Whether the slot can get an action that was not tried, where others that have one may take another."""
    for id_ in allowed[place]:
        if id_ not in tried:
            tried.add(id_)
            if id_ not in places or _give(places[id_], allowed, places, tried):
                places[id_] = place
                return True
    return False


def needed(allowed: Mapping[int, Collection[ActionId]]) -> Set[ActionId]:
    """The actions without one of which the slots, which can be filled, could no longer be.

    >>> sorted(needed({1: ["x"], 2: ["x", "y"], 3: ["u", "v"]}))
    ['x', 'y']
    """
    places = fill(allowed).places
    # One that a filling does not use, the slots do not need.
    return frozenset([id_ for id_ in places if not _give(places[id_], allowed, dict(places), {id_})])
