"""A Bayesian linear regression (ridge regression) of the reward for each action. Called by `thompson.py`.

reward = weights x features + noise, weights ~ N(prior mean, noise / penalty). Features are numbered in the order in
which they first come; where there is no room for all, `admission.py` chooses. Only elementwise arithmetic and short
sums: the last bits of a linear algebra library depend on its build and its threads, and a log must replay to the same
bits.

Hoerl and Kennard 1970; in bandits: Li, Chu, Langford and Schapire, WWW 2010, algorithm 1 (disjoint).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decider.policy.features import Vector
from decider.policy.protocol import Vocabulary
from decider.policy.thompson.admission import Admission, room
from decider.policy.thompson.arrays import Arrays, Floats, json_from_array, json_to_array, pack, unpack
from decider.policy.thompson.evidence import Foretold
from decider.policy.thompson.posterior import GROWTH, LinearPredictor
from decider.policy.thompson.prior import Fitted
from decider.policy.thompson.rules import Rules

RESOLVE_AFTER_SHARE = 4
"""The regression is solved anew whenever its data has grown by a quarter; the discounted one at least five times per
`memory`."""

LEAST_PIVOT = 0.5
"""Of a solution, and of a prediction's variance in units of the noise's. Both are 1 at least: where rounding made them
less than this, no digit is right, and the next result would be no number."""

COUNTS_BYTES = 700_000
"""Of the counts of an admission, at most: about 2,500 names (`counts.py`) in a dict."""


class Regression(LinearPredictor):
    """The regressions of all actions of an experiment, by the actions' ids.

    memory: a decision has half its weight after about 0.7 x memory further ones; 0: decisions are not discounted. Row 0
    of every array is the prior, for actions without data.
    """

    def __init__(self, admission: Admission, rules: Rules, memory: float = 0.0) -> None:
        super().__init__(rules.prior())
        self._noise = rules.noise()
        self._admission = admission
        self._memory = memory
        self._patience = memory / 5 if memory else math.inf
        self._moments = np.zeros((1, GROWTH, GROWTH))
        self._targets = np.zeros((1, GROWTH))
        self._prior.widen(GROWTH - 1)
        self._learned = self._solved_at = 0
        self.crowded = False
        """Whether a learned decision had an unknown feature, since this was made or loaded."""

    @property
    def size(self) -> int:
        """See `Predictor`."""
        return super().size + self._moments.nbytes + self._targets.nbytes + COUNTS_BYTES

    @property
    def actions(self) -> int:
        """How many actions have been learned from."""
        return len(self._rows)

    @property
    def prior_penalty(self) -> float:
        """Of a weight, before there are data."""
        return self._prior.base

    @property
    def full(self) -> bool:
        """Whether there is no room for one more feature."""
        return len(self._places) >= room(len(self._weights))

    @property
    def vocabulary(self) -> Vocabulary:
        """Numbers of known features and, estimated, of those left out."""
        return Vocabulary(len(self._places), self._admission.left_out)

    def learn(self, action: str, features: Vector, reward: float) -> Foretold:
        """Learn one reward, in [0, 1]."""
        row = self._row(action)
        for name, _ in features:
            self._give_place(name)
        places, values, squares, strangers, _ = self._look_up(features)
        self._admission.see(places, strangers)
        self.crowded = self.crowded or bool(strangers)
        # A rank-one update instead of a solution: with x the features and S the covariance, gain = S x, and the reward
        # was predicted as N(weights x, noise (1 + x S x)). `weights` and `covariance` are views, changed in place.
        covariance, weights = self._covariance[row], self._weights[row]
        gain = (covariance[places] * values[:, None]).sum(axis=0)
        scale = max(1.0 + float((gain[places] * values).sum()), LEAST_PIVOT)
        residual = reward - float((weights[places] * values).sum())
        foretold = Foretold(row, residual, scale, self._noise.judged)
        weights += gain * (residual / scale)
        # S - gain gain' / scale: Sherman and Morrison 1950. With root root' it is symmetric to the last bit, so half of
        # it can be stored. Learning code 1 divides one factor only; so do the others while there is room for all.
        root = gain / math.sqrt(scale) if self._wide else gain
        covariance -= root[:, None] * (root if self._wide else gain / scale)
        # Sums from which `_solve` begins again: the penalties change with the data, which no rank-one update can undo.
        self._moments[row, places[:, None], places] += squares
        self._targets[row, places] += values * reward
        self._prior.see(places, values, reward)
        self._noise.add(residual, scale)
        self._learned += 1
        self.noise = self._noise.value
        if self._learned - self._solved_at >= self._due():
            self._choose()
            self._solve()
        return foretold

    def _due(self) -> float:
        """Decisions between two solutions: a share of all, so that solving costs little per decision."""
        share = max(1, self._learned // RESOLVE_AFTER_SHARE)
        return min(self._patience, share, self._admission.due(len(self._weights), len(self._places)))

    def _choose(self) -> None:
        """Choose the known features anew. Sums of those that stay are kept; new features begin with empty sums."""
        names, wide = list(self._places), self._wide
        chosen = self._admission.choose(names, len(self._weights))
        self._wide = self._admission.wide
        if chosen != names:
            stay = [self._places[name] for name in chosen if name in self._places]
            more = (0, _columns(len(chosen)) - len(stay))
            self._moments = np.pad(self._moments[:, stay][:, :, stay], ((0, 0), more, more))
            self._targets = np.pad(self._targets[:, stay], ((0, 0), more))
            self._weights = np.pad(self._weights[:, stay], ((0, 0), more))
            self._covariance = np.pad(self._covariance[:, stay][:, :, stay], ((0, 0), more, more))
            self._prior.choose(stay, _columns(len(chosen)))
            self._places = {name: place for place, name in enumerate(chosen)}
        if chosen != names or self._wide != wide:
            self._forget_places()

    def _solve(self) -> None:
        """Discount the sums, then solve for weights and covariance; the constant's prior mean is the mean reward."""
        if self._memory:
            self._discount(max(0.0, 1.0 - (self._learned - self._solved_at) / self._memory))
        total = self._moments.sum(axis=0)  # feature 0 is the constant 1: row 0 holds sums of features, [0, 0] the count
        count = max(float(total[0, 0]), 1e-9)
        centre = float(self._targets[:, 0].sum()) / count
        # (moments + diag(penalties))^-1, in units in which every penalty is 1: no pivot of the sweep is then below 1.
        root = np.sqrt(self._prior.penalties(self._fitted(total, centre)))
        scaled = self._moments / (root[:, None] * root) + np.eye(len(root))
        self._covariance = inverse(scaled) / (root[:, None] * root)
        deviations = self._targets - self._moments[:, :, 0] * centre
        self._weights = (self._covariance * deviations[:, None, :]).sum(axis=2)
        self._weights[:, 0] += centre
        self._solved_at = self._learned
        self._forget_places()

    def _discount(self, factor: float) -> None:
        self._moments *= factor
        self._targets *= factor
        self._noise.discount(factor)
        self._prior.discount(factor)
        self.noise = self._noise.value

    def _fitted(self, total: Floats, centre: float) -> Fitted:
        """What was known until now, for the prior."""
        data = self._moments[:, 0, 0] > 0
        deviations = self._weights[data]
        deviations[:, 0] -= centre
        variances = np.diagonal(self._covariance, axis1=1, axis2=2)[data]
        return Fitted(list(self._places), total, deviations, variances, self.noise)

    def _row(self, action: str) -> int:
        """An action's row; that of a new action begins as the prior."""
        row = self._rows.get(action)
        if row is None:
            row = self._rows[action] = len(self._rows) + 1
            self._row_numbers.clear()
            if row == len(self._weights):
                self._make_room(rows=1)
        return row

    def _give_place(self, name: str) -> None:
        """Give a new feature a column, where there is room."""
        if name not in self._places and not self._wide and not self.full:
            place = self._places[name] = len(self._places)
            self._forget_places()
            if place == self._weights.shape[1]:
                self._make_room(columns=GROWTH)
            self._covariance[:, place, place] = self._prior.variance_of(name)

    def _make_room(self, *, rows: int = 0, columns: int = 0) -> None:
        """New rows are copies of row 0; new columns are the prior."""
        more, wider = (0, rows), (0, columns)
        self._moments = np.pad(self._moments, (more, wider, wider))
        self._targets = np.pad(self._targets, (more, wider))
        weights = np.pad(self._weights, ((0, 0), wider))
        self._weights = np.concatenate([weights, np.tile(weights[0], (rows, 1))])
        self._prior.widen(columns)
        covariance = np.pad(self._covariance, ((0, 0), wider, wider))
        new = np.arange(covariance.shape[1] - columns, covariance.shape[1])
        covariance[:, new, new] = 1.0
        self._covariance = np.concatenate([covariance, np.tile(covariance[0], (rows, 1, 1))])

    def to_arrays(self) -> Arrays:
        """The whole state, without unused columns; of symmetric matrices half."""
        known = len(self._places)
        return {
            "words": json_to_array({"places": list(self._places), "rows": list(self._rows)}),
            "counts": np.array([self._learned, self._solved_at, *self._noise.to_list()]),
            "moments": pack(self._moments, known),
            "targets": self._targets[:, :known],
            "spread": pack(self._covariance, known),
            "weights": self._weights[:, :known],
            # The order of a sum over rows depends on the layout, which a choice of features changes.
            **({"fortran": np.array([1])} if self._moments.flags.fnc else {}),
            **self._prior.to_arrays(),
            **self._admission.to_arrays(),
        }

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `to_arrays()`."""
        names = json_from_array(saved["words"])
        self._places = {name: place for place, name in enumerate(names["places"])}
        self._rows = {name: row for row, name in enumerate(names["rows"], start=1)}
        self._learned, self._solved_at = int(saved["counts"][0]), int(saved["counts"][1])
        self._noise.restore(saved["counts"][2:].tolist(), self._learned)
        self.noise = self._noise.value
        used, columns = len(self._places), _columns(len(self._places))
        padding = ((0, 0), (0, columns - used))
        moments = unpack(saved["moments"], used, np.zeros((columns, columns)))
        self._moments = np.asfortranarray(moments) if "fortran" in saved else moments
        self._covariance = unpack(saved["spread"], used, np.eye(columns))
        self._targets = np.pad(saved["targets"][:, :used], padding)
        self._weights = np.pad(saved["weights"][:, :used], padding)
        self._prior.restore(saved, columns)
        self._admission.restore(saved)
        self._wide = self._admission.wide


def _columns(known: int) -> int:
    """The number of columns for so many features: the next multiple of GROWTH.

    >>> _columns(1), _columns(8), _columns(9)
    (8, 8, 16)
    """
    return -(-known // GROWTH) * GROWTH


def inverse(matrices: Floats) -> Floats:
    """(n, d, d): inverses of symmetric positive definite matrices, by the sweep operator (Goodnight 1979). No pivot is
    taken to be below LEAST_PIVOT.

    >>> inverse(np.array([[[2.0, 1.0], [1.0, 1.0]]])).tolist()
    [[[1.0, -1.0], [-1.0, 2.0]]]
    """
    # No pivots are sought: a positive definite matrix can be swept in any order. All n matrices at once, since a loop
    # over them in Python would take most of the time.
    swept = matrices.copy()
    for k in range(swept.shape[1]):
        pivot = np.maximum(swept[:, k, k], LEAST_PIVOT)
        row = swept[:, k, :] / pivot[:, None]
        column = swept[:, :, k].copy()
        swept -= column[:, :, None] * row[:, None, :]
        swept[:, k, :] = row
        swept[:, :, k] = -column / pivot[:, None]
        swept[:, k, k] = 1.0 / pivot
    # The mean with the transpose removes the rounding that is not symmetric, so that half can be stored. + 0.0 makes
    # negative zeros positive: unused columns are not stored, and come back as positive zeros.
    return np.asarray((swept + swept.transpose(0, 2, 1)) / 2 + 0.0)
