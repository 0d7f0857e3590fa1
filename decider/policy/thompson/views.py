"""Other features for a regression than those that came: ranges of numbers, pairs. Called by `thompson.py`.

What is linear in the hour cannot find lunch at noon, and a sum cannot find that only regular visitors in front of a
desktop buy. Each view says when it is of use, and a `Viewed` regression learns what is seen through it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from itertools import combinations
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from decider.policy.protocol import Vocabulary
from decider.policy.thompson.admission import Admission
from decider.policy.thompson.arrays import FEATURE, Arrays, Cache, Floats, worded, words
from decider.policy.thompson.features import CONSTANT, OF_ACTION, PAIR, Features, is_number
from decider.policy.thompson.posterior import Beliefs, Posterior
from decider.policy.thompson.regression import Regression

RANGES = 8
"""At most, of a number."""

FIRST = 100
"""Values of a number from which its ranges are made."""

NUMBERS = 1_000
"""Names of numbers that are kept; later ones get no ranges."""


class View(Protocol):
    """Features -> more features. It may learn from the features that it has seen."""

    def useful(self, features: Features) -> bool:
        """Whether anything is added to such features, now or later."""
        ...

    def see(self, features: Features) -> None:
        """Features that are about to be learned from."""
        ...

    def of(self, features: Features) -> Features:
        """The same and what is added."""
        ...

    def snapshot(self) -> View:
        """A view that goes on to add the same, whatever this one learns."""
        ...

    def saved(self) -> Arrays:
        """What it has learned, as arrays."""
        ...

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `saved()`."""
        ...


class ViewedPosterior:
    """Believes what the posterior does of what is seen through the view."""

    def __init__(self, view: View, posterior: Posterior) -> None:
        self._view, self._posterior = view, posterior

    def believe(self, actions: tuple[str, ...], shared: Features, own: tuple[Features, ...]) -> Beliefs:
        """What is believed of these actions; see `Posterior.believe`."""
        of = self._view.of
        return self._posterior.believe(actions, of(shared), tuple([of(one) if one else one for one in own]))


class Viewed(ViewedPosterior):
    """Believes and learns as a regression does, of what is seen through the view."""

    def __init__(self, view: View, admission: Admission) -> None:
        self._regression = Regression(admission)
        super().__init__(view, self._regression)

    @property
    def full(self) -> bool:
        """Whether there is no room for one more feature."""
        return self._regression.full

    @property
    def crowded(self) -> bool:
        """Whether a feature of what it has learned since it was loaded is not known."""
        return self._regression.crowded

    @property
    def vocabulary(self) -> Vocabulary:
        """The features that it knows, and about how many it has left out."""
        return self._regression.vocabulary

    def learn(self, action: str, features: Features, reward: float) -> float:
        """One reward in [0, 1]; the logarithm of how probable it was before it was learned."""
        self._view.see(features)
        return self._regression.learn(action, self._view.of(features), reward)

    def snapshot(self) -> ViewedPosterior:
        """A copy that does not change."""
        return ViewedPosterior(self._view.snapshot(), self._regression.snapshot())

    def saved(self) -> Arrays:
        """Everything that is known, as arrays."""
        return self._regression.saved() | self._view.saved()

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `saved()`."""
        self._regression.restore(saved)
        self._view.restore(saved)


class Ranges:
    """Beside its value, each number becomes a category: in which of a few ranges it lies.

    Each range holds about as many of the first values that were learned from, and then they stay; a number of few
    values gets a range for each.

    >>> ranges = Ranges()
    >>> for hour in range(FIRST):
    ...     ranges.see((("hour:", hour % 24), ("device=mobile", 1.0)))
    >>> ranges.of((("hour:", 12.0), ("device=mobile", 1.0)))
    (('hour:', 12.0), ('device=mobile', 1.0), ('hour:4', 1.0))
    """

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {}
        self._edges: dict[str, list[float]] = {}
        self._cache: Cache[Features, Features] = Cache()

    def useful(self, features: Features) -> bool:
        """Where there are numbers."""
        return any(is_number(name) for name, _ in features)

    def see(self, features: Features) -> None:
        """Values of numbers whose ranges are not known yet."""
        for name, value in features:
            if is_number(name) and name not in self._edges and self._has_room(name):
                values = self._values.setdefault(name, [])
                values.append(value)
                if len(values) == FIRST:
                    self._edges[name] = edges(self._values.pop(name))
                    self._cache.clear()

    def _has_room(self, name: str) -> bool:
        return name in self._values or len(self._values) + len(self._edges) < NUMBERS

    def of(self, features: Features) -> Features:
        """The same and, of each number, its range: `hour:4`."""
        found = self._cache.get(features)
        if found is None:
            places = [
                (name, bisect_left(self._edges[name], value)) for name, value in features if self._edges.get(name)
            ]
            found = features + tuple([(f"{name}{place}", 1.0) for name, place in places])
            self._cache.put(features, found, floats=FEATURE * len(found))
        return found

    def snapshot(self) -> Ranges:
        """With the edges that are known now."""
        copy = Ranges()
        copy._edges = dict(self._edges)
        return copy

    def saved(self) -> Arrays:
        """Edges, and values that wait to become edges."""
        return {"numbers": words({"values": self._values, "edges": self._edges})}

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `saved()`."""
        numbers = worded(saved["numbers"])
        self._values, self._edges = numbers["values"], numbers["edges"]


class Pairs:
    """Products of each two features of the context."""

    def __init__(self) -> None:
        self._cache: Cache[Features, Features] = Cache()

    def useful(self, features: Features) -> bool:
        """Where there are two to pair."""
        return len(_of_context(features)) > 1

    def see(self, features: Features) -> None:
        """Nothing: pairs are the same at all times."""

    def of(self, features: Features) -> Features:
        """The same and the products."""
        found = self._cache.get(features)
        if found is None:
            found = with_pairs(features)
            self._cache.put(features, found, floats=FEATURE * len(found))
        return found

    def snapshot(self) -> Pairs:
        """Another one."""
        return Pairs()

    def saved(self) -> Arrays:
        """Nothing."""
        return {}

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Nothing."""


def with_pairs(features: Features) -> Features:
    """And all products of two features of the context.

    >>> with_pairs((("constant", 1.0), ("device=mobile", 1.0), ("age:", 31.0)))[3:]
    (('CC device=mobile age:', 31.0),)
    """
    return features + tuple([_product(*both) for both in combinations(_of_context(features), 2)])


def _of_context(features: Features) -> Features:
    return tuple([one for one in features if one[0] != CONSTANT and not one[0].startswith(OF_ACTION)])


def _product(one: tuple[str, float], other: tuple[str, float]) -> tuple[str, float]:
    """Categories first: one with a number in it is a number, and the colon stays at the end."""
    first, second = (other, one) if is_number(one[0]) else (one, other)
    return f"{PAIR}{first[0].removesuffix(':')} {second[0]}", first[1] * second[1]


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
