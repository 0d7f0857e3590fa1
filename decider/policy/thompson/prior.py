"""The prior of a regression's weights: how large they may be before there are data. Called by `regression.py`.

Each version of the learning code has its own rule. Codes 1 and 2 give every weight the same variance (`UnitPrior`).
Code 3 learns it from the rewards (`FieldPrior`): around their size, field by field.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from decider.policy.thompson.arrays import Arrays, Floats, Indexes, json_from_array, json_to_array
from decider.policy.thompson.features import field_of, is_number, penalty

SIZE = 2.0
"""Before there are data, a weight's penalty is so many times the ratio of the noise's deviation to the mean size of the
rewards."""

PSEUDO_WEIGHTS = 8.0
"""That counts for so many weights of a field when the field's variance is estimated."""

NUMBER = 0.3
"""What a number's penalty is multiplied by: it has one weight where a category has one for each of its values."""

LEAST_RANGE = 0.003
"""Half of a number's range counts as so much of its largest value, at least: sums of squares of seconds since 1970 lose
the digits in which they differ."""

LARGEST_PENALTY = 300.0
"""Of a weight, where rewards hardly differ so far. Before there are data the smallest is 1."""

LARGEST_VARIANCE = 10.0
"""Of a field's weights, in units of the noise's: once there are data a penalty may be 0.1."""


class Fitted(NamedTuple):
    """What is known when a regression is solved anew.

    names: of the features, in the order of the columns. total: (features, features), sums of products over all actions.
    deviations: (rows, features), weights less the prior's mean, of the rows with data; variances: the same shape, in
    units of `noise`, a variance of rewards in [0, 1].
    """

    names: Sequence[str]
    total: Floats
    deviations: Floats
    variances: Floats
    noise: float


class Prior(Protocol):
    """Sees what is learned, and says how large weights may be. base: the penalty that a weight has before there are
    data."""

    base: float

    def see(self, places: Indexes, values: Floats, reward: float) -> None:
        """A reward, in [0, 1], and the features that it came with."""

    def choose(self, stay: Sequence[int], columns: int) -> None:
        """Columns were chosen anew: first those that stay, then new ones, `columns` in all."""

    def widen(self, columns: int) -> None:
        """There are so many columns more."""

    def discount(self, factor: float) -> None:
        """What was seen counts less from now on."""

    def penalties(self, fitted: Fitted) -> Floats:
        """(features,): ridge penalties; the variance of a weight is noise / penalty."""
        ...

    def variance_of(self, name: str) -> float:
        """Of the weight of a category, or of a number of size 1, in units of the noise's variance."""
        ...

    def frozen(self) -> Prior:
        """A copy whose `variance_of` does not change."""
        ...

    def to_arrays(self) -> Arrays:
        """Its state, as arrays."""
        ...

    def restore(self, saved: Mapping[str, NDArray[Any]], columns: int) -> None:
        """Go on from `to_arrays()`."""


class UnitPrior:
    """Learning codes 1 and 2: penalty 1, of products 30. A number's is multiplied by its variance, so that its unit has
    no effect."""

    base = 1.0

    def see(self, places: Indexes, values: Floats, reward: float) -> None:
        """Nothing."""

    def choose(self, stay: Sequence[int], columns: int) -> None:
        """Nothing."""

    def widen(self, columns: int) -> None:
        """Nothing."""

    def discount(self, factor: float) -> None:
        """Nothing."""

    def penalties(self, fitted: Fitted) -> Floats:
        """See `Prior`."""
        count = max(float(fitted.total[0, 0]), 1e-9)
        square = np.diagonal(fitted.total) / count
        variance = np.maximum(square - (fitted.total[0] / count) ** 2, np.maximum(square * 1e-4, 1e-9))
        numbers, penalties = _kinds(fitted.names, len(square))
        return penalties * np.where(numbers & (square > 0), variance, 1.0)

    def variance_of(self, name: str) -> float:
        """See `Prior`."""
        return 1 / penalty(name)

    def frozen(self) -> Prior:
        """Itself."""
        return self

    def to_arrays(self) -> Arrays:
        """Nothing."""
        return {}

    def restore(self, saved: Mapping[str, NDArray[Any]], columns: int) -> None:
        """Nothing."""


class FieldPrior:
    """Learning code 3: empirical Bayes. The weights of a field's values share a variance.

    It is estimated by a step of expectation maximisation at each solution, around a guess that follows the size of the
    rewards: the rarer they are, the smaller a weight must be. Their size is the mean distance from the most frequent
    one, which is mostly that of nothing happening (found by the vote of Boyer and Moore 1981); where no reward comes
    twice, half the mean distance between two. A number's weight is for half of the range in which it was seen.

    Robbins 1956; by groups of features in bandits: Nabi, Nassif, Hong, Mamani and Imbens, Bayesian Meta-Prior Learning
    Using Empirical Bayes, Management Science 2022.
    """

    def __init__(self) -> None:
        self._usual = self._votes = 0.0
        self._least = np.full(1, np.inf)
        self._most = np.full(1, -np.inf)
        self._scale = np.zeros(1)
        self._count = self._size = 0.0
        self.base = 1.0
        self._variances: dict[str, float] = {}

    def see(self, places: Indexes, values: Floats, reward: float) -> None:
        """See `Prior`."""
        self._least[places] = np.minimum(self._least[places], values)
        self._most[places] = np.maximum(self._most[places], values)
        self._count += 1.0
        if reward == self._usual:
            self._votes += 1.0
        elif self._votes > 0:
            self._votes -= 1.0
        else:
            self._usual, self._votes = reward, 1.0
        self._size += abs(reward - self._usual)

    def choose(self, stay: Sequence[int], columns: int) -> None:
        """See `Prior`."""
        more = (0, columns - len(stay))
        self._least = np.pad(self._least[stay], more, constant_values=np.inf)
        self._most = np.pad(self._most[stay], more, constant_values=-np.inf)
        self._scale = np.pad(self._scale[stay], more)

    def widen(self, columns: int) -> None:
        """See `Prior`."""
        self.choose(range(len(self._least)), len(self._least) + columns)

    def discount(self, factor: float) -> None:
        """See `Prior`; ranges stay, and votes for the usual reward."""
        self._count *= factor
        self._size *= factor

    def penalties(self, fitted: Fitted) -> Floats:
        """See `Prior`."""
        size = self._size / max(self._count, 1e-9)
        self.base = min(max(SIZE * math.sqrt(fitted.noise) / max(size, 1e-9), 1.0), LARGEST_PENALTY)
        fields = [field_of(name) for name in fitted.names]
        place_of = {field: place for place, field in enumerate(dict.fromkeys(fields))}
        group = np.array([place_of[field] for field in fields])
        variance = self._estimate(fitted, group, len(place_of))
        self._variances = dict(zip(place_of, variance.tolist(), strict=True))
        self._scale = self._scales(fitted)
        penalties = self._scale.copy()
        penalties[: len(group)] /= variance[group]
        return penalties

    def _estimate(self, fitted: Fitted, group: Indexes, groups: int) -> Floats:
        """(groups,): variances, in units of the noise's, by one step of expectation maximisation from the posterior."""
        scale = self._scale[: len(group)]  # of the last solution; 0 where columns were added since
        squares = fitted.deviations * fitted.deviations / fitted.noise + fitted.variances
        found = np.bincount(group, squares.sum(axis=0)[: len(group)] * scale, groups)
        count = len(squares) * np.bincount(group, scale > 0, groups)
        variance = (found + PSEUDO_WEIGHTS / self.base) / (count + PSEUDO_WEIGHTS)
        return np.asarray(np.clip(variance, 1 / LARGEST_PENALTY, LARGEST_VARIANCE))

    def _scales(self, fitted: Fitted) -> Floats:
        """(columns,): what a penalty is multiplied by, so that a number's unit has no effect."""
        numbers, scale = _kinds(fitted.names, len(fitted.total))
        seen = numbers & (self._most >= self._least)
        least, most = np.where(seen, self._least, 0.0), np.where(seen, self._most, 0.0)
        size = np.where(most > least, (most - least) / 2, np.abs(most))
        size = np.maximum(size, LEAST_RANGE * np.maximum(np.abs(least), np.abs(most)))
        return np.asarray(scale * np.where(numbers, NUMBER, 1.0) * np.where(size > 0, size * size, 1.0))

    def variance_of(self, name: str) -> float:
        """See `Prior`."""
        return self._variances.get(field_of(name), 1 / self.base) / penalty(name)

    def frozen(self) -> Prior:
        """See `Prior`."""
        copy = FieldPrior()
        copy.base, copy._variances = self.base, self._variances  # which is replaced, not changed
        return copy

    def to_arrays(self) -> Arrays:
        """See `Prior`."""
        return {
            "prior": np.array([self._count, self._size, self.base, self._usual, self._votes]),
            "fields": json_to_array(self._variances),
            "columns": np.stack([self._least, self._most, self._scale]),
        }

    def restore(self, saved: Mapping[str, NDArray[Any]], columns: int) -> None:
        """See `Prior`."""
        self._count, self._size, self.base, self._usual, self._votes = saved["prior"].tolist()
        self._variances = json_from_array(saved["fields"])
        self._least, self._most, self._scale = saved["columns"]
        self.choose(range(min(len(self._least), columns)), columns)


def _kinds(names: Sequence[str], columns: int) -> tuple[NDArray[np.bool_], Floats]:
    """(columns,) each: which are numbers; the penalties that names have."""
    numbers, penalties = np.zeros(columns, np.bool_), np.ones(columns)
    for place, name in enumerate(names):
        numbers[place], penalties[place] = is_number(name), penalty(name)
    return numbers, penalties
