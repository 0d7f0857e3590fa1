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
