"""A context and actions -> their features -> the posterior of every action's expected reward.

The posterior comes from the weights of a regression and their covariance, which `regression.py` learns; a copy of them
serves. Called by `pmf.py`; `thompson.py` learns from the same features.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import NamedTuple, Protocol

import numpy as np

from decider.policy.features import CACHED_CHARACTERS, Vector, category, fields_vector, vector_of
from decider.policy.protocol import Choice
from decider.policy.thompson.arrays import FEATURE, Cache, Floats, Indexes, floats_of
from decider.policy.thompson.features import CONSTANT, OF_ACTION, is_number
from decider.policy.thompson.prior import Prior
from decider.policy.thompson.recurring import Recurring
from decider.types import ActionId, Context

NAME_CACHE = 10_000
"""Most sets of context fields whose features are cached."""

GROWTH = 8
"""Columns that are added to the arrays at a time."""

BLOCK = 100_000
"""Cells of covariances that are read at a time, unless one action alone has more: 0.8 MB an array, in the processor's
cache. A context may have hundreds of known features, and an experiment 1,000 actions."""

AT_ONCE = 16_000
"""Cells that are read at a time for several contexts: the system gives larger arrays new memory each time, which costs
more than a call of NumPy."""

LEAST_ROWS = 2
"""Of a block, where there are as many: NumPy adds one row alone in another order."""

NAME_BYTES = 300
"""Of the name of an action or feature in a dict."""

GUESS = 0.25
"""Prior guess of the noise's variance; it counts as one observation. Rewards are in [0, 1]."""


# The features by which the regressions know contexts and actions.


ActionNames = tuple[tuple[str, ...], tuple[Vector, ...]]
"""The ids of actions as the regressions name them, and each action's features."""

_known_ids: Cache[tuple[ActionId, ...], tuple[str, ...]] = Cache()

_names_of_actions: Cache[tuple[Choice, ...], ActionNames] = Cache()

_recurring = Recurring()


def action_names(actions: tuple[Choice, ...]) -> ActionNames:
    """Of these actions, made once for each set of them that recurs."""
    if not _recurring(actions):
        return _make_action_names(actions)
    known = _names_of_actions.get(actions)
    if known is None:
        known = _make_action_names(actions)
        # Twice: the choices are kept as well, with the features that they were made from.
        size = 4 * FEATURE * len(known[1]) + 2 * sum(map(floats_of, known[1]))
        _names_of_actions.put(actions, known, floats=size)
    return known


def _make_action_names(actions: tuple[Choice, ...]) -> ActionNames:
    own = [
        tuple([(f"{OF_ACTION}{name}", value) for name, value in one.vector]) if one.vector else () for one in actions
    ]
    return _ids_of(tuple([one.id for one in actions])), tuple(own)


def _ids_of(actions: tuple[ActionId, ...]) -> tuple[str, ...]:
    ids = _known_ids.get(actions)
    if ids is None:
        ids = tuple([category("id", id_)[0] for id_ in actions])
        _known_ids.put(actions, ids, floats=FEATURE * len(actions) + sum(map(len, actions)))
    return ids


def context_features(context: Context) -> Vector:
    """The features of a context; the first is the constant.

    >>> context_features(Context(device="mobile", features={"age": 31}))
    (('constant', 1.0), ('device=mobile', 1.0), ('age:', 31.0))
    """
    own = context[:5]
    # Long texts are not kept, so that a number of entries is a number of bytes.
    fields = _with_constant(own) if sum(map(len, own)) <= CACHED_CHARACTERS else _with_constant.__wrapped__(own)
    return fields + vector_of(context.features) if context.features else fields


@lru_cache(maxsize=NAME_CACHE)
def _with_constant(fields: tuple[str, ...]) -> Vector:
    return ((CONSTANT, 1.0), *fields_vector(fields))


# From features to a posterior.


class Posterior(NamedTuple):
    """(actions,) each, of several contexts (contexts, actions): mean and variance of the normal posterior of the
    expected reward, which is in [0, 1]."""

    mean: Floats
    variance: Floats


class Predictor(Protocol):
    """Whatever predicts the rewards of actions. size: bytes that it takes, about, with its caches."""

    @property
    def size(self) -> int:
        """See above."""
        ...

    def shrink(self) -> None:
        """Empty the caches."""

    def snapshot(self) -> Predictor:
        """A copy that does not change."""
        ...

    def posteriors(self, actions: tuple[str, ...], shared: Sequence[Vector], own: tuple[Vector, ...]) -> Posterior:
        """The posterior of these actions' expected rewards, (contexts, actions). shared: features of each context; own:
        of each action. The bits of a context do not depend on the others."""
        ...


class KnownFeatures(NamedTuple):
    """The features that the regression knows: their indexes and values, and the products of each two values.

    strangers: the names of the others. unknown: the prior variance of the categories among them that may be admitted.
    """

    places: Indexes
    values: Floats
    squares: Floats
    strangers: tuple[str, ...]
    unknown: float


class _Rows(NamedTuple):
    """of_actions: (actions, 1), the row of each. distinct: (rows, 1), the same, each once. copies: (actions,), which of
    those is each action's."""

    of_actions: Indexes
    distinct: Indexes
    copies: Indexes | slice


_NAME, _VALUE = itemgetter(0), itemgetter(1)


class _FeatureTable(NamedTuple):
    """The features of several actions, padded with zeros to (actions, most features of one action)."""

    places: Indexes
    values: Floats
    unknown: Floats


class LinearPredictor:
    """Normal posterior of a linear model for each action.

    weights: (rows, features), their posterior mean; covariance: (rows, features, features), in units of the noise's
    variance. Row 0 is the prior, for actions without data. noise: variance of a reward around its expectation. wide:
    there is no room for all features, so an unknown one stays unknown.
    """

    def __init__(self, prior: Prior) -> None:
        self._prior = prior
        self._places: dict[str, int] = {CONSTANT: 0}
        self._rows: dict[str, int] = {}
        self._covariance = np.tile(np.eye(GROWTH), (1, 1, 1))
        self._weights = np.zeros((1, GROWTH))
        self.noise = GUESS
        self._wide = False
        self._cache: Cache[Vector, KnownFeatures] = Cache()
        self._stacks: Cache[tuple[Vector, ...], _FeatureTable] = Cache()
        self._row_numbers: Cache[tuple[str, ...], _Rows] = Cache()
        self._recurring = Recurring()

    @property
    def size(self) -> int:
        """See `Predictor`."""
        caches = self._cache.size + self._stacks.size + self._row_numbers.size
        names = NAME_BYTES * (len(self._places) + len(self._rows))
        return self._covariance.nbytes + self._weights.nbytes + caches + names

    def shrink(self) -> None:
        """See `Predictor`."""
        self._forget_places()
        self._row_numbers.clear()

    def _forget_places(self) -> None:
        """Columns, or prior variances of unknown features, are others now."""
        self._cache.clear()
        self._stacks.clear()

    def rows_of(self, actions: tuple[str, ...]) -> Indexes:
        """(actions,): their rows; 0 of those without data."""
        return self._rows_of(actions).of_actions[:, 0]

    def snapshot(self) -> Predictor:
        """See `Predictor`."""
        return self.linear_copy()

    def linear_copy(self) -> LinearPredictor:
        """A copy that does not change."""
        return self._copy_to(LinearPredictor(self._prior.frozen()))

    def _copy_to(self, copy: LinearPredictor) -> LinearPredictor:
        copy._places, copy._rows = dict(self._places), dict(self._rows)
        copy._covariance, copy._weights = self._covariance.copy(), self._weights.copy()
        copy.noise, copy._wide = self.noise, self._wide
        return copy

    def _posterior(self, rows: _Rows, shared: Vector, table: _FeatureTable) -> Posterior:
        known = self._look_up(shared)
        unknown = known.unknown + table.unknown
        if table.places.size:
            mean, variance = self._predict(rows.of_actions, *_join(known, table))
            return Posterior(mean, np.maximum(variance + unknown, 0.0) * self.noise)
        # Actions of one row, as all without data are, have the same posterior.
        mean, variance = self._predict(rows.distinct, known.places[None], known.values[None], known.squares[None])
        return Posterior(mean[rows.copies], np.maximum(variance[rows.copies] + unknown, 0.0) * self.noise)

    def posteriors(self, actions: tuple[str, ...], shared: Sequence[Vector], own: tuple[Vector, ...]) -> Posterior:
        """See `Predictor`."""
        rows, table = self._rows_of(actions), self._stack(own)
        # NumPy adds one row alone in another order; and what actions have of their own makes a context's arrays larger.
        if len(shared) == 1 or len(rows.distinct) == 1 or table.places.size:
            return stacked([self._posterior(rows, one, table) for one in shared])
        known = list(map(self._look_up, shared))
        mean, variance = np.empty((2, len(known), len(rows.distinct)))
        for group in _groups([len(one.values) for one in known], len(rows.distinct)):
            mean[group], variance[group] = self._predict_several(rows.distinct, [known[index] for index in group])
        unknown = np.array([one.unknown for one in known])[:, None] + table.unknown
        return Posterior(mean[:, rows.copies], np.maximum(variance[:, rows.copies] + unknown, 0.0) * self.noise)

    def _predict_several(self, rows: Indexes, known: Sequence[KnownFeatures]) -> tuple[Floats, Floats]:
        """(contexts, rows) each, of contexts with equally many known features, as `_predict` gives each of them."""
        places = np.concatenate([one.places for one in known]).reshape(len(known), 1, -1)
        values = np.concatenate([one.values for one in known]).reshape(places.shape)
        squares = np.concatenate([one.squares for one in known]).reshape(*places.shape, places.shape[2])
        columns = self._weights.shape[1]
        cells = (rows * columns + places)[:, :, :, None] * columns + places[:, :, None]
        mean = (self._weights[rows, places] * values).sum(axis=2)
        return mean, (self._covariance.reshape(-1)[cells] * squares).sum(axis=(2, 3))

    def _predict(
        self, rows: Indexes, places: Indexes, values: Floats, squares: Floats | None = None
    ) -> tuple[Floats, Floats]:
        """(rows,) each: weights x features, and features x covariance x features. places, values, squares: one for each
        row, or one for all."""
        if len(rows) * places.shape[1] ** 2 <= BLOCK:
            return self._predict_block(rows, places, values, squares)
        # The same bits: each row's sum is its own.
        of_all = len(places) == 1
        parts = [
            self._predict_block(rows[block], *((places, values, squares) if of_all else (places[block], values[block])))
            for block in blocks(len(rows), places.shape[1])
        ]
        mean, variance = zip(*parts, strict=True)
        return np.concatenate(mean), np.concatenate(variance)

    def _predict_block(
        self, rows: Indexes, places: Indexes, values: Floats, squares: Floats | None = None
    ) -> tuple[Floats, Floats]:
        if squares is None:
            squares = values[:, :, None] * values[:, None, :]
        covariance = self._covariance[rows[:, :, None], places[:, :, None], places[:, None, :]]
        return (self._weights[rows, places] * values).sum(axis=1), (covariance * squares).sum(axis=(1, 2))

    def _stack(self, own: tuple[Vector, ...]) -> _FeatureTable:
        stacked = self._stacks.get(own)
        if stacked is None:
            stacked = self._make_stack(own)
            if self._recurring(own):
                self._stacks.put(own, stacked, floats=2 * stacked.places.size + sum(map(floats_of, own)))
        return stacked

    def _make_stack(self, own: tuple[Vector, ...]) -> _FeatureTable:
        known = list(map(self._places.get, map(_NAME, chain.from_iterable(own))))
        if None not in known and len(set(map(len, own))) == 1:  # mostly all actions have the same features
            values = list(map(_VALUE, chain.from_iterable(own)))
            shape = (len(own), len(own[0]))
            return _FeatureTable(
                np.array(known, np.int64).reshape(shape), np.array(values, float).reshape(shape), np.zeros(len(own))
            )
        return self._make_ragged_stack(own)

    def _make_ragged_stack(self, own: tuple[Vector, ...]) -> _FeatureTable:
        places = [[self._places[name] for name, _ in one if name in self._places] for one in own]
        values = [[value for name, value in one if name in self._places] for one in own]
        size = max(map(len, places))
        # A place of 0 with value 0 adds nothing to any sum.
        return _FeatureTable(
            np.array([one + [0] * (size - len(one)) for one in places], np.int64),
            np.array([one + [0.0] * (size - len(one)) for one in values]),
            np.array([self._unknown_variance(self._strangers(one)) for one in own]),
        )

    def _look_up(self, features: Vector) -> KnownFeatures:
        found = self._cache.get(features)
        if found is None:
            found = self._find(features)
            if not any(map(is_number, [name for name, _ in features])):  # numbers hardly ever come twice
                self._cache.put(features, found, floats=found.squares.size + floats_of(features))
        return found

    def _find(self, features: Vector) -> KnownFeatures:
        find = self._places.get
        known = [place for name, _ in features if (place := find(name)) is not None]
        places, values = (
            np.array(known, np.int64),
            np.array([value for name, value in features if name in self._places]),
        )
        strangers = self._strangers(features) if len(known) < len(features) else ()
        return KnownFeatures(places, values, values[:, None] * values, strangers, self._unknown_variance(strangers))

    def _strangers(self, features: Vector) -> tuple[str, ...]:
        return tuple([name for name, _ in features if name not in self._places])

    def _unknown_variance(self, strangers: tuple[str, ...]) -> float:
        # Once there is no room, exploring for an unknown feature's sake would teach nothing about that feature.
        if self._wide:
            return 0.0
        return sum([self._prior.variance_of(name) for name in strangers if not is_number(name)], 0.0)

    def _rows_of(self, actions: tuple[str, ...]) -> _Rows:
        rows = self._row_numbers.get(actions)
        if rows is None:
            numbers = [self._rows.get(id_, 0) for id_ in actions]
            rows = _rows(numbers)
            self._row_numbers.put(actions, rows, floats=FEATURE * len(actions))
        return rows


def _rows(numbers: Sequence[int]) -> _Rows:
    distinct = {number: place for place, number in enumerate(dict.fromkeys(numbers))}
    of_actions = np.array(numbers)[:, None]
    if len(distinct) == len(numbers):
        return _Rows(of_actions, of_actions, slice(None))
    return _Rows(of_actions, np.array([*distinct])[:, None], np.array([distinct[number] for number in numbers]))


def blocks(rows: int, features: int) -> list[slice]:
    """Slices of all rows: of LEAST_ROWS at least, and with no more than BLOCK cells where that allows it.

    >>> blocks(5, features=1_000)
    [slice(0, 2, None), slice(2, 5, None)]
    """
    count = max(1, rows // max(LEAST_ROWS, BLOCK // (2 * features**2)))
    return [slice(rows * index // count, rows * (index + 1) // count) for index in range(count)]


def stacked(posteriors: Sequence[Posterior]) -> Posterior:
    """Those of several contexts as one."""
    if len(posteriors) == 1:
        ((mean, variance),) = posteriors
        return Posterior(mean[None], variance[None])
    return Posterior(*[np.stack(parts) for parts in zip(*posteriors, strict=True)])


def _groups(sizes: Sequence[int], rows: int) -> list[list[int]]:
    """Indexes of equal sizes; so many of each that no more than AT_ONCE cells are read, where one has no more.

    >>> _groups([3, 2, 3], rows=10)
    [[0, 2], [1]]
    """
    found: dict[int, list[int]] = {}
    for index, size in enumerate(sizes):
        found.setdefault(size, []).append(index)
    most = {size: max(1, AT_ONCE // (rows * size**2)) for size in found}
    return [group[at : at + most[size]] for size, group in found.items() for at in range(0, len(group), most[size])]


def _join(shared: KnownFeatures, own: _FeatureTable) -> tuple[Indexes, Floats]:
    """(actions, features): indexes and values of all features of each action."""
    shape = (len(own.places), len(shared.places))
    places = np.concatenate([np.broadcast_to(shared.places, shape), own.places], axis=1)
    values = np.concatenate([np.broadcast_to(shared.values, shape), own.values], axis=1)
    return places, values
