"""What is known of every action's mean reward: a Bayesian linear regression for each, its mean and its uncertainty.

reward = weights x features + noise, weights ~ N(prior mean, noise / penalty). Features are numbered in the order in
which they first come, so any may come; which of them are known where there is no room for all is chosen by
`admission.py`. Only elementwise arithmetic and short sums: the last bits of a linear algebra library depend on its
build and its threads, and a log must replay to the same bits. Called by `thompson.py`.

Hoerl and Kennard 1970; in bandits: Li, Chu, Langford and Schapire, WWW 2010, algorithm 1 (disjoint).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decider.policy.protocol import Vocabulary
from decider.policy.thompson.admission import Admission, room
from decider.policy.thompson.arrays import Arrays, Floats, pack, unpack, worded, words
from decider.policy.thompson.features import Features, is_number, penalty
from decider.policy.thompson.posterior import GROWTH, GUESS, Posterior

EVERY = 4
"""The regression is solved anew whenever it has learned a quarter more; one that forgets, after a fifth of
its memory at the latest."""


class Regression(Posterior):
    """The regressions of all actions of an experiment, by the actions' ids.

    memory: a decision counts half as much after about 0.7 x memory more; 0 forgets nothing. Row 0 of every array is an
    action that nothing is known of.
    """

    def __init__(self, admission: Admission, memory: float = 0.0) -> None:
        super().__init__()
        self._admission = admission
        self._memory = memory
        self._patience = memory / 5 if memory else math.inf
        self._moments = np.zeros((1, GROWTH, GROWTH))
        self._targets = np.zeros((1, GROWTH))
        self._learned = self._solved = 0
        self._residual = 0.0
        self.crowded = False
        """Whether a feature of what it has learned since it was loaded is not known."""

    @property
    def full(self) -> bool:
        """Whether there is no room for one more feature."""
        return len(self._places) >= room(len(self._weights))

    @property
    def vocabulary(self) -> Vocabulary:
        """The features that it knows, and about how many it has left out."""
        return Vocabulary(len(self._places), self._admission.left_out)

    def learn(self, action: str, features: Features, reward: float) -> float:
        """One reward in [0, 1]; the logarithm of how probable it was before it was learned."""
        row = self._row(action)
        for name, _ in features:
            self._give_place(name)
        places, values, squares, strangers, _ = self._found(features)
        self._admission.see(places, strangers)
        self.crowded = self.crowded or bool(strangers)
        spread, weights = self._spread[row], self._weights[row]
        gain = (spread[places] * values[:, None]).sum(axis=0)
        scale = 1.0 + float((gain[places] * values).sum())
        surprise = reward - float((weights[places] * values).sum())
        expected = scale * self.noise
        likelihood = -0.5 * (surprise * surprise / expected + math.log(expected))
        weights += gain * (surprise / scale)
        # Sherman and Morrison 1950. The second way is symmetric to the last bit, and half of it can be stored; the
        # first one has been learning code 1's, and stays as long as there is room for all.
        root = gain / math.sqrt(scale) if self._wide else gain
        spread -= root[:, None] * (root if self._wide else gain / scale)
        self._moments[row, places[:, None], places] += squares
        self._targets[row, places] += values * reward
        self._residual += surprise * surprise / scale
        self._learned += 1
        self.noise = (self._residual + GUESS) / (self._learned + 1)
        if self._learned - self._solved >= self._due():
            self._choose()
            self._solve()
        return likelihood

    def _due(self) -> float:
        """Decisions after which it is solved anew."""
        share = max(1, self._learned // EVERY)
        return min(self._patience, share, self._admission.due(len(self._weights), len(self._places)))

    def _choose(self) -> None:
        """Which features are known from here on. The sums of those that stay are exact; new ones begin with none."""
        names, wide = list(self._places), self._wide
        chosen = self._admission.choose(names, len(self._weights))
        self._wide = self._admission.wide
        if chosen != names:
            stay = [self._places[name] for name in chosen if name in self._places]
            more = (0, _columns(len(chosen)) - len(stay))
            self._moments = np.pad(self._moments[:, stay][:, :, stay], ((0, 0), more, more))
            self._targets = np.pad(self._targets[:, stay], ((0, 0), more))
            self._places = {name: place for place, name in enumerate(chosen)}
        if chosen != names or self._wide != wide:
            self._cache.clear()
            self._stacks.clear()

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
            numbers[place], penalties[place] = is_number(name), penalty(name)
        return penalties * np.where(numbers & (square > 0), variance, 1.0)

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
        if name not in self._places and not self._wide and not self.full:
            place = self._places[name] = len(self._places)
            self._cache.clear()
            self._stacks.clear()
            if place == self._weights.shape[1]:
                self._make_room(columns=GROWTH)
            self._spread[:, place, place] = 1 / penalty(name)

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

    def saved(self) -> Arrays:
        """Everything that is known, as arrays; of unused columns nothing, of symmetric matrices half."""
        known = len(self._places)
        return {
            "words": words({"places": list(self._places), "rows": list(self._rows)}),
            "counts": np.array([self._learned, self._solved, self._residual]),
            "moments": pack(self._moments, known),
            "targets": self._targets[:, :known],
            "spread": pack(self._spread, known),
            "weights": self._weights[:, :known],
        } | self._admission.saved()

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `saved()`."""
        known = worded(saved["words"])
        self._places = {name: place for place, name in enumerate(known["places"])}
        self._rows = {name: row for row, name in enumerate(known["rows"], start=1)}
        self._learned, self._solved = int(saved["counts"][0]), int(saved["counts"][1])
        self._residual = float(saved["counts"][2])
        self.noise = (self._residual + GUESS) / (self._learned + 1)
        used, columns = len(self._places), _columns(len(self._places))
        padding = ((0, 0), (0, columns - used))
        self._moments = unpack(saved["moments"], used, np.zeros((columns, columns)))
        self._spread = unpack(saved["spread"], used, np.eye(columns))
        self._targets = np.pad(saved["targets"][:, :used], padding)
        self._weights = np.pad(saved["weights"][:, :used], padding)
        self._admission.restore(saved)
        self._wide = self._admission.wide


def _columns(known: int) -> int:
    """Of arrays that have room for so many features.

    >>> _columns(1), _columns(8), _columns(9)
    (8, 8, 16)
    """
    return -(-known // GROWTH) * GROWTH


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
    # + 0.0, so that no zero is negative: a stored model has no unused columns, and they come back as positive zeros.
    return np.asarray((swept + swept.transpose(0, 2, 1)) / 2 + 0.0)
