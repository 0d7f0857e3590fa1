"""Which features a regression uses where there is no room for all. Called by `regression.py`.

Each version of the learning code has its own rule: code 1 keeps the features that come first, for ever; code 2 counts
features and admits the most frequent ones. Where there is room for all, both do the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from math import isqrt
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from decider.policy.thompson.arrays import Arrays, Indexes, json_from_array, json_to_array
from decider.policy.thompson.counts import DistinctCount, HeavyHitters
from decider.policy.thompson.features import is_pair

CELLS = 250_000
"""Most actions x features x features (2 MB per array): 150 features for 10 actions, 50 for 100."""

WORK, LITTLE_WORK = 40_000_000, 3_000_000
"""Most actions x features^3 where there is no room for all: 150 features for 10 actions, solved in about 40 ms. The
second is for the discounted regression, which is solved often and needs fewer features: 64 for 10 actions, 5 ms."""

HALVE_AFTER = 8_192
"""Decisions after which all counts are halved, so that features which become frequent later are admitted."""

CHECK_AFTER = 1_000
"""Most decisions between two choices of features."""

RARE = 400
"""A feature that occurs in fewer than 1 of so many decisions is not admitted: exploring for its sake costs more reward
than it can win back. A feature that was admitted leaves at half of that frequency."""

BATCH = 256
"""Decisions whose features are counted in one NumPy call."""

ADMIT_FACTOR, ADMIT_MARGIN = 1.5, 5
"""A newcomer replaces a known feature if it exceeds its count by this factor and this margin: without them two features
of about the same frequency would replace each other again and again."""


def room(rows: int) -> int:
    """Most features for so many rows; at least 1, the constant.

    >>> room(11), room(101), room(10**6)
    (150, 49, 1)
    """
    return max(1, isqrt(CELLS // rows))


def room_where_wide(rows: int, work: int) -> int:
    """The same where there is no room for all: then the cost of solving is bounded as well.

    >>> [room_where_wide(rows, WORK) for rows in (11, 101, 1_001)]
    [150, 49, 15]
    >>> [room_where_wide(rows, LITTLE_WORK) for rows in (11, 101, 1_001)]
    [64, 30, 14]
    """
    return next((size for size in range(room(rows), 1, -1) if rows * size**3 <= work), 1)


class Admission(Protocol):
    """Sees the features of every decision that is learned, and chooses which features the regression uses."""

    wide: bool
    """Whether there have been more features than there is room for."""

    def see(self, places: Indexes, strangers: Sequence[str]) -> None:
        """The features of one decision: the indexes of the known ones, the names of the others."""
        ...

    def due(self, rows: int, known: int) -> float:
        """Most decisions before `choose` has to be called again."""
        ...

    def choose(self, names: list[str], rows: int) -> list[str]:
        """The new list of features: first those of `names` that stay, in their order, then the new ones."""
        ...

    @property
    def left_out(self) -> int:
        """Estimated number of different names that were seen and are not known."""
        ...

    def to_arrays(self) -> Arrays:
        """All counts, as arrays."""
        ...

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `to_arrays()`."""
        ...


class FirstCome:
    """Learning code 1: the features that come first stay."""

    wide = False

    def __init__(self, work: int = WORK) -> None:  # noqa: ARG002 - of `MostFrequent`
        self._strangers = DistinctCount()

    def see(self, places: Indexes, strangers: Sequence[str]) -> None:  # noqa: ARG002 - the protocol's
        """Only the number of features that are left out matters."""
        for name in strangers:
            self._strangers.add(name)

    def due(self, rows: int, known: int) -> float:  # noqa: ARG002 - the protocol's
        """Never."""
        return math.inf

    def choose(self, names: list[str], rows: int) -> list[str]:  # noqa: ARG002 - the protocol's
        """The same."""
        return names

    @property
    def left_out(self) -> int:
        """Since the model was loaded: models of this code do not store it."""
        return len(self._strangers)

    def to_arrays(self) -> Arrays:
        """Nothing."""
        return {}

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Nothing."""


class MostFrequent:
    """Learning code 2: the most frequent features. work: the largest cost of one solution, see WORK."""

    def __init__(self, work: int = WORK) -> None:
        self._work = work
        self.wide = False
        self._counts = np.zeros(room(rows=2), np.int64)
        self._pending: list[Indexes] = []
        self._seen = 0
        self._newcomers = HeavyHitters()
        self._strangers = DistinctCount()
        self._late: set[str] = set()

    def see(self, places: Indexes, strangers: Sequence[str]) -> None:
        """Count each feature once."""
        self._pending.append(places)
        for name in strangers:
            if name not in self._newcomers.counts:
                self._strangers.add(name)
            self._newcomers.add(name)
        self._seen += 1
        if len(self._pending) == BATCH:
            self._count()
        if self._seen == HALVE_AFTER:
            self._count()
            self._seen = 0
            self._counts //= 2
            self._newcomers.halve()

    def _count(self) -> None:
        """In batches: one NumPy call per decision would cost more than the rest of `see`."""
        if self._pending:
            self._counts += np.bincount(np.concatenate(self._pending), minlength=len(self._counts))
            self._pending.clear()

    def due(self, rows: int, known: int) -> float:
        """At once where new actions have made the arrays too large for the known features."""
        if rows * known * known > 2 * CELLS:
            return 0
        return CHECK_AFTER if self.wide else math.inf

    def choose(self, names: list[str], rows: int) -> list[str]:
        """The most frequent features; where a known one and a newcomer are about equally frequent, the known one."""
        self.wide = self.wide or len(names) > room(rows) or bool(self._newcomers.counts)
        if not self.wide:
            return names
        seats = room_where_wide(rows, self._work) - 1
        self._count()
        counts = self._counts.tolist()
        known = [place for place in range(1, len(names)) if 2 * RARE * counts[place] >= counts[0]]
        known.sort(key=lambda place: (counts[place], not is_pair(names[place]), -place))
        # The counts that a newcomer has to beat, smallest first: 0 for a free seat, else that of the feature in it.
        to_beat = [0] * (seats - len(known)) + [counts[place] for place in known[max(0, len(known) - seats) :]]
        newcomers = self._better(to_beat, least=counts[0] / RARE)
        stay = [0, *sorted(known[max(0, len(known) + len(newcomers) - seats) :])]
        if newcomers or len(stay) < len(names):
            self._change(names, stay, newcomers)
        return [names[place] for place in stay] + newcomers

    def _better(self, to_beat: list[int], *, least: float) -> list[str]:
        """The newcomers that are admitted: the k-th most frequent one has to beat the k-th smallest of the counts."""
        ranked = sorted(self._newcomers.counts.items(), key=lambda newcomer: -newcomer[1])
        pairs = zip(ranked, to_beat, strict=False)
        better = takewhile(lambda pair: pair[0][1] > ADMIT_MARGIN + max(ADMIT_FACTOR * pair[1], least), pairs)
        return [name for (name, _), _ in better]

    def _change(self, names: list[str], stay: list[int], newcomers: list[str]) -> None:
        """A feature that leaves becomes a newcomer again and keeps its count."""
        counts = [*self._counts[stay].tolist(), *[self._newcomers.counts[name] for name in newcomers]]
        self._newcomers.remove(newcomers)
        leave = sorted(set(range(len(names))).difference(stay))
        for place in leave:
            self._newcomers.add(names[place], int(self._counts[place]))
            self._strangers.add(names[place])
        self._late = self._late.union(newcomers).difference([names[place] for place in leave])
        self._counts[:] = 0
        self._counts[: len(counts)] = counts

    @property
    def left_out(self) -> int:
        """Names that were once unknown, less those that were admitted later."""
        return len(self._strangers) - len(self._late)

    def to_arrays(self) -> Arrays:
        """All counts."""
        self._count()
        state = {"wide": self.wide, "seen": self._seen, "newcomers": self._newcomers.counts, "late": sorted(self._late)}
        return {
            "admission": json_to_array(state),
            "occurrences": self._counts,
            "strangers": np.array(self._strangers.hashes, np.uint64),
        }

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `to_arrays()`."""
        state = json_from_array(saved["admission"])
        self.wide, self._seen, self._late = state["wide"], state["seen"], set(state["late"])
        self._newcomers = HeavyHitters(state["newcomers"])
        self._counts, self._pending = saved["occurrences"], []
        self._strangers = DistinctCount(saved["strangers"].tolist())
