"""Rows of a table that are not among its decisions, and rows that stand there twice. Called by `tables.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from simulator.logs import arrow
from simulator.logs.columns import Category, Columns, Flags, Floats, LeftOutRows, Longs, first_of_each
from simulator.logs.table_block import Block

FEW_OTHERS = 20
"""Copies are none by chance where so many rows of one time are the same in all columns for each that is not."""


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
        codes = self._actions.codes(arrow.texts(block.column(action)).take(pa.array(rows)))
        times = np.full(len(rows), -1) if time is None else np.where(time[rows] == 0, -1, time[rows])
        self._pieces.append((first + rows, codes, reward[rows], times))

    def without_repeats(self, columns: Columns, first: Flags, *, rows: int) -> Columns:
        """The decisions that come for the first time; the others are left out, too. rows: of the table."""
        lost = np.concatenate([np.zeros(0, np.int64), *[piece[0] for piece in self._pieces]])
        again = np.delete(np.arange(rows), lost)[~first]
        order = np.argsort(np.concatenate([lost, again]), kind="stable")
        if not len(order):
            return columns
        index = {action: number for number, action in enumerate(columns.actions)}
        known = np.array([*[index.get(text, -1) for text in self._actions.values], -1], np.int32)
        actions = [known[piece[1]] for piece in self._pieces]
        left_out = LeftOutRows(
            action=np.concatenate([*actions, columns.action[~first]])[order],
            reward=np.concatenate([*[piece[2] for piece in self._pieces], columns.reward[~first]])[order],
            time=np.concatenate([*[piece[3] for piece in self._pieces], self._times(columns)[~first]])[order],
        )
        counts = {**columns.left_out, "repeated decision id": len(again)} if len(again) else columns.left_out
        columns = replace(columns, left_out=counts, left_out_rows=left_out)
        return columns.take(first) if len(again) else columns

    def _times(self, columns: Columns) -> Longs:
        return columns.time if columns.time.any() else np.full(len(columns), -1)


def exact_copies(columns: Columns, *, timed: bool, with_units: bool) -> int:
    """Rows that are equal to an earlier one in every column, if that cannot be chance; otherwise 0.

    It cannot where most rows have a time, or numbers with many digits, of their own, and rows that share these share
    all the rest, too. A unit that comes back, is shown the same and does nothing again is no copy. timed, with_units:
    whether the table has times and units.
    """
    numbers = [one.values for one in columns.fields.values() if not isinstance(one, Category)]
    fine = [columns.time] * timed + [one for one in numbers if bool((one[:1000] % 1 != 0).any())]
    if not fine:
        return 0
    moments = _joined([*fine, *[columns.unit] * with_units])
    others = [one.codes if isinstance(one, Category) else one.values for one in columns.fields.values()]
    whole = _joined([moments, columns.action, columns.reward, columns.propensity, columns.eligible, *others])
    distinct = int(first_of_each(moments).sum())
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
