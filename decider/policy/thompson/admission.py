"""Which features a regression knows where there is no room for all. Called by `regression.py`.

Each learning code of Thompson sampling has its own: code 1 keeps what comes first, for ever; code 2 counts first and
admits later, so that the frequent features have the room. Where there is room for all, both do the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from math import isqrt
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from decider.policy.thompson.arrays import Arrays, Indexes, worded, words
from decider.policy.thompson.counts import Distinct, Frequent
from decider.policy.thompson.features import is_pair

CELLS = 250_000
"""Actions x features x features at most (2 MB an array): 150 features for 10 actions, 50 for 100."""

WORK, LITTLE_WORK = 40_000_000, 3_000_000
"""Actions x features^3 at most where there is no room for all: for 10 actions 150 features, which are solved in some
40 ms. The second is for a regression that forgets, which is solved often and can know less: 64 features, 5 ms."""

HALVED = 8_192
"""Decisions after which all counts are halved, so that what becomes frequent later gets its room."""

CHECKED = 1_000
"""Decisions after which the counts are looked at again, at the latest."""

RARE = 400
"""A newcomer that comes in fewer than one of so many decisions gets no room: by the time that it is known what is best
for it, more has been lost in trying than can be won. A known feature leaves at half of that."""

BATCH = 256
"""Decisions whose known features are counted together."""

FACTOR, MORE = 1.5, 5
"""A newcomer gets the room of a known feature that it exceeds by this factor and so many occurrences: two that are
about equally frequent do not take turns."""


def room(rows: int) -> int:
    """Features that so many rows have room for; the constant always has.

    >>> room(11), room(101), room(10**6)
    (150, 49, 1)
    """
    return max(1, isqrt(CELLS // rows))


def room_where_wide(rows: int, work: int) -> int:
    """The same, where there is no room for all: the solution has to have bounded cost, too.

    >>> [room_where_wide(rows, WORK) for rows in (11, 101, 1_001)]
    [150, 49, 15]
    >>> [room_where_wide(rows, LITTLE_WORK) for rows in (11, 101, 1_001)]
    [64, 30, 14]
    """
    return next((size for size in range(room(rows), 1, -1) if rows * size**3 <= work), 1)


class Admission(Protocol):
    """Sees the features of every decision that is learned, and chooses which ones are known."""

    wide: bool
    """Whether the regression has given up to know all features."""

    def see(self, places: Indexes, strangers: Sequence[str]) -> None:
        """Of one decision: the places of its known features, and the names of the others."""
        ...

    def due(self, rows: int, known: int) -> float:
        """Decisions after which the features have to be chosen again, at the latest."""
        ...

    def choose(self, names: list[str], rows: int) -> list[str]:
        """From the names by place, those by place from now on: first the ones that stay, in their order."""
        ...

    @property
    def left_out(self) -> int:
        """Different names that have come and are not known, about."""
        ...

    def saved(self) -> Arrays:
        """What it has counted, as arrays."""
        ...

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `saved()`."""
        ...


class FirstCome:
    """Learning code 1: what comes first stays."""

    wide = False

    def __init__(self, work: int = WORK) -> None:  # noqa: ARG002 - of `Counted`
        self._strangers = Distinct()

    def see(self, places: Indexes, strangers: Sequence[str]) -> None:  # noqa: ARG002 - the protocol's
        """Only how many are left out is of interest."""
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
        """Since it was loaded: the stored models of this code do not say it."""
        return len(self._strangers)

    def saved(self) -> Arrays:
        """Nothing."""
        return {}

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Nothing."""


class Counted:
    """Learning code 2: the frequent ones have the room. work: what one solution of all regressions may cost."""

    def __init__(self, work: int = WORK) -> None:
        self._work = work
        self.wide = False
        self._counts = np.zeros(room(rows=2), np.int64)
        self._uncounted: list[Indexes] = []
        self._seen = 0
        self._newcomers = Frequent()
        self._strangers = Distinct()
        self._late: set[str] = set()

    def see(self, places: Indexes, strangers: Sequence[str]) -> None:
        """Each counts once."""
        self._uncounted.append(places)
        for name in strangers:
            if name not in self._newcomers.counts:
                self._strangers.add(name)
            self._newcomers.add(name)
        self._seen += 1
        if len(self._uncounted) == BATCH:
            self._count()
        if self._seen == HALVED:
            self._count()
            self._seen = 0
            self._counts //= 2
            self._newcomers.halve()

    def _count(self) -> None:
        """Many at a time: each alone would cost more than the rest of `see`."""
        if self._uncounted:
            self._counts += np.bincount(np.concatenate(self._uncounted), minlength=len(self._counts))
            self._uncounted.clear()

    def due(self, rows: int, known: int) -> float:
        """At once where new actions have made the known features too many."""
        if rows * known * known > 2 * CELLS:
            return 0
        return CHECKED if self.wide else math.inf

    def choose(self, names: list[str], rows: int) -> list[str]:
        """The most frequent; of known ones and newcomers that are about equally frequent, the known ones."""
        self.wide = self.wide or len(names) > room(rows) or bool(self._newcomers.counts)
        if not self.wide:
            return names
        seats = room_where_wide(rows, self._work) - 1
        self._count()
        counts = self._counts.tolist()
        known = [place for place in range(1, len(names)) if 2 * RARE * counts[place] >= counts[0]]
        known.sort(key=lambda place: (counts[place], not is_pair(names[place]), -place))
        # Whoever sits where a newcomer may sit, the least frequent first; 0 is a seat that is free.
        taken = [0] * (seats - len(known)) + [counts[place] for place in known[max(0, len(known) - seats) :]]
        newcomers = self._better(taken, least=counts[0] / RARE)
        stay = [0, *sorted(known[max(0, len(known) + len(newcomers) - seats) :])]
        if newcomers or len(stay) < len(names):
            self._change(names, stay, newcomers)
        return [names[place] for place in stay] + newcomers

    def _better(self, taken: list[int], *, least: float) -> list[str]:
        """The newcomers that get seats which are taken by features of these counts."""
        ranked = sorted(self._newcomers.counts.items(), key=lambda newcomer: -newcomer[1])
        pairs = zip(ranked, taken, strict=False)
        better = takewhile(lambda pair: pair[0][1] > MORE + max(FACTOR * pair[1], least), pairs)
        return [name for (name, _), _ in better]

    def _change(self, names: list[str], stay: list[int], newcomers: list[str]) -> None:
        """Whoever leaves is a newcomer again, with its count."""
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
        """Without those that have come to be known later."""
        return len(self._strangers) - len(self._late)

    def saved(self) -> Arrays:
        """All counts."""
        self._count()
        known = {"wide": self.wide, "seen": self._seen, "newcomers": self._newcomers.counts, "late": sorted(self._late)}
        return {
            "admission": words(known),
            "occurrences": self._counts,
            "strangers": np.array(self._strangers.hashes, np.uint64),
        }

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from `saved()`."""
        known = worded(saved["admission"])
        self.wide, self._seen, self._late = known["wide"], known["seen"], set(known["late"])
        self._newcomers = Frequent(known["newcomers"])
        self._counts, self._uncounted = saved["occurrences"], []
        self._strangers = Distinct(saved["strangers"].tolist())
