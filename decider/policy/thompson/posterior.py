"""What serves of a regression: the weights of all actions, and how uncertain they are.

`regression.py` learns it; a copy answers for a policy that nobody teaches.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from decider.policy.thompson.arrays import FEATURE, Cache, Floats, Indexes
from decider.policy.thompson.features import CONSTANT, Features, is_number, penalty

GROWTH = 8
"""Features for which room is made at a time."""

GUESS = 0.25
"""Variance of the noise before anything is seen, as if it had been seen once; rewards are in [0, 1]."""


class Beliefs(NamedTuple):
    """Of each action: the expected reward in [0, 1], and the variance of that expectation."""

    mean: Floats
    variance: Floats


class Believer(Protocol):
    """Anything that can be asked for beliefs."""

    def believe(self, actions: tuple[str, ...], shared: Features, own: tuple[Features, ...]) -> Beliefs:
        """What is believed of these actions. shared: features of the context; own: of each action."""
        ...


class Found(NamedTuple):
    """The known ones among some features: where they are, their values, and the products of each two values.

    strangers: the names of the others. unknown: the variance of the categories among them that may come to be known.
    """

    places: Indexes
    values: Floats
    squares: Floats
    strangers: tuple[str, ...]
    unknown: float


class _Stacked(NamedTuple):
    """(actions, most features) the same of each action, padded with zeros."""

    places: Indexes
    values: Floats
    unknown: Floats


class Posterior:
    """weights: (rows, features); spread: (rows, features, features), in units of the noise. Row 0 is an action that
    nothing is known of. noise: variance of a reward around what was expected of it. wide: there is no room for all
    features, so that a stranger stays one.
    """

    def __init__(self) -> None:
        self._places: dict[str, int] = {CONSTANT: 0}
        self._rows: dict[str, int] = {}
        self._spread = np.tile(np.eye(GROWTH), (1, 1, 1))
        self._weights = np.zeros((1, GROWTH))
        self.noise = GUESS
        self._wide = False
        self._cache: Cache[Features, Found] = Cache()
        self._stacks: Cache[tuple[Features, ...], _Stacked] = Cache()
        self._asked: Cache[tuple[str, ...], Indexes] = Cache()

    def snapshot(self) -> Posterior:
        """A copy that does not change."""
        copy = Posterior()
        copy._places, copy._rows = dict(self._places), dict(self._rows)
        copy._spread, copy._weights = self._spread.copy(), self._weights.copy()
        copy.noise, copy._wide = self.noise, self._wide
        return copy

    def believe(self, actions: tuple[str, ...], shared: Features, own: tuple[Features, ...]) -> Beliefs:
        """What is believed of these actions. shared: features of the context; own: of each action."""
        rows = self._rows_of(actions)
        places, values, squares, unknown = self._together(self._found(shared), self._stacked(own))
        mean = (self._weights[rows, places] * values).sum(axis=1)
        spread = self._spread[rows[:, :, None], places[:, :, None], places[:, None, :]]
        variance = (spread * squares).sum(axis=(1, 2)) + unknown
        return Beliefs(mean, np.maximum(variance, 0.0) * self.noise)

    def _together(self, shared: Found, own: _Stacked) -> tuple[Indexes, Floats, Floats, Floats | float]:
        """(actions or 1, features) places and values, products of values, and the variance of what is unknown."""
        if not own.places.size:
            return shared.places[None], shared.values[None], shared.squares[None], shared.unknown + own.unknown
        shape = (len(own.places), len(shared.places))
        places = np.concatenate([np.broadcast_to(shared.places, shape), own.places], axis=1)
        values = np.concatenate([np.broadcast_to(shared.values, shape), own.values], axis=1)
        return places, values, values[:, :, None] * values[:, None, :], shared.unknown + own.unknown

    def _stacked(self, own: tuple[Features, ...]) -> _Stacked:
        """Features of each action, padded with zeros."""
        stacked = self._stacks.get(own)
        if stacked is None:
            found = [self._found(one) for one in own]
            shape = (len(own), max(len(one.places) for one in found))
            stacked = _Stacked(np.zeros(shape, np.int64), np.zeros(shape), np.array([one.unknown for one in found]))
            for row, one in enumerate(found):
                stacked.places[row, : len(one.places)] = one.places
                stacked.values[row, : len(one.places)] = one.values
            self._stacks.put(own, stacked, floats=2 * stacked.places.size + FEATURE * sum(map(len, own)))
        return stacked

    def _found(self, features: Features) -> Found:
        """Where these features are."""
        found = self._cache.get(features)
        if found is None:
            known = [(self._places[name], value) for name, value in features if name in self._places]
            values = np.array([value for _, value in known])
            strangers = tuple([name for name, _ in features if name not in self._places])
            # Where the room is given away, to try actions out for a stranger's sake teaches nothing about it.
            new = 0.0 if self._wide else sum(1 / penalty(name) for name in strangers if not is_number(name))
            places = np.array([place for place, _ in known], np.int64)
            found = Found(places, values, values[:, None] * values, strangers, new)
            self._cache.put(features, found, floats=found.squares.size + FEATURE * len(features))
        return found

    def _rows_of(self, actions: tuple[str, ...]) -> Indexes:
        """(actions, 1)."""
        rows = self._asked.get(actions)
        if rows is None:
            rows = np.array([[self._rows.get(id_, 0)] for id_ in actions])
            self._asked.put(actions, rows, floats=FEATURE * len(actions))
        return rows
