"""A block of a table's rows: their values, and which rows are good so far. Called by `tables.py`, `table_shapes.py`.

A block is an Arrow table; nothing here makes a Python object for a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from simulator.logs import arrow
from simulator.logs.columns import Flags, Floats, Longs
from simulator.logs.errors import BadRow, BadRows
from simulator.logs.times import Times


class Block:
    """rows: their numbers in the file, from 0. A bad row ends the reading, or is counted once and is good no more.

    >>> block = Block(pa.table({"reward": ["1", "x", "3"]}), np.arange(3), BadRows(skip=True), str)
    >>> block.numbers("reward", lambda values: values > 2, lambda value: BadRow("reward", f"{value} is wrong"))
    array([ 1., nan,  3.])
    >>> block.good.tolist()
    [True, False, False]
    """

    def __init__(self, table: Any, rows: Longs, bad: BadRows, where: Callable[[int], str]) -> None:
        self.good: Flags = np.ones(len(rows), np.bool_)
        self._table = table
        self._rows = rows
        self._bad = bad
        self._where = where

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, rows: Longs, good: Flags) -> Block:
        """Some of the rows, by their index; `good`: which of these are."""
        taken = Block(self._table.take(pa.array(rows)), self._rows[rows], self._bad, self._where)
        taken.good = good
        return taken

    def refuse(self, wrong: Flags, problem: Callable[[int], BadRow]) -> None:
        """Rows that are wrong; `problem` says what is wrong with the one at an index. Raises BadLog."""
        wrong = wrong & self.good
        count = int(wrong.sum())
        if count:
            first = int(np.argmax(wrong))
            self._bad.add(problem(first), where=lambda: self._where(int(self._rows[first])), count=count)
            self.good &= ~wrong

    def column(self, name: str) -> Any:
        """The values of a column as one Arrow array."""
        return self._table[name].combine_chunks()

    def numbers(self, name: str, wrong: Callable[[Floats], Flags], problem: Callable[[object], BadRow]) -> Floats:
        """A column's numbers, nan where it is empty; refuses what is no number, and a `wrong` one. Raises BadLog."""
        column = self.column(name)
        values, unreadable = arrow.numbers(column)
        self.refuse(unreadable | wrong(values), lambda row: problem(column[row].as_py()))
        return values

    def times(self, name: str, times: Times) -> Longs:
        """A column's times in microseconds since 1970; refuses what is none. Raises BadLog."""
        column = self.column(name)
        values, wrong = times.read(column)
        self.refuse(wrong, lambda row: times.problem(column[row].as_py()))
        return values

    def refuse_missing(self, name: str, problem: BadRow) -> None:
        """Rows that have nothing in a column. Raises BadLog."""
        self.refuse(arrow.is_missing(self.column(name)), lambda _: problem)
