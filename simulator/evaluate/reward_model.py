"""A reward model q(context, action) for the direct and the doubly robust estimates, cross-fitted. Called by `run.py`.

Ridge regression on what the context says, one shared for all actions and a correction for each action, both from
second moments that NumPy counts over the columns: no loop over decisions. Units are dealt into folds; a
decision is scored by the model of the other folds, so that none is scored by a model that learned from its unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.logs.columns import Category, Codes, Columns, Field, Floats, Longs

FOLDS = 5
MOST_LEVELS = 50
"""Values of a field that count on their own, the most frequent ones; the others share one."""

BINS = 10
"""A number becomes one of so many quantile bins."""

MOST_MOMENTS = 20_000_000
"""Numbers that the second moments take at most; fewer levels of each field are kept where they would take more."""

LEAST_RIDGE, MOST_RIDGE = 1e-3, 1e6
"""Bounds of the ridge penalty: so many decisions shrink an effect by half."""


@dataclass(frozen=True, slots=True)
class Levels:
    """A field as small codes: level[code] of a category, or bins of a number; the last level is for what is missing."""

    name: str
    level: Codes
    edges: Floats
    count: int

    def codes(self, field: Field) -> Longs:
        """(n,) in [0, count)."""
        if isinstance(field, Category):
            return self.level[field.codes].astype(np.int64)
        codes = np.searchsorted(self.edges, field.values)
        return np.where(np.isnan(field.values), self.count - 1, codes).astype(np.int64)


class RewardModel:
    """Fitted to a log at once; `predict` scores its decisions, each by the folds it is not in."""

    def __init__(self, columns: Columns, *, folds: int = FOLDS) -> None:
        self._folds = folds
        most = _levels_that_fit(len(columns.fields), len(columns.actions), folds)
        self._levels = [levels_of(name, field, most) for name, field in columns.fields.items()]
        self._starts = np.cumsum([1, *[levels.count for levels in self._levels]])
        self._low, self._high = columns.reward_range
        gram, moment = self._moments(columns)
        squares = np.bincount(self.fold(columns), weights=columns.reward**2, minlength=folds)
        # (folds, size, actions): what the other folds say
        self._weights = np.stack(
            [
                _solve(gram.sum(axis=0) - gram[fold], moment.sum(axis=0) - moment[fold], squares.sum() - squares[fold])
                for fold in range(folds)
            ]
        )

    def fold(self, columns: Columns) -> Longs:
        """(n,) in [0, folds): the same for all decisions of a person; independent of the order of the units."""
        return fold_of(columns, self._folds)

    def predict(self, block: Columns) -> Floats:
        """(n, actions): the mean reward of each action, within the range of rewards."""
        return self._score(block, self._weights, self.fold(block))

    def predict_new(self, block: Columns) -> Floats:
        """(n, actions): the same by the mean of all folds' models, so that equal contexts have equal rewards."""
        return self._score(block, self._weights.mean(axis=0, keepdims=True), np.zeros(len(block), np.int64))

    def _score(self, block: Columns, weights: Floats, fold: Longs) -> Floats:
        scores: Floats = weights[fold, 0]
        for levels, start in zip(self._levels, self._starts, strict=False):
            scores += weights[fold, start + levels.codes(block.fields[levels.name])]
        np.clip(scores, self._low, self._high, out=scores)
        return scores

    def _moments(self, columns: Columns) -> tuple[Floats, Floats]:
        """Of the one-hot features x: sums of x x' and of x reward, by fold and action."""
        size, actions = int(self._starts[-1]), len(columns.actions)
        group = self.fold(columns) * actions + columns.action
        groups = self._folds * actions
        codes = [np.zeros(len(columns), np.int64)]
        codes += [levels.codes(columns.fields[levels.name]) for levels in self._levels]
        counts = [1, *[levels.count for levels in self._levels]]
        starts = [0, *self._starts[:-1].tolist()]
        gram, moment = np.zeros((groups, size, size)), np.zeros((groups, size))
        for one, (code, count, start) in enumerate(zip(codes, counts, starts, strict=True)):
            at = group * count + code
            moment[:, start : start + count] = _count(at, groups * count, columns.reward).reshape(groups, count)
            for other in range(one, len(codes)):
                wide, place = counts[other], starts[other]
                pair = _count(at * wide + codes[other], groups * count * wide).reshape(groups, count, wide)
                gram[:, start : start + count, place : place + wide] = pair
                gram[:, place : place + wide, start : start + count] = pair.transpose(0, 2, 1)
        return gram.reshape(self._folds, actions, size, size), moment.reshape(self._folds, actions, size)


def fold_of(columns: Columns, folds: int) -> Longs:
    """(n,) in [0, folds): the same for all decisions of a person; independent of the order of the units.

    >>> from simulator.logs.example import example
    >>> bool((fold_of(example(), 5) < 5).all())
    True
    """
    mixed = columns.cluster.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed >> np.uint64(32)) % np.uint64(folds)).astype(np.int64)


def _count(index: Longs, length: int, weights: Floats | None = None) -> Floats:
    return np.bincount(index, weights=weights, minlength=length).astype(np.float64)


def _levels_that_fit(fields: int, actions: int, folds: int) -> int:
    """How many levels a field may have so that the moments stay small."""
    size = (MOST_MOMENTS / max(1, folds * actions)) ** 0.5
    return int(min(MOST_LEVELS, max(2, (size - 1) / max(1, fields))))


def levels_of(name: str, field: Field, most: int) -> Levels:
    """At most `most` levels: the most frequent values, or quantile bins; the last one is for all others.

    >>> levels_of("device", Category.of(["web", "app", "web"]), 50).count
    3
    """
    if isinstance(field, Category):
        counts = np.bincount(field.codes[field.codes >= 0], minlength=len(field.values))
        order = np.argsort(-counts, kind="stable")
        level = np.empty(len(field.values) + 1, np.int32)
        level[order] = np.minimum(np.arange(len(order)), most - 2)
        count = min(len(order), most - 1) + 1
        level[-1] = count - 1
        return Levels(name, level, np.zeros(0), count)
    known = field.values[~np.isnan(field.values)]
    inner = np.linspace(0, 1, min(BINS, most - 1) + 1)[1:-1]
    edges = np.unique(np.quantile(known, inner)) if len(known) else np.zeros(0)
    return Levels(name, np.zeros(0, np.int32), edges, len(edges) + 2)


def _solve(gram: Floats, moment: Floats, squares: float) -> Floats:
    """(size, actions): shared ridge weights plus each action's own, which explain what the shared ones leave.

    squares: sum of the squared rewards.
    """
    size = gram.shape[-1]
    all_gram, all_moment = gram.sum(axis=0), moment.sum(axis=0)
    count = max(1.0, float(all_gram[0, 0]))
    mean = float(all_moment[0]) / count
    noise = max(squares / count - mean**2, 0.0)
    around = all_moment - mean * np.diagonal(all_gram)
    penalty = np.full(size, ridge_of(around[1:], np.diagonal(all_gram)[1:], noise))
    penalty[0] = 1e-9  # the intercept is free, but the system must be solvable
    shared = np.linalg.solve(all_gram + np.diag(penalty), all_moment)
    left = moment - gram @ shared
    ridge = ridge_of(left, np.diagonal(gram, axis1=1, axis2=2), noise)
    own = np.linalg.solve(gram + np.eye(size) * ridge, left[:, :, None])[:, :, 0]
    return np.asarray(shared[:, None] + own.T)


def ridge_of(sums: Floats, counts: Floats, noise: float) -> float:
    """Ridge penalty of effects with noisy sums: noise / variance of the effects, which is estimated by moments.

    Empirical Bayes: the variance of the effects is the scatter of the sums beyond that of noise alone
    (Morris, JASA 1983, section 1; the ANOVA estimator). At clicks of 0.4 % that is far more than at 40 %.
    """
    some = counts > 0
    excess = float((sums[some] ** 2 / counts[some]).sum()) - noise * int(some.sum())
    variance = excess / max(1.0, float(counts[some].sum()))
    return min(max(noise / variance, LEAST_RIDGE), MOST_RIDGE) if variance > 0 else MOST_RIDGE
