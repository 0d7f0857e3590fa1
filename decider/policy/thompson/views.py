"""Derived features for a regression: bins of numbers, products of two features. Called by `thompson.py`.

A regression that is linear in the hour cannot learn a peak at noon; one without products cannot learn that only regular
visitors with a desktop buy. Each view says when it is of use; a `ViewRegression` learns from what the view derives.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from decider.policy.features import Pair, Vector
from decider.policy.thompson.admission import Admission
from decider.policy.thompson.arrays import Arrays, Cache, Floats, floats_of, json_from_array, json_to_array
from decider.policy.thompson.evidence import Foretold
from decider.policy.thompson.features import CONSTANT, OF_ACTION, PAIR, is_number
from decider.policy.thompson.posterior import Posterior, Predictor
from decider.policy.thompson.regression import Regression
from decider.policy.thompson.rules import Rules

BINS = 8
"""Most bins of a number."""

BIN_AFTER = 100
"""Values of a number from whose quantiles its bins are made."""

MAX_NUMBERS = 1_000
"""Most numbers with bins."""

NUMBER_BYTES = 4_000
"""Of a number's name and values, at most, while it has no bins."""


class View(Protocol):
    """Features -> the same and derived ones. It may learn from the features that it sees. size: bytes that it takes."""

    @property
    def size(self) -> int:
        """See above."""
        ...

    def shrink(self) -> None:
        """Empty the cache."""
        ...

    def useful(self, features: Vector) -> bool:
        """Whether it derives anything from such features, now or later."""
        ...

    def see(self, features: Vector) -> None:
        """Learn from the features of a decision, before the regression does."""
        ...

    def of(self, features: Vector) -> Vector:
        """The features, then the derived ones."""
        ...

    def snapshot(self) -> View:
        """A copy that does not change."""
        ...

    def to_arrays(self) -> Arrays:
        """What it has learned, as arrays."""
        ...

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `to_arrays()`."""
        ...


class ViewPredictor:
    """Predicts from the features that a view gives."""

    def __init__(self, view: View, predictor: Predictor) -> None:
        self._view, self._predictor = view, predictor

    @property
    def size(self) -> int:
        """See `Predictor`."""
        return self._view.size + self._predictor.size

    def shrink(self) -> None:
        """See `Predictor`."""
        self._view.shrink()
        self._predictor.shrink()

    def snapshot(self) -> Predictor:
        """See `Predictor`."""
        return ViewPredictor(self._view.snapshot(), self._predictor.snapshot())

    def posteriors(self, actions: tuple[str, ...], shared: Sequence[Vector], own: tuple[Vector, ...]) -> Posterior:
        """See `Predictor`."""
        return self._predictor.posteriors(actions, list(map(self._view.of, shared)), _of_actions(self._view, own))


class ViewRegression(Regression):
    """A regression on the features that a view gives."""

    def __init__(self, view: View, admission: Admission, rules: Rules) -> None:
        super().__init__(admission, rules)
        self._view = view

    @property
    def size(self) -> int:
        """See `Predictor`."""
        return self._view.size + super().size

    def shrink(self) -> None:
        """See `Predictor`."""
        self._view.shrink()
        super().shrink()

    def posteriors(self, actions: tuple[str, ...], shared: Sequence[Vector], own: tuple[Vector, ...]) -> Posterior:
        """See `Predictor`."""
        return super().posteriors(actions, list(map(self._view.of, shared)), _of_actions(self._view, own))

    def learn(self, action: str, features: Vector, reward: float) -> Foretold:
        """See `Regression`."""
        self._view.see(features)
        return super().learn(action, self._view.of(features), reward)

    def snapshot(self) -> Predictor:
        """A copy that does not change."""
        return ViewPredictor(self._view.snapshot(), super().snapshot())

    def to_arrays(self) -> Arrays:
        """The state of both, as arrays."""
        return super().to_arrays() | self._view.to_arrays()

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `to_arrays()`."""
        super().restore(saved)
        self._view.restore(saved)


def _of_actions(view: View, own: tuple[Vector, ...]) -> tuple[Vector, ...]:
    return tuple([view.of(one) if one else one for one in own])


class NumberBins:
    """Each number also becomes a category: the bin in which it lies.

    Bins hold equal shares of the first BIN_AFTER values and then stay; a number with few values gets a bin for each.

    >>> bins = NumberBins()
    >>> for hour in range(BIN_AFTER):
    ...     bins.see((("hour:", hour % 24), ("device=mobile", 1.0)))
    >>> bins.of((("hour:", 12.0), ("device=mobile", 1.0)))
    (('hour:', 12.0), ('device=mobile', 1.0), ('hour:4', 1.0))
    """

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}
        self._bins: dict[str, _Bins] = {}

    @property
    def size(self) -> int:
        """See `View`. Most numbers have at most BINS edges; others few values."""
        return NUMBER_BYTES * (len(self._values) + len(self._bins))

    def shrink(self) -> None:
        """See `View`: there is none, since numbers hardly ever come twice."""

    def useful(self, features: Vector) -> bool:
        """Whether there are numbers."""
        return any(is_number(name) for name, _ in features)

    def see(self, features: Vector) -> None:
        """Collect the values of numbers that have no bins yet."""
        for name, value in features:
            if is_number(name) and name not in self._bins and self._has_room(name):
                values = self._values.setdefault(name, [])
                values.append(value)
                if len(values) == BIN_AFTER:
                    self._bins[name] = _bins(name, edges(self._values.pop(name)))

    def _has_room(self, name: str) -> bool:
        return name in self._values or len(self._values) + len(self._bins) < MAX_NUMBERS

    def of(self, features: Vector) -> Vector:
        """The features, and the bin of each number: `hour:4`."""
        known, found = self._bins, []
        for name, value in features:
            bins = known.get(name)
            if bins is not None and bins.edges:
                found.append(bins.categories[bisect_left(bins.edges, value)])
        return features + tuple(found) if found else features

    def snapshot(self) -> NumberBins:
        """A copy with today's edges."""
        copy = NumberBins()
        copy._bins = dict(self._bins)
        return copy

    def to_arrays(self) -> Arrays:
        """Edges of bins, and the values of numbers that have none yet."""
        known = {name: bins.edges for name, bins in self._bins.items()}
        return {"numbers": json_to_array({"values": self._values, "edges": known})}

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `to_arrays()`."""
        numbers = json_from_array(saved["numbers"])
        self._values = numbers["values"]
        self._bins = {name: _bins(name, known) for name, known in numbers["edges"].items()}


class _Bins(NamedTuple):
    """The bins of a number, and the feature that each of them is."""

    edges: list[float]
    categories: tuple[Pair, ...]


def _bins(name: str, inner: list[float]) -> _Bins:
    return _Bins(inner, tuple([(f"{name}{place}", 1.0) for place in range(len(inner) + 1)]))


class FeaturePairs:
    """Products of each two features of the context."""

    def __init__(self) -> None:
        self._cache: Cache[Vector, Vector] = Cache()

    @property
    def size(self) -> int:
        """See `View`."""
        return self._cache.size

    def shrink(self) -> None:
        """See `View`."""
        self._cache.clear()

    def useful(self, features: Vector) -> bool:
        """Whether there are two features of the context."""
        return len(_of_context(features)) > 1

    def see(self, features: Vector) -> None:
        """Nothing to learn."""

    def of(self, features: Vector) -> Vector:
        """The features, then the products."""
        if features[0][0].startswith(OF_ACTION):  # an action's alone, which have no products and may come but once
            return features
        found = self._cache.get(features)
        if found is None:
            found = with_pairs(features)
            self._cache.put(features, found, floats=floats_of(found))
        return found

    def snapshot(self) -> FeaturePairs:
        """A copy with a cache of its own."""
        return FeaturePairs()

    def to_arrays(self) -> Arrays:
        """Nothing."""
        return {}

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Nothing."""


def with_pairs(features: Vector) -> Vector:
    """The features, then all products of two features of the context.

    >>> with_pairs((("constant", 1.0), ("device=mobile", 1.0), ("age:", 31.0)))[3:]
    (('CC device=mobile age:', 31.0),)
    """
    return features + tuple([_product(*both) for both in combinations(_of_context(features), 2)])


def _of_context(features: Vector) -> Vector:
    return tuple([one for one in features if one[0] != CONSTANT and not one[0].startswith(OF_ACTION)])


def _product(one: tuple[str, float], other: tuple[str, float]) -> tuple[str, float]:
    """The category comes first: a product with a number is a number, whose name ends in a colon."""
    first, second = (other, one) if is_number(one[0]) else (one, other)
    return f"{PAIR}{first[0].removesuffix(':')} {second[0]}", first[1] * second[1]


def edges(values: list[float]) -> list[float]:
    """The largest value of every bin but the last; no bin is empty.

    >>> edges([1.0, 2.0, 2.0, 5.0])
    [1.0, 2.0]
    """
    distinct = sorted(set(values))
    if len(distinct) <= BINS:
        return distinct[:-1]
    ordered: Floats = np.sort(np.array(values))
    inner = np.arange(1, BINS) * len(values) // BINS - 1
    return [edge for edge in np.unique(ordered[inner]).tolist() if edge < ordered[-1]]
