"""Wide and long tables -> decisions with their eligible sets and pmfs. Called by `tables.py`.

A wide table has one row a decision; what was eligible is said by its `pmf.ACTION` columns (empty: not eligible), by a
column of lists, or not at all (then every action always was). A long table has one row an action.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from simulator.logs import arrow
from simulator.logs.columns import Codes, Flags, Floats, Longs
from simulator.logs.errors import BadRow
from simulator.logs.mapping import Layout
from simulator.logs.names import PMF
from simulator.logs.options import SMALLEST_PROPENSITY
from simulator.logs.table_block import NO_IDS, Block, is_nothing

TOLERANCE = 1e-3
"""A pmf may be off by this much: it was printed with few digits."""


class Sets:
    """The distinct sets of eligible actions, by code; -1 is no set.

    >>> sets = Sets(); sets.codes(np.array([0, 2, 1, 0, 2]), np.array([2, 1, 0, 2])), sets.members
    (array([ 0,  1, -1,  0], dtype=int32), ((0, 2), (1,)))
    >>> sets.sizes(np.array([0, 1, -1])), sets.positions(np.array([0, 0, 1]), np.array([2, 1, 1]))
    (array([2, 1, 0]), array([ 1, -1,  0], dtype=int32))
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

    def codes(self, members: Codes, sizes: Longs) -> Codes:
        """Of sets that stand one after the other in `members`; an empty one is none."""
        ends = np.cumsum(sizes)[sizes > 0]
        starts = ends - sizes[sizes > 0]
        # equal sets have equal sums of their hashed actions, and practically only they: no Python object for a row;
        # + 1, because the hash of 0 is 0, and action 0 would not count
        sums = np.add.reduceat(arrow.mix(members.astype(np.uint64) + 1), starts)
        _, first, inverse = np.unique(sums, return_index=True, return_inverse=True)
        code = {one: self.code(tuple(members[starts[one] : ends[one]].tolist())) for one in np.sort(first).tolist()}
        codes = np.full(len(sizes), -1, np.int32)
        codes[sizes > 0] = np.array([code[one] for one in first.tolist()], np.int32)[inverse]
        return codes

    def sizes(self, sets: Codes) -> Longs:
        """(n,) how many actions each set has."""
        return np.array([*map(len, self._index), 0])[sets]

    def positions(self, sets: Codes, actions: Codes) -> Codes:
        """(n,) place of each action in its set; -1 where it is not in it."""
        width = int(actions.max(initial=0)) + 2
        pairs, inverse = np.unique(sets.astype(np.int64) * width + actions + 1, return_inverse=True)
        members = (*self.members, ())
        found = [_position(members[pair // width], pair % width - 1) for pair in pairs.tolist()]
        return np.array(found, np.int32)[inverse]


def _position(members: tuple[int, ...], action: int) -> int:
    return members.index(action) if action in members else -1


class Eligible(NamedTuple):
    """What could be drawn. sets: (n,) code of each decision's set, -1 where the decision is bad.

    pmf: the probabilities of the sets, one after the other; None where the table does not have them.
    """

    sets: Codes
    pmf: NDArray[np.float32] | None = None


class Shape:
    """How rows become decisions. Here a row is one, and every action is always eligible, as far as the table says."""

    def __init__(self) -> None:
        self.sets = Sets()

    def blocks(self, tables: Iterator[Any]) -> Iterator[Any]:
        """The same rows, cut between decisions: the rows of one are in one block."""
        return tables

    def decisions(self, block: Block) -> tuple[Block, Eligible | None]:
        """The decisions of a block, one row each, and what was eligible. Raises BadLog."""
        return block, None


def shape_of(layout: Layout, actions: arrow.TextCodes) -> Shape:
    """The one that a table has."""
    if layout.chosen:
        return Long(layout, actions)
    if layout.pmf:
        return WidePmf(layout, actions)
    return WideLists(layout.eligible, actions) if layout.eligible else Shape()


class WideLists(Shape):
    """A column says which actions were eligible: a JSON list, or ids separated by `|`; in Parquet also a list."""

    def __init__(self, column: str, actions: arrow.TextCodes) -> None:
        super().__init__()
        self._column = column
        self._actions = actions
        self._texts = arrow.TextCodes(column)
        self._codes: list[int] = []

    def decisions(self, block: Block) -> tuple[Block, Eligible | None]:
        """See Shape."""
        column = block.column(self._column)
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            column = pa.array([None if one is None else json.dumps(one) for one in column.to_pylist()], pa.string())
        codes = self._texts.codes(column)
        self._codes += [self._code(text) for text in self._texts.values[len(self._codes) :]]
        sets = np.array([*self._codes, -1], np.int32)[codes]
        block.refuse(
            sets < 0,
            lambda row: BadRow("eligible", f"{self._column} {column[row].as_py()!r} is no list of actions like a|b"),
        )
        return block, Eligible(sets)

    def _code(self, text: str) -> int:
        """-1 for a text that is no list."""
        try:
            ids = json.loads(text) if text.startswith("[") else text.split("|")
        except ValueError:
            return -1
        names = [str(id_) for id_ in ids]
        if not names or "" in names:
            return -1
        return self.sets.code(tuple(sorted({self._actions.code(name) for name in names})))


class WidePmf(Shape):
    """Columns `pmf.ACTION` hold the whole pmf."""

    def __init__(self, layout: Layout, actions: arrow.TextCodes) -> None:
        super().__init__()
        self._columns = layout.pmf
        for column in layout.pmf:
            actions.code(column.removeprefix(PMF))

    def decisions(self, block: Block) -> tuple[Block, Eligible | None]:
        """See Shape."""
        pmf = np.stack([self._probabilities(block, name) for name in self._columns], axis=1)
        total = np.nansum(pmf, axis=1)
        block.refuse(
            ~(np.abs(total - 1) <= TOLERANCE), lambda row: BadRow("pmf", f"the pmf sums to {total[row]:.6g}, not to 1")
        )
        eligible = ~np.isnan(pmf) & block.good[:, None]
        sets = self.sets.codes(np.nonzero(eligible)[1].astype(np.int32), eligible.sum(axis=1))
        return block, Eligible(sets, pmf[eligible].astype(np.float32))

    def _probabilities(self, block: Block, name: str) -> Floats:
        return block.numbers(
            name,
            lambda values: (values < 0) | (values > 1 + TOLERANCE),
            lambda value: BadRow("pmf", f"{name} {value!r} is not in [0, 1]"),
        )


class Long(Shape):
    """One row an action; the rows of a decision stand together, and one of them is chosen."""

    def __init__(self, layout: Layout, actions: arrow.TextCodes) -> None:
        assert layout.chosen
        assert layout.decision_id
        super().__init__()
        self._layout = layout
        self._actions = actions
        self._chosen_column: str = layout.chosen
        self._decision_id: str = layout.decision_id

    def blocks(self, tables: Iterator[Any]) -> Iterator[Any]:
        """See Shape.

        >>> long = Long(Layout("a", "r", chosen="c", decision_id="id"), arrow.TextCodes("a"))
        >>> pieces = [pa.table({"id": ["a", "a", "b"]}), pa.table({"id": ["b", "c"]})]
        >>> [piece["id"].to_pylist() for piece in long.blocks(iter(pieces))]
        [['a', 'a'], ['b', 'b'], ['c']]
        """
        rest = None
        for piece in tables:
            table = piece if rest is None else pa.concat_tables([rest, piece]).unify_dictionaries().combine_chunks()
            last = int(self._starts(table[self._decision_id].combine_chunks())[-1]) if len(table) else 0
            if last:
                yield table.slice(0, last)
            rest = table.slice(last)
        if rest is not None and len(rest):
            yield rest

    def _starts(self, decision_ids: Any) -> Longs:
        """Where a new decision begins; a row without an id is one of its own, and bad."""
        keys = arrow.keys(decision_ids)
        empty = is_nothing(decision_ids, NO_IDS)
        keys = np.where(empty, np.arange(len(keys)), keys)
        return np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))

    def decisions(self, block: Block) -> tuple[Block, Eligible | None]:
        """See Shape. What is wrong with one row makes its decision bad."""
        starts = self._starts(block.column(self._decision_id))
        block.refuse(
            is_nothing(block.column(self._decision_id), NO_IDS),
            lambda _: BadRow("decision id", f"has no {self._decision_id}, which says which rows are one decision"),
        )
        sizes = np.diff(np.append(starts, len(block)))
        group = np.repeat(np.arange(len(starts)), sizes)
        chosen = self._chosen(block, starts, sizes)
        probability = self._probability(block, chosen)
        codes = self._actions.codes(block.column(self._layout.action))
        order = np.lexsort((codes, group))
        self._refuse_twice(block, codes, group, order)
        good = np.logical_and.reduceat(block.good, starts)
        kept = order[np.repeat(good, sizes)]
        return block.take(_first_chosen(chosen, starts), good), Eligible(
            self.sets.codes(codes[kept], sizes * good),
            None if np.isnan(probability).any() else probability[kept].astype(np.float32),
        )

    def _chosen(self, block: Block, starts: Longs, sizes: Longs) -> Flags:
        values = block.numbers(
            self._chosen_column,
            lambda values: ~np.isin(np.nan_to_num(values), (0.0, 1.0)),
            lambda value: BadRow("chosen", f"{self._chosen_column} {value!r} is not 1 or 0"),
        )
        chosen: Flags = values == 1.0
        count = np.repeat(np.add.reduceat(chosen.astype(np.int64), starts), sizes)
        block.refuse(count != 1, lambda row: BadRow("chosen", f"{count[row]} rows of its decision are chosen, not one"))
        block.refuse_missing(self._layout.action, BadRow("action", "has no action"))
        return chosen

    def _probability(self, block: Block, chosen: Flags) -> Floats:
        """Of every row's action; nan where the table does not have it, often for all but the chosen ones."""
        if self._layout.propensity is None:
            return np.full(len(block), np.nan)
        return block.numbers(
            self._layout.propensity,
            lambda values: (values < 0) | (values > 1 + TOLERANCE) | (chosen & ~(values >= SMALLEST_PROPENSITY)),
            bad_propensity,
        )

    def _refuse_twice(self, block: Block, codes: Codes, group: Longs, order: Longs) -> None:
        same = (codes[order][1:] == codes[order][:-1]) & (group[order][1:] == group[order][:-1])
        twice = np.zeros(len(codes), np.bool_)
        twice[order[1:][same]] = True
        block.refuse(
            twice, lambda row: BadRow("action", f"{self._actions.values[codes[row]]!r} is there twice for its decision")
        )


def _first_chosen(chosen: Flags, starts: Longs) -> Longs:
    """The chosen row of each decision; its first row where none is (it is bad then)."""
    where = np.where(chosen, np.arange(len(chosen)), len(chosen))
    first = np.minimum.reduceat(where, starts)
    found: Longs = np.where(first < len(chosen), first, starts)
    return found


def bad_propensity(value: object) -> BadRow:
    """What is wrong with a propensity.

    >>> bad_propensity(0.0).what, bad_propensity("1e-320").what
    ('the propensity 0.0 is not in (0, 1]', "the propensity '1e-320' is too small to be one that was ever drawn")
    """
    if value is None or not str(value).strip():
        return BadRow("propensity", "the propensity is empty")
    if _is_tiny(value):
        return BadRow("propensity", f"the propensity {value!r} is too small to be one that was ever drawn")
    return BadRow("propensity", f"the propensity {value!r} is not in (0, 1]")


def _is_tiny(value: object) -> bool:
    try:
        return 0 < float(str(value)) < SMALLEST_PROPENSITY
    except ValueError:
        return False
