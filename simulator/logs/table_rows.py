"""What a block of a table is before it is columns: its decisions, and which of them are good. Called by `tables.py`.

A block is an Arrow table; nothing here makes a Python object for a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.logs.columns import Codes, Flags, Longs
from simulator.logs.errors import BadRow, BadRows


class Decisions(NamedTuple):
    """One row each. rows: their numbers in the file, from 0. sets: code of the eligible set; None: all actions.

    sizes: of these sets; pmf: their probabilities, one after the other in the order of the set; None where the table
    does not have them.
    """

    table: Any
    rows: Longs
    sets: Codes | None = None
    sizes: Longs | None = None
    pmf: NDArray[np.float32] | None = None


class Checked:
    """Which rows of a block are good so far. A bad row ends the reading, or is counted once.

    >>> checked = Checked(np.arange(3), BadRows(skip=True), str)
    >>> checked.refuse(np.array([True, False, True]), lambda index: BadRow("time", "has no time"))
    >>> checked.good.tolist()
    [False, True, False]
    """

    def __init__(self, rows: Longs, bad: BadRows, where: Callable[[int], str]) -> None:
        self.good: Flags = np.ones(len(rows), np.bool_)
        self._rows = rows
        self._bad = bad
        self._where = where

    def refuse(self, wrong: Flags, row: Callable[[int], BadRow]) -> None:
        """Rows that are wrong; `row` says what is wrong with the one at an index of the block. Raises BadLog."""
        wrong = wrong & self.good
        count = int(wrong.sum())
        if count:
            first = int(np.argmax(wrong))
            self._bad.add(row(first), where=lambda: self._where(int(self._rows[first])), count=count)
            self.good &= ~wrong


class Sets:
    """The distinct sets of eligible actions, by code.

    >>> sets = Sets(); sets.code((0, 2)), sets.code((1,)), sets.code((0, 2))
    (0, 1, 0)
    >>> sets.positions(np.array([0, 0, 1]), np.array([2, 1, 1]))
    array([ 1, -1,  0], dtype=int32)
    """

    def __init__(self) -> None:
        self._index: dict[tuple[int, ...], int] = {}

    @property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """By code."""
        return tuple(self._index)

    def code(self, members: tuple[int, ...]) -> int:
        """Of a set, its actions in rising order."""
        return self._index.setdefault(members, len(self._index))

    def positions(self, sets: Codes, actions: Codes) -> Codes:
        """(n,) place of each action in its set; -1 where it is not in it, or a row has no set (-1)."""
        width = int(actions.max(initial=0)) + 2
        pairs, inverse = np.unique(sets.astype(np.int64) * width + actions + 1, return_inverse=True)
        members = (*self.members, ())
        found = [_place(members[pair // width], pair % width - 1) for pair in pairs.tolist()]
        return np.array(found, np.int32)[inverse] if len(found) else np.zeros(0, np.int32)


def _place(members: tuple[int, ...], action: int) -> int:
    return members.index(action) if action in members else -1


def column_of(table: Any, name: str) -> Any:
    """A column of a block as one Arrow array.

    >>> import pyarrow as pa
    >>> column_of(pa.table({"x": [1, None]}), "x").to_pylist()
    [1, None]
    """
    return table[name].combine_chunks()


def absent(table: Any, name: str) -> Flags:
    """Where a column has nothing.

    >>> import pyarrow as pa
    >>> absent(pa.table({"x": [1, None]}), "x").tolist()
    [False, True]
    """
    missing: Flags = column_of(table, name).is_null().to_numpy(zero_copy_only=False)
    return missing
