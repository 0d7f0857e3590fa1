"""Rows of a table that are not among its decisions, and rows that stand there twice. Called by `tables.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from simulator.logs import arrow
from simulator.logs.columns import Category, Columns, Flags, Floats, LeftOutRows, Longs, first_of_each
from simulator.logs.repeats import other_decisions
from simulator.logs.table_block import Block

FEW_OTHERS = 20
"""Copies are none by chance where so many rows of one time are the same in all columns for each that is not."""


MOST_TIMES = 5
"""Rows that come again in the same order more often are no table that was written so often, but made by counting."""

ENOUGH_DISTINCT = 20
"""Among so many different rows, chance makes all of their counts even once in a million logs."""

CHANCE = 1e-9
"""With which rows may come again in the same order, if they are drawn independently."""


class LeftOutBuilder:
    """What is known of the rows that are left out. action: the column's name."""

    def __init__(self, action: str) -> None:
        self._actions = arrow.TextCodes(action)
        self._pieces: list[tuple[Longs, Any, Floats, Longs]] = []

    def add(self, block: Block, first: int, action: str, reward: Floats, time: Longs | None) -> None:
        """The rows of a block that are not good. first: number of its first row; reward, time: of all its rows."""
        rows = np.flatnonzero(~block.good)
        if not len(rows):
            return
        codes = self._actions.codes(self._actions.texts_of(block.column(action)).take(pa.array(rows)))
        times = np.full(len(rows), -1) if time is None else np.where(time[rows] == 0, -1, time[rows])
        self._pieces.append((first + rows, codes, reward[rows], times))

    def without_repeats(self, columns: Columns, decision: Longs, *, rows: int) -> Columns:
        """The decisions that come for the first time. A second delivery is no loss, another row with the same id is.

        decision: (n,) keys of the ids; rows: of the table.
        """
        first = first_of_each(decision)
        other = other_decisions(columns, decision, timed=bool(columns.time.any()))
        lost = np.concatenate([np.zeros(0, np.int64), *[piece[0] for piece in self._pieces]])
        order = np.argsort(np.concatenate([lost, np.delete(np.arange(rows), lost)[other]]), kind="stable")
        again = int((~first & ~other).sum())
        repeats = {"repeated decision id": again, "repeated decision id of another row": int(other.sum())}
        counts = {**columns.left_out, **{kind: number for kind, number in repeats.items() if number}}
        columns = replace(columns, left_out=counts, left_out_rows=self._rows(columns, other, order))
        return columns if first.all() else columns.take(first)

    def _rows(self, columns: Columns, other: Flags, order: Longs) -> LeftOutRows | None:
        if not len(order):
            return None
        index = {action: number for number, action in enumerate(columns.actions)}
        known = np.array([*[index.get(text, -1) for text in self._actions.values], -1], np.int32)
        actions = [known[piece[1]] for piece in self._pieces]
        return LeftOutRows(
            action=np.concatenate([*actions, columns.action[other]])[order],
            reward=np.concatenate([*[piece[2] for piece in self._pieces], columns.reward[other]])[order],
            time=np.concatenate([*[piece[3] for piece in self._pieces], self._times(columns)[other]])[order],
        )

    def _times(self, columns: Columns) -> Longs:
        return columns.time if columns.time.any() else np.full(len(columns), -1)


def exact_copies(columns: Columns, *, timed: bool, with_units: bool) -> int:
    """Rows that are equal to an earlier one in every column, if that cannot be chance; otherwise 0.

    timed, with_units: whether the table has times and units.
    """
    return _written_again(columns) or _copies_by_time(columns, timed=timed, with_units=with_units)


def _written_again(columns: Columns) -> int:
    """Of a table that holds everything k times, one after the other or mixed: every row comes k times, or 2 k, ..."""
    rows = len(columns)
    if np.gcd.reduce(np.bincount(columns.action)) < 2:  # nearly always: then no row needs to be compared
        return 0
    unit = np.where(columns.unit < rows, 0, columns.unit)  # of a row without an id: its number
    fields = [one for one in _values(columns) if not _counts_rows(one)]
    keys = _joined([*_drawn(columns), columns.time, unit, *fields])
    counts = np.unique(keys, return_counts=True)[1]
    every = int(np.gcd.reduce(counts))
    in_order = max(times for times in range(1, every + 1) if every % times == 0 and _repeats(keys, rows // times))
    if in_order > MOST_TIMES:
        return 0
    if len(counts) >= ENOUGH_DISTINCT:
        return rows - rows // every
    copies = rows - rows // in_order
    return copies if copies * np.log(((counts / rows) ** 2).sum()) < np.log(CHANCE) else 0


def _repeats(keys: Longs, period: int) -> bool:
    """Whether every row is equal to the one a period before it. The first hundred nearly always tell."""
    rest = keys[period:]
    first = rest[:100]
    return np.array_equal(first, keys[: len(first)]) and np.array_equal(rest, keys[: len(rest)])


def _drawn(columns: Columns) -> list[Any]:
    return [columns.action, columns.reward, columns.propensity, columns.eligible]


def _values(columns: Columns) -> list[Any]:
    return [one.codes if isinstance(one, Category) else one.values for one in columns.fields.values()]


def _counts_rows(values: Any) -> bool:
    """The number of a row tells no decisions apart."""
    return values.dtype.kind == "f" and bool((np.diff(values) == 1).all())


def _copies_by_time(columns: Columns, *, timed: bool, with_units: bool) -> int:
    """Where most rows have a time, or numbers with many digits, of their own, and rows that share these share the rest.

    A unit that comes back, is shown the same and does nothing again is no copy.
    """
    numbers = [one.values for one in columns.fields.values() if not isinstance(one, Category)]
    fine = [columns.time] * timed + [one for one in numbers if bool((one[:1000] % 1 != 0).any())]
    if not fine:
        return 0
    moments = _joined([*fine, *[columns.unit] * with_units])
    distinct = int(first_of_each(moments).sum())
    whole = _joined([moments, *_drawn(columns), *_values(columns)])
    again = len(columns) - int(first_of_each(whole).sum())
    differing = len(columns) - distinct - again
    return again if 2 * distinct >= len(columns) and again > FEW_OTHERS * differing else 0


def _joined(columns: list[Any]) -> Longs:
    """(n,) a key of the values of each row: equal where all are, and practically only there."""
    keys = np.zeros(len(columns[0]), np.uint64)
    for number, values in enumerate(columns, start=1):
        bits = np.ascontiguousarray(values, np.float64 if values.dtype.kind == "f" else np.int64).view(np.uint64)
        keys = arrow.mix(keys + arrow.mix(bits + np.uint64(number)) * np.uint64(2) + np.uint64(1))
    return keys.view(np.int64)
