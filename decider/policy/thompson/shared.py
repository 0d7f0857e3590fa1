"""One regression of all actions, told apart by their ids and features. Called by `thompson.py`.

It learns beside the regressions of single actions, which learn nothing from one action about another. Its features are
those of the context, the action's id, the action's features, and products of the context's with the action's: 200
actions have far fewer of these than 200 regressions have weights.

Mixed-effect Thompson sampling: Aouali, Kveton and Katariya, AISTATS 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from decider.policy.features import Vector
from decider.policy.thompson.arrays import FEATURE, Cache, Floats, Indexes, floats_of
from decider.policy.thompson.evidence import Foretold
from decider.policy.thompson.features import CONSTANT, OF_ACTION, OF_ID, cross
from decider.policy.thompson.posterior import LinearPredictor, Posterior, Predictor, stacked
from decider.policy.thompson.prior import Prior
from decider.policy.thompson.regression import Regression

LEAST_ACTIONS = 30
"""It begins with the first call of so many actions, or once so many have been learned from."""

MOST_FACTORS = 10
"""Features of the context that have products, and features of an action that count: the first ones of each."""

MOST_FEATURES = 200
"""More cost learning more than they bring; 200 are solved in about 10 ms."""

SHARED_WORK = MOST_FEATURES**3
"""See `admission.py`: as many where there is no room for all."""


class _Columns(NamedTuple):
    """(features,) each: columns of the regression, 0 where there is none; whether there is one; the prior variance of
    the categories that have none."""

    places: Indexes
    known: Floats
    unknown: Floats


class _Actions(NamedTuple):
    """What a set of actions is told apart by.

    ids: columns of their ids. names: of their features, each once. which: (actions, most features of one action),
    indexes of names. values: the same shape; 0 where an action has fewer features.
    """

    ids: _Columns
    names: tuple[str, ...]
    which: Indexes
    values: Floats


_Key = tuple[tuple[str, ...], tuple[Vector, ...]]
"""Ids and features of a set of actions."""


class SharedPredictor(LinearPredictor):
    """Predicts the rewards of all actions from the weights of one regression."""

    def __init__(self, prior: Prior) -> None:
        super().__init__(prior)
        self._tables: Cache[_Key, _Actions] = Cache()
        self._products: Cache[tuple[str, tuple[str, ...]], _Columns] = Cache()
        self._last: tuple[_Key, _Actions] | None = None

    @property
    def size(self) -> int:
        """See `Predictor`."""
        return super().size + self._tables.size + self._products.size

    def _forget_places(self) -> None:
        """See `LinearPredictor`."""
        super()._forget_places()
        self._tables.clear()
        self._products.clear()
        self._last = None

    def snapshot(self) -> Predictor:
        """A copy that does not change."""
        return self._copy_to(SharedPredictor(self._prior.frozen()))

    def posteriors(self, actions: tuple[str, ...], shared: Sequence[Vector], own: tuple[Vector, ...]) -> Posterior:
        """See `Predictor`. The variance is that of what differs between actions: what they have in common, as the
        context's own features, has no part in which of them is the best."""
        table = self._table(actions, own)
        return stacked([self._of_context(table, one) for one in shared])

    def _of_context(self, table: _Actions, shared: Vector) -> Posterior:
        known = self._look_up(shared)
        common = float((self._weights[0][known.places] * known.values).sum())
        factors = [(CONSTANT, 1.0), *_factors(shared)]
        columns = [self._columns(name, table.names) for name, _ in factors]
        values = np.array([value for _, value in factors])[:, None] * np.stack([one.known for one in columns])
        places, unknown = np.stack([one.places for one in columns]), np.stack([one.unknown for one in columns])
        mean = self._mean(table, places, values) + common
        variance = self._variance(table, places, values)
        variance += table.ids.unknown + _of_actions(table, unknown.sum(axis=0))
        return Posterior(mean, np.maximum(variance, 0.0) * self.noise)

    def _mean(self, table: _Actions, places: Indexes, values: Floats) -> Floats:
        """(actions,). places, values: (factors, names of features), of products."""
        weights = self._weights[0]
        of_ids = weights[table.ids.places] * table.ids.known
        return np.asarray(of_ids + _of_actions(table, (weights[places] * values).sum(axis=0)))

    def _variance(self, table: _Actions, places: Indexes, values: Floats) -> Floats:
        """(actions,): features x covariance x features; that of each two of the actions' features is computed once."""
        covariance, ids, which = self._covariance[0], table.ids, table.which
        # (actions, factors, features of an action): with the id, whose own variance comes first.
        beside = covariance[ids.places[:, None, None], places.T[which].transpose(0, 2, 1)]
        beside *= values.T[which].transpose(0, 2, 1) * table.values[:, None, :]
        found = ids.known * (covariance[ids.places, ids.places] + 2.0 * beside.sum(axis=(1, 2)))
        both, group = self._between(places, values)
        which = group[which]
        both = both[which[:, :, None], which[:, None, :]]
        both *= table.values[:, :, None] * table.values[:, None, :]
        return np.asarray(found + both.sum(axis=(1, 2)))

    def _between(self, places: Indexes, values: Floats) -> tuple[Floats, Indexes]:
        """Covariances of what each two features of actions do in a context, of those that are known, then a row and a
        column of zeros; and for each feature its row."""
        names = np.broadcast_to(np.arange(places.shape[1])[:, None], places.T.shape)[values.T != 0]
        columns, known = places.T[values.T != 0], values.T[values.T != 0]
        first = np.flatnonzero(np.diff(names, prepend=-1))
        group = np.full(places.shape[1], len(first))
        if not len(first):
            return np.zeros((1, 1)), group
        group[names[first]] = np.arange(len(first))
        cells = self._covariance[0][columns[:, None], columns] * (known[:, None] * known)
        both = np.add.reduceat(np.add.reduceat(cells, first, axis=0), first, axis=1)
        return np.pad(both, (0, 1)), group

    def _table(self, actions: tuple[str, ...], own: tuple[Vector, ...]) -> _Actions:
        # The same objects as before in most calls: an `is` is cheaper than hashing all features for a cache.
        last = self._last
        if last is None or last[0][0] is not actions or last[0][1] is not own:
            key = (actions, own)
            last = self._last = key, self._find_table(key)
        return last[1]

    def _find_table(self, key: _Key) -> _Actions:
        table = self._tables.get(key)
        if table is None:
            table = self._make_table(*key)
            if self._recurring(key):
                self._tables.put(key, table, floats=2 * table.which.size + sum(map(floats_of, key[1])))
        return table

    def _make_table(self, actions: tuple[str, ...], own: tuple[Vector, ...]) -> _Actions:
        first = [one[:MOST_FACTORS] for one in own]
        numbers = {
            name: number for number, name in enumerate(dict.fromkeys([n for n, _ in chain.from_iterable(first)]))
        }
        size = max(map(len, first))
        which = [[numbers[name] for name, _ in one] + [0] * (size - len(one)) for one in first]
        values = [[value for _, value in one] + [0.0] * (size - len(one)) for one in first]
        shape = (len(own), size)
        return _Actions(
            self._find_columns([OF_ID + id_ for id_ in actions]),
            tuple(numbers),
            np.array(which, np.int64).reshape(shape),
            np.array(values, float).reshape(shape),
        )

    def _columns(self, factor: str, names: tuple[str, ...]) -> _Columns:
        """Of the products of a feature of the context with features of actions; of these alone for the constant."""
        key = (factor, names)
        found = self._products.get(key)
        if found is None:
            found = self._find_columns(names if factor == CONSTANT else [cross(factor, name) for name in names])
            self._products.put(key, found, floats=(FEATURE + 3) * len(names))
        return found

    def _find_columns(self, names: Sequence[str]) -> _Columns:
        places = [self._places.get(name, -1) for name in names]
        known = np.array([place >= 0 for place in places], float)
        unknown = [
            0.0 if place >= 0 else self._unknown_variance((name,)) for name, place in zip(names, places, strict=True)
        ]
        return _Columns(np.maximum(np.array(places, np.int64), 0), known, np.array(unknown, float))


def _of_actions(table: _Actions, of_names: Floats) -> Floats:
    """(actions,): sums over each one's features."""
    if not len(of_names):
        return np.zeros(len(table.which))
    return np.asarray((of_names[table.which] * table.values).sum(axis=1))


class SharedRegression(Regression, SharedPredictor):
    """Learns from all actions."""

    def learn(self, action: str, features: Vector, reward: float) -> Foretold:
        """See `Regression`."""
        return super().learn(action, with_products(action, features), reward)

    @property
    def full(self) -> bool:
        """See `Regression`."""
        return len(self._places) >= MOST_FEATURES

    def _row(self, action: str) -> int:  # noqa: ARG002 - of `Regression`
        """The same for all."""
        return 0


def with_products(action: str, features: Vector) -> Vector:
    """The features, the action's id, and the products of features of the context and of the action.

    >>> with_products("id=a", (("constant", 1.0), ("device=mobile", 1.0), ("A price:", 2.0)))[3:]
    (('I id=a', 1.0), ('CA device=mobile price:', 2.0))
    """
    own = [one for one in features if one[0].startswith(OF_ACTION)][:MOST_FACTORS]
    of_context = [one for one in features if not one[0].startswith(OF_ACTION)]
    products = [(cross(one, name), value * size) for one, value in _factors(features) for name, size in own]
    return (*of_context, *own, (OF_ID + action, 1.0), *products)


def _factors(features: Vector) -> list[tuple[str, float]]:
    """Features of the context that have products."""
    return [one for one in features if one[0] != CONSTANT and not one[0].startswith(OF_ACTION)][:MOST_FACTORS]
