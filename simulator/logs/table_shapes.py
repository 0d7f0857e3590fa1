"""Wide and long tables -> decisions with their eligible sets and pmfs. Called by `tables.py`.

A wide table has one row a decision; what was eligible is said by its `pmf.ACTION` columns (empty: not eligible), by a
column of lists, or not at all (then every action always was). A long table has one row an action.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from simulator.logs import arrow
from simulator.logs.columns import Codes, Flags, Floats, Longs
from simulator.logs.errors import BadRow
from simulator.logs.mapping import PMF, Layout
from simulator.logs.table_rows import Checked, Decisions, Sets, absent, column_of

SUM = 1e-3
"""A pmf may be off by this much: it was printed with few digits."""


class Shape(Protocol):
    """How rows become decisions."""

    sets: Sets

    def blocks(self, tables: Iterator[Any]) -> Iterator[Any]:
        """The same rows, cut so that no decision is torn apart."""

    def decisions(self, table: Any, rows: Longs, checked: Checked) -> tuple[Decisions, Flags]:
        """The decisions of a block, and which are good."""


def shape_of(layout: Layout, actions: arrow.Texts) -> Shape:
    """The one that a table has.

    >>> type(shape_of(Layout(action="item", reward="click"), arrow.Texts("item"))).__name__
    'WidePlain'
    """
    if layout.chosen:
        return Long(layout, actions)
    if layout.pmf:
        return WidePmf(layout, actions)
    return WideLists(layout.eligible, actions) if layout.eligible else WidePlain()


class WidePlain:
    """Every action is always eligible, as far as the table says."""

    def __init__(self) -> None:
        self.sets = Sets()

    def blocks(self, tables: Iterator[Any]) -> Iterator[Any]:
        """See Shape."""
        return tables

    def decisions(self, table: Any, rows: Longs, checked: Checked) -> tuple[Decisions, Flags]:
        """See Shape."""
        return Decisions(table, rows), checked.good


class WideLists:
    """A column says which actions were eligible: a JSON list, or ids separated by `|`; in Parquet also a list.

    >>> from simulator.logs.errors import BadRows
    >>> lists = WideLists("eligible", arrow.Texts("action"))
    >>> rows = np.arange(2)
    >>> table = pa.table({"eligible": ["a|b", '["b"]']})
    >>> lists.decisions(table, rows, Checked(rows, BadRows(skip=False), str))[0].sets, lists.sets.members
    (array([0, 1], dtype=int32), ((0, 1), (1,)))
    """

    def __init__(self, column: str, actions: arrow.Texts) -> None:
        self.sets = Sets()
        self._column = column
        self._actions = actions
        self._texts = arrow.Texts(column)
        self._codes: list[int] = []

    def blocks(self, tables: Iterator[Any]) -> Iterator[Any]:
        """See Shape."""
        return tables

    def decisions(self, table: Any, rows: Longs, checked: Checked) -> tuple[Decisions, Flags]:
        """See Shape."""
        column = column_of(table, self._column)
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            column = pa.array([None if one is None else json.dumps(one) for one in column.to_pylist()], pa.string())
        codes = self._texts.codes(column)
        self._codes += [self._set(text) for text in self._texts.values[len(self._codes) :]]
        sets = np.array([*self._codes, -1], np.int32)[codes]
        checked.refuse(
            sets < 0,
            lambda row: BadRow("eligible", f"{self._column} {column[row].as_py()!r} is no list of actions like a|b"),
        )
        return Decisions(table, rows, sets), checked.good

    def _set(self, text: str) -> int:
        """-1 for a text that is no list."""
        try:
            ids = json.loads(text) if text.startswith("[") else text.split("|")
        except ValueError:
            return -1
        names = [str(id_) for id_ in ids]
        if not names or "" in names:
            return -1
        return self.sets.code(tuple(sorted({self._actions.code(name) for name in names})))


class WidePmf:
    """Columns `pmf.ACTION` hold the whole pmf.

    >>> from simulator.logs.errors import BadRows
    >>> actions, rows = arrow.Texts("action"), np.arange(2)
    >>> wide = WidePmf(Layout("action", "reward", pmf=("pmf.a", "pmf.b")), actions)
    >>> table = pa.table({"pmf.a": [0.25, None], "pmf.b": [0.75, 1.0]})
    >>> decisions, _ = wide.decisions(table, rows, Checked(rows, BadRows(skip=False), str))
    >>> decisions.pmf.tolist(), sorted(wide.sets.members)
    ([0.25, 0.75, 1.0], [(0, 1), (1,)])
    """

    def __init__(self, layout: Layout, actions: arrow.Texts) -> None:
        self.sets = Sets()
        self._columns = layout.pmf
        for column in layout.pmf:
            actions.code(column.removeprefix(PMF))

    def blocks(self, tables: Iterator[Any]) -> Iterator[Any]:
        """See Shape."""
        return tables

    def decisions(self, table: Any, rows: Longs, checked: Checked) -> tuple[Decisions, Flags]:
        """See Shape."""
        pmf = np.empty((len(rows), len(self._columns)))
        for index, name in enumerate(self._columns):
            pmf[:, index], wrong = arrow.numbers(column_of(table, name))
            wrong = wrong | (pmf[:, index] < 0) | (pmf[:, index] > 1 + SUM)
            checked.refuse(wrong, lambda row, name=name: _no_probability(table, name, row))  # type: ignore[misc]
        eligible = ~np.isnan(pmf)
        total = np.where(eligible, pmf, 0.0).sum(axis=1)
        checked.refuse(
            ~(np.abs(total - 1) <= SUM), lambda row: BadRow("pmf", f"the pmf sums to {total[row]:.6g}, not to 1")
        )
        decisions = Decisions(
            table, rows, self._sets(eligible, checked.good), eligible.sum(axis=1), pmf[eligible].astype(np.float32)
        )
        return decisions, checked.good

    def _sets(self, eligible: Any, good: Flags) -> Codes:
        """Of the good rows; what a bad one has is no set."""
        distinct, inverse = np.unique(np.packbits(eligible[good], axis=1), axis=0, return_inverse=True)
        flags = np.unpackbits(distinct, axis=1, count=eligible.shape[1])
        codes = [self.sets.code(tuple(np.flatnonzero(one).tolist())) for one in flags]
        sets = np.full(len(good), -1, np.int32)
        sets[good] = np.array(codes, np.int32)[inverse.ravel()]
        return sets


def _no_probability(table: Any, name: str, row: int) -> BadRow:
    return BadRow("pmf", f"{name} {column_of(table, name)[row].as_py()!r} is not in [0, 1]")


class Long:
    """One row an action; the rows of a decision stand together, and one of them is chosen."""

    def __init__(self, layout: Layout, actions: arrow.Texts) -> None:
        assert layout.chosen
        assert layout.decision_id
        self.sets = Sets()
        self._layout = layout
        self._actions = actions
        self._chosen_column: str = layout.chosen
        self._decision_id: str = layout.decision_id

    def blocks(self, tables: Iterator[Any]) -> Iterator[Any]:
        """See Shape.

        >>> long = Long(Layout("a", "r", chosen="c", decision_id="id"), arrow.Texts("a"))
        >>> pieces = [pa.table({"id": ["a", "a", "b"]}), pa.table({"id": ["b", "c"]})]
        >>> [piece["id"].to_pylist() for piece in long.blocks(iter(pieces))]
        [['a', 'a'], ['b', 'b'], ['c']]
        """
        rest = None
        for piece in tables:
            table = piece if rest is None else pa.concat_tables([rest, piece]).unify_dictionaries().combine_chunks()
            last = int(self._starts(table)[-1]) if len(table) else 0
            if last:
                yield table.slice(0, last)
            rest = table.slice(last)
        if rest is not None and len(rest):
            yield rest

    def _starts(self, table: Any) -> Longs:
        """Where a new decision begins."""
        keys = arrow.keys(column_of(table, self._decision_id))
        return np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))

    def decisions(self, table: Any, rows: Longs, checked: Checked) -> tuple[Decisions, Flags]:
        """See Shape. What is wrong with one row makes its decision bad."""
        starts = self._starts(table)
        sizes = np.diff(np.append(starts, len(table)))
        group = np.repeat(np.arange(len(starts)), sizes)
        chosen = self._chosen(table, starts, sizes, checked)
        probability = self._probability(table, chosen, checked)
        codes = self._actions.codes(column_of(table, self._layout.action))
        order = np.lexsort((codes, group))
        self._refuse_twice(codes, group, order, checked)
        good = np.logical_and.reduceat(checked.good, starts)
        whole = probability is not None and not np.isnan(probability).any()
        decisions = Decisions(
            table.take(pa.array(_first_chosen(chosen, starts))),
            rows[_first_chosen(chosen, starts)],
            self._sets(codes[order], starts, good),
            sizes,
            probability[order].astype(np.float32) if probability is not None and whole else None,
        )
        return decisions, good

    def _chosen(self, table: Any, starts: Longs, sizes: Longs, checked: Checked) -> Flags:
        column = column_of(table, self._chosen_column)
        values, wrong = arrow.numbers(column)
        values = np.nan_to_num(values)
        wrong = wrong | ~np.isin(values, (0.0, 1.0))
        checked.refuse(wrong, lambda row: _not_a_flag(self._chosen_column, column[row].as_py()))
        count = np.repeat(np.add.reduceat((values == 1).astype(np.int64), starts), sizes)
        checked.refuse(
            count != 1, lambda row: BadRow("chosen", f"{count[row]} rows of its decision are chosen, not one")
        )
        checked.refuse(absent(table, self._layout.action), lambda _: BadRow("action", "has no action"))
        flags: Flags = values == 1
        return flags

    def _probability(self, table: Any, chosen: Flags, checked: Checked) -> Floats | None:
        """Of every row's action; nan where the table has only that of the chosen ones."""
        if self._layout.propensity is None:
            return None
        column = column_of(table, self._layout.propensity)
        values, wrong = arrow.numbers(column)
        wrong = wrong | (values < 0) | (values > 1 + SUM) | (chosen & ~(values > 0))
        checked.refuse(wrong, lambda row: bad_propensity(column[row].as_py()))
        return values

    def _refuse_twice(self, codes: Codes, group: Longs, order: Longs, checked: Checked) -> None:
        same = (codes[order][1:] == codes[order][:-1]) & (group[order][1:] == group[order][:-1])
        twice = np.zeros(len(codes), np.bool_)
        twice[order[1:][same]] = True
        checked.refuse(
            twice, lambda row: BadRow("action", f"{self._actions.values[codes[row]]!r} is there twice for its decision")
        )

    def _sets(self, codes: Codes, starts: Longs, good: Flags) -> Codes:
        """Of the good decisions. Equal sets have equal sums of their actions' keys, and practically only they."""
        keys = np.append(arrow.keys(pa.array(self._actions.values, pa.string())), 0)
        with np.errstate(over="ignore"):
            sums = np.add.reduceat(keys[codes], starts)[good]
        _, first, inverse = np.unique(sums, return_index=True, return_inverse=True)
        begins, ends = starts[good], np.append(starts, len(codes))[1:][good]
        found = [self.sets.code(tuple(codes[begins[one] : ends[one]].tolist())) for one in first.tolist()]
        sets = np.full(len(starts), -1, np.int32)
        sets[good] = np.array(found, np.int32)[inverse]
        return sets


def _first_chosen(chosen: Flags, starts: Longs) -> Longs:
    """The chosen row of each decision; its first row where none is (it is bad then)."""
    where = np.where(chosen, np.arange(len(chosen)), len(chosen))
    first = np.minimum.reduceat(where, starts)
    found: Longs = np.where(first < len(chosen), first, starts)
    return found


def _not_a_flag(column: str, value: object) -> BadRow:
    return BadRow("chosen", f"{column} {value!r} is not 1 or 0")


def bad_propensity(value: object) -> BadRow:
    """What is wrong with a propensity.

    >>> bad_propensity(0.0).what
    'the propensity 0.0 is not in (0, 1]'
    """
    return BadRow("propensity", f"the propensity {value!r} is not in (0, 1]")
