"""A block of a table's rows: their values, and which rows are good so far. Called by `tables.py`, `table_shapes.py`.

A block is an Arrow table; nothing here makes a Python object for a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simulator.logs import arrow
from simulator.logs.columns import Flags, Floats, Longs
from simulator.logs.errors import BadLog, BadRow, BadRows
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
        with _readable(column, name, "numbers"):
            values, unreadable = arrow.numbers(column)
        self.refuse(unreadable | wrong(values), lambda row: problem(column[row].as_py()))
        return values

    def times(self, name: str, times: Times) -> Longs:
        """A column's times in microseconds since 1970; refuses what is none. Raises BadLog."""
        column = self.column(name)
        with _readable(column, name, "times"):
            values, wrong = times.read(column)
        self.refuse(wrong, lambda row: times.problem(column[row].as_py()))
        return values

    def keys(self, name: str, *, first: int) -> tuple[Longs, Flags]:
        """Ids as numbers that are equal where the ids are, and which rows have none: those get one of their own.

        first: of these; from there on they count up. Raises BadLog.

        >>> block = Block(pa.table({"id": ["ann", "", "NULL"]}), np.arange(3), BadRows(skip=True), str)
        >>> block.keys("id", first=10)[0][1:].tolist()
        [11, 12]
        """
        column = self.column(name)
        with _readable(column, name, "ids"):
            keys, empty = arrow.keys(column), is_nothing(column, NO_IDS)
        return np.where(empty, first + np.arange(len(keys)), keys), empty

    def empty(self, name: str) -> Flags:
        """Rows that have no number in a column, nor anything else. Raises BadLog.

        >>> Block(pa.table({"r": ["1", "", "NULL", "x"]}), np.arange(4), BadRows(skip=True), str).empty("r").tolist()
        [False, True, True, False]
        """
        column = self.column(name)
        with _readable(column, name, "numbers"):
            return is_nothing(column, arrow.NULLS)

    def place(self, row: int) -> str:
        """Where a row stands, for people."""
        return self._where(int(self._rows[row]))

    def refuse_missing(self, name: str, problem: BadRow) -> None:
        """Rows that have nothing in a column. Raises BadLog."""
        self.refuse(arrow.is_missing(self.column(name)), lambda _: problem)


NO_IDS = (*arrow.NULLS, "-", "--", "unknown", "(not set)", "(none)", "00000000-0000-0000-0000-000000000000")
"""Texts that stand for no id. 0 may be one."""


def is_nothing(column: Any, texts: Sequence[str]) -> Flags:
    """(n,) where an Arrow array is empty or holds one of the texts, blanks and case aside."""
    if pa.types.is_integer(column.type):
        return arrow.is_missing(column)
    lower = pc.utf8_lower(pc.utf8_trim_whitespace(arrow.texts(column)))
    found: Flags = pc.is_in(lower, pa.array([*texts, None], pa.string())).to_numpy(zero_copy_only=False)
    return found


@contextmanager
def _readable(column: Any, name: str, what: str) -> Iterator[None]:
    try:
        yield
    except pa.ArrowException as error:
        raise BadLog(
            f"column {name!r} holds {column.type}, which cannot be read as {what} ({error}); write it as texts or "
            f"numbers, or leave it out: --column ignore={name}"
        ) from error
