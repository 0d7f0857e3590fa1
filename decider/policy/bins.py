"""A regression in which numbers may matter by ranges: lunch at noon, the middle of three classes. Called by
`thompson.py`.

Beside its value, each number becomes a category: in which of a few ranges it lies. Each range holds about as many of
the first values that were learned from, and then they stay; a number of few values gets a range for each.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decider.policy.regression import CACHE, Beliefs, Features, Floats, Regression, is_number, worded, words

RANGES = 8
"""At most, of a number."""

FIRST = 100
"""Values of a number from which its ranges are made."""


class Binned:
    """Believes and learns as a regression does; numbers count by range, too."""

    def __init__(self) -> None:
        self._regression = Regression()
        self._bins = Bins()

    def believe(self, actions: tuple[str, ...], shared: Features, own: tuple[Features, ...]) -> Beliefs:
        """What is believed of these actions; see `Regression.believe`."""
        of = self._bins.of
        return self._regression.believe(actions, of(shared), tuple([of(one) for one in own]))

    def learn(self, action: str, features: Features, reward: float) -> float:
        """One reward in [0, 1]; the logarithm of how probable it was before it was learned."""
        self._bins.see(features)
        return self._regression.learn(action, self._bins.of(features), reward)

    def saved(self) -> dict[str, NDArray[Any]]:
        """Everything that is known, as arrays."""
        return self._regression.saved() | self._bins.saved()

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `saved()`."""
        self._regression.restore(saved)
        self._bins.restore(saved)


class Bins:
    """The ranges of every number, by its name.

    >>> bins = Bins()
    >>> for hour in range(FIRST):
    ...     bins.see((("hour:", hour % 24), ("device=mobile", 1.0)))
    >>> bins.of((("hour:", 12.0), ("device=mobile", 1.0)))
    (('hour:', 12.0), ('device=mobile', 1.0), ('hour:4', 1.0))
    """

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}
        self._edges: dict[str, list[float]] = {}
        self._cache: dict[Features, Features] = {}

    def see(self, features: Features) -> None:
        """Values of numbers whose ranges are not known yet."""
        for name, value in features:
            if is_number(name) and name not in self._edges:
                values = self._values.setdefault(name, [])
                values.append(value)
                if len(values) == FIRST:
                    self._edges[name] = edges(self._values.pop(name))
                    self._cache.clear()

    def of(self, features: Features) -> Features:
        """The same and, of each number, its range: `hour:4`."""
        found = self._cache.get(features)
        if found is None:
            if len(self._cache) >= CACHE:
                self._cache.clear()
            ranges = [
                (name, bisect_left(self._edges[name], value)) for name, value in features if self._edges.get(name)
            ]
            found = self._cache[features] = features + tuple([(f"{name}{range_}", 1.0) for name, range_ in ranges])
        return found

    def saved(self) -> dict[str, NDArray[Any]]:
        """Everything that is known, as arrays."""
        return {"numbers": words({"values": self._values, "edges": self._edges})}

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `saved()`."""
        numbers = worded(saved["numbers"])
        self._values, self._edges = numbers["values"], numbers["edges"]


def edges(values: list[float]) -> list[float]:
    """The largest value of every range but the last; none of them is empty.

    >>> edges([1.0, 2.0, 2.0, 5.0])
    [1.0, 2.0]
    """
    distinct = sorted(set(values))
    if len(distinct) <= RANGES:
        return distinct[:-1]
    ordered: Floats = np.sort(np.array(values))
    inner = np.arange(1, RANGES) * len(values) // RANGES - 1
    return [edge for edge in np.unique(ordered[inner]).tolist() if edge < ordered[-1]]
