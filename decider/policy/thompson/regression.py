"""What is known of every action's mean reward: a Bayesian linear regression for each, its mean and its uncertainty.

reward = weights x features + noise, weights ~ N(prior mean, noise / penalty). Features are numbered in the order in
which they first come, so any may come. Only elementwise arithmetic and short sums: the last bits of a linear algebra
library depend on its build and its threads, and a log must replay to the same bits. Called by `thompson.py`.

Hoerl and Kennard 1970; in bandits: Li, Chu, Langford and Schapire, WWW 2010, algorithm 1 (disjoint).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indexes = NDArray[np.int64]
Features = tuple[tuple[str, float], ...]
"""Name and value of each; a category is a name like `device=mobile` with value 1, a number ends in `:`."""

CELLS = 250_000
"""Actions x features x features at most (2 MB an array): 150 features for 10 actions, 50 for 100. What is new then is
left out."""

GROWTH = 8
"""Features for which room is made at a time."""

EVERY = 4
"""The regression is solved anew whenever it has learned a quarter more; one that forgets, after a fifth of
its memory at the latest."""

CACHE = 2_000
"""Sets of features, and of actions, whose places are kept."""

CONSTANT = "constant"
OF_ACTION, PAIR = "A ", "CC "
"""What names of features begin with that belong to the action, or are products of two. Other names have no spaces."""

PAIR_PENALTY = 30.0
"""Of a product, where its two features have 1 each: most pairs say little that the two do not say already."""

GUESS = 0.25
"""Variance of the noise before anything is seen, as if it had been seen once; rewards are in [0, 1]."""


class Beliefs(NamedTuple):
    """Of each action: the expected reward in [0, 1], and the variance of that expectation."""

    mean: Floats
    variance: Floats


class _Found(NamedTuple):
    """The known ones among some features: where they are, their values, and the products of each two values."""

    places: Indexes
    values: Floats
    squares: Floats
    unknown: float


class _Stacked(NamedTuple):
    """(actions, most features) the same of each action, padded with zeros."""

    places: Indexes
    values: Floats
    unknown: Floats


class Regression:
    """The regressions of all actions of an experiment, by the actions' ids.

    memory: a decision counts half as much after about 0.7 x memory more; 0 forgets nothing. Row 0 of every array is an
    action that nothing is known of.
    """

    def __init__(self, memory: float = 0.0) -> None:
        self._memory = memory
        self._patience = memory / 5 if memory else math.inf
        self._places: dict[str, int] = {CONSTANT: 0}
        self._rows: dict[str, int] = {}
        self._moments = np.zeros((1, GROWTH, GROWTH))
        self._targets = np.zeros((1, GROWTH))
        self._spread = np.tile(np.eye(GROWTH), (1, 1, 1))
        self._weights = np.zeros((1, GROWTH))
        self._learned = self._solved = 0
        self._residual = 0.0
        self._cache: dict[Features, _Found] = {}
        self._stacks: dict[tuple[Features, ...], _Stacked] = {}
        self._asked: dict[tuple[str, ...], Indexes] = {}

    @property
    def noise(self) -> float:
        """Variance of a reward around what was expected of it."""
        return (self._residual + GUESS) / (self._learned + 1)

    @property
    def full(self) -> bool:
        """Whether there is no room for one more feature."""
        return len(self._weights) * (len(self._places) + 1) ** 2 > CELLS

    def believe(self, actions: tuple[str, ...], shared: Features, own: tuple[Features, ...]) -> Beliefs:
        """What is believed of these actions. shared: features of the context; own: of each action."""
        rows = self._rows_of(actions)
        places, values, squares, unknown = self._together(self._found(shared), self._stacked(own))
        mean = (self._weights[rows, places] * values).sum(axis=1)
        spread = self._spread[rows[:, :, None], places[:, :, None], places[:, None, :]]
        variance = (spread * squares).sum(axis=(1, 2)) + unknown
        return Beliefs(mean, np.maximum(variance, 0.0) * self.noise)

    def learn(self, action: str, features: Features, reward: float) -> float:
        """One reward in [0, 1]; the logarithm of how probable it was before it was learned."""
        row = self._row(action)
        for name, _ in features:
            self._give_place(name)
        places, values, squares, _ = self._found(features)
        spread, weights = self._spread[row], self._weights[row]
        gain = (spread[places] * values[:, None]).sum(axis=0)
        scale = 1.0 + float((gain[places] * values).sum())
        surprise = reward - float((weights[places] * values).sum())
        expected = scale * self.noise
        likelihood = -0.5 * (surprise * surprise / expected + math.log(expected))
        weights += gain * (surprise / scale)
        spread -= gain[:, None] * (gain / scale)
        self._moments[row, places[:, None], places] += squares
        self._targets[row, places] += values * reward
        self._residual += surprise * surprise / scale
        self._learned += 1
        if self._learned - self._solved >= min(self._patience, max(1, self._learned // EVERY)):
            self._solve()
        return likelihood

    def _solve(self) -> None:
        """From the sums, with penalties that fit the scale of each number, around the mean reward; and forget."""
        if self._memory:
            kept = max(0.0, 1.0 - (self._learned - self._solved) / self._memory)
            self._moments *= kept
            self._targets *= kept
        total = self._moments.sum(axis=0)
        count = max(float(total[0, 0]), 1e-9)
        centre = float(self._targets[:, 0].sum()) / count
        root = np.sqrt(self._penalties(total, count))
        scaled = self._moments / (root[:, None] * root) + np.eye(len(root))
        self._spread = inverse(scaled) / (root[:, None] * root)
        rest = self._targets - self._moments[:, :, 0] * centre
        self._weights = (self._spread * rest[:, None, :]).sum(axis=2)
        self._weights[:, 0] += centre
        self._solved = self._learned

    def _penalties(self, total: Floats, count: float) -> Floats:
        """Of each feature; times the variance of numbers, so that their unit makes no difference."""
        square = np.diagonal(total) / count
        variance = np.maximum(square - (total[0] / count) ** 2, np.maximum(square * 1e-4, 1e-9))
        numbers, penalties = np.zeros(len(square), np.bool_), np.ones(len(square))
        for name, place in self._places.items():
            numbers[place], penalties[place] = is_number(name), _penalty(name)
        return penalties * np.where(numbers & (square > 0), variance, 1.0)

    def _together(self, shared: _Found, own: _Stacked) -> tuple[Indexes, Floats, Floats, Floats | float]:
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
            if len(self._stacks) >= CACHE:
                self._stacks.clear()
            found = [self._found(one) for one in own]
            shape = (len(own), max(len(one.places) for one in found))
            stacked = _Stacked(np.zeros(shape, np.int64), np.zeros(shape), np.array([one.unknown for one in found]))
            for row, one in enumerate(found):
                stacked.places[row, : len(one.places)] = one.places
                stacked.values[row, : len(one.places)] = one.values
            self._stacks[own] = stacked
        return stacked

    def _found(self, features: Features) -> _Found:
        """Where these features are; unknown: the variance of the categories that are new, or for which was no room."""
        found = self._cache.get(features)
        if found is None:
            if len(self._cache) >= CACHE:
                self._cache.clear()
            known = [(self._places[name], value) for name, value in features if name in self._places]
            values = np.array([value for _, value in known])
            new = sum(1 / _penalty(name) for name, _ in features if name not in self._places and not is_number(name))
            places = np.array([place for place, _ in known], np.int64)
            found = self._cache[features] = _Found(places, values, values[:, None] * values, new)
        return found

    def _rows_of(self, actions: tuple[str, ...]) -> Indexes:
        """(actions, 1)."""
        rows = self._asked.get(actions)
        if rows is None:
            if len(self._asked) >= CACHE:
                self._asked.clear()
            rows = self._asked[actions] = np.array([[self._rows.get(id_, 0)] for id_ in actions])
        return rows

    def _row(self, action: str) -> int:
        """An action's row; a new one begins where nothing is known."""
        row = self._rows.get(action)
        if row is None:
            row = self._rows[action] = len(self._rows) + 1
            self._asked.clear()
            if row == len(self._weights):
                self._make_room(rows=1)
        return row

    def _give_place(self, name: str) -> None:
        """A column for a new feature, where there is room."""
        if name not in self._places and not self.full:
            place = self._places[name] = len(self._places)
            self._cache.clear()
            self._stacks.clear()
            if place == self._weights.shape[1]:
                self._make_room(columns=GROWTH)
            self._spread[:, place, place] = 1 / _penalty(name)

    def _make_room(self, *, rows: int = 0, columns: int = 0) -> None:
        """New rows are like row 0; in new columns nothing is known."""
        more, wider = (0, rows), (0, columns)
        self._moments = np.pad(self._moments, (more, wider, wider))
        self._targets = np.pad(self._targets, (more, wider))
        weights = np.pad(self._weights, ((0, 0), wider))
        self._weights = np.concatenate([weights, np.tile(weights[0], (rows, 1))])
        spread = np.pad(self._spread, ((0, 0), wider, wider))
        new = np.arange(spread.shape[1] - columns, spread.shape[1])
        spread[:, new, new] = 1.0
        self._spread = np.concatenate([spread, np.tile(spread[0], (rows, 1, 1))])

    def saved(self) -> dict[str, NDArray[Any]]:
        """Everything that is known, as arrays."""
        return {
            "words": words({"places": list(self._places), "rows": list(self._rows)}),
            "counts": np.array([self._learned, self._solved, self._residual]),
            "moments": self._moments,
            "targets": self._targets,
            "spread": self._spread,
            "weights": self._weights,
        }

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `saved()`."""
        known = worded(saved["words"])
        self._places = {name: place for place, name in enumerate(known["places"])}
        self._rows = {name: row for row, name in enumerate(known["rows"], start=1)}
        self._learned, self._solved = int(saved["counts"][0]), int(saved["counts"][1])
        self._residual = float(saved["counts"][2])
        self._moments, self._targets = saved["moments"], saved["targets"]
        self._spread, self._weights = saved["spread"], saved["weights"]


def _penalty(name: str) -> float:
    return PAIR_PENALTY if name.startswith(PAIR) else 1.0


def is_number(name: str) -> bool:
    """Whether a feature of this name is a number and no category.

    >>> is_number("age:"), is_number("device=mobile")
    (True, False)
    """
    return name.endswith(":")


def words(known: Any) -> NDArray[np.uint8]:
    """What is no array, as one.

    >>> worded(words({"places": ["constant"]}))
    {'places': ['constant']}
    """
    return np.frombuffer(json.dumps(known).encode(), np.uint8)


def worded(array: NDArray[Any]) -> Any:
    """What `words` was given.

    >>> worded(words([0.5]))
    [0.5]
    """
    return json.loads(array.tobytes())


def inverse(matrices: Floats) -> Floats:
    """(n, d, d): of symmetric positive definite matrices, by the sweep operator. Goodnight 1979.

    >>> inverse(np.array([[[2.0, 1.0], [1.0, 1.0]]])).tolist()
    [[[1.0, -1.0], [-1.0, 2.0]]]
    """
    swept = matrices.copy()
    for k in range(swept.shape[1]):
        pivot = swept[:, k, k].copy()
        row = swept[:, k, :] / pivot[:, None]
        column = swept[:, :, k].copy()
        swept -= column[:, :, None] * row[:, None, :]
        swept[:, k, :] = row
        swept[:, :, k] = -column / pivot[:, None]
        swept[:, k, k] = 1.0 / pivot
    return np.asarray((swept + swept.transpose(0, 2, 1)) / 2)
