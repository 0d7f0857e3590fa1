"""Tables (CSV, TSV, Parquet) as columns, block by block, without a Python object for a row. Called by `open.py`.

Wide: one row a decision, perhaps with its whole pmf in columns `pmf.ACTION`. Long: one row for each action that a
decision could have drawn, `chosen` marking the drawn one; the rows of a decision stand together. A decision costs 40
bytes, 4 for each category field, 8 for each number field and 4 for each logged probability.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simulator.logs import arrow
from simulator.logs.columns import Category, Codes, Columns, Field, Flags, Floats, Number, first_of_each
from simulator.logs.errors import BadLog, BadRow, BadRows
from simulator.logs.files import Files
from simulator.logs.mapping import CONTEXT, Layout, describe, layout_of
from simulator.logs.options import LARGEST_NUMBER, ReadOptions, bad_reward, out_of_range, reward_range
from simulator.logs.table_block import Block
from simulator.logs.table_files import TableFile, table_file
from simulator.logs.table_shapes import TOLERANCE, Eligible, bad_propensity, shape_of
from simulator.logs.times import Times

SUFFIXES = (".csv", ".tsv", ".parquet")


def load(paths: Sequence[Path], name: str, options: ReadOptions) -> Columns:
    """The decisions of the files, one after the other; all have the columns of the first. Raises BadLog.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "log.csv")
    ...     _ = path.write_text("item_id,click,pscore,device\\n7,1,0.5,web\\n8,0,0.25,\\n")
    ...     columns = load([path], "log.csv", ReadOptions(on_note=print))
    log.csv: action = item_id, propensity = pscore, reward = click; context: device (category); a wide table
    >>> columns.actions, columns.reward.tolist(), columns.fields["device"]
    (('7', '8'), [1.0, 0.0], Category(codes=array([ 0, -1], dtype=int32), values=('web',)))
    """
    files = Files(paths, options.on_progress)
    tables = [table_file(path, files, block_bytes=options.block_bytes) for path in paths]
    layout = layout_of(tables[0].header, options, str(paths[0]))
    for table, path in zip(tables, paths, strict=True):
        missing = [column for column in layout.columns if column not in table.header]
        if missing:
            raise BadLog(f"{path}: has no column {missing[0]!r}, which {paths[0]} has; give both the same columns")
    undecided = [one for one in layout.fields if one not in layout.numbers | layout.categories]
    numbers = layout.numbers | tables[0].numeric(undecided)
    options.on_note(describe(layout, name, numbers))
    builder = _Builder(layout, numbers, options)
    for table in tables:
        builder.add_all(table)
    files.close()
    return builder.finish(name)


class _Builder:
    """The columns so far. They grow in place: pieces that are joined at the end would need twice the memory."""

    def __init__(self, layout: Layout, numbers: frozenset[str], options: ReadOptions) -> None:
        self._layout = layout
        self._options = options
        self._bad = BadRows(skip=options.skip_bad)
        self._actions = arrow.TextCodes(layout.action, most=options.most_texts)
        self._times = Times(layout.time or "")
        self._shape = shape_of(layout, self._actions)
        self._texts = {
            name: arrow.TextCodes(name, most=options.most_texts) for name in layout.fields if name not in numbers
        }
        self._columns: dict[str, array[Any]] = {}
        self._whole_pmf = True

    def add_all(self, table: TableFile) -> None:
        """All rows of a file."""
        layout = self._layout
        coded = [layout.action, *([layout.eligible] if layout.eligible else []), *self._texts]
        start = 0
        for rows in self._shape.blocks(table.blocks(layout.columns, coded, self._bad)):
            numbers = np.arange(start, start + len(rows))
            self._add(*self._shape.decisions(Block(rows, numbers, self._bad, table.where)))
            start += len(rows)

    def _add(self, block: Block, eligible: Eligible | None) -> None:
        layout = self._layout
        found: dict[str, Any] = {"reward": self._reward(block)}
        if layout.time:
            found["time"] = block.times(layout.time, self._times)
        propensity = self._propensity(block)
        found["action"] = self._action(block)
        if eligible is not None:
            found["eligible"] = eligible.sets
            propensity = self._drawn_propensity(block, eligible, found["action"], propensity)
        found["propensity"] = propensity
        found |= {f"field {name}": self._field(block, name) for name in layout.fields}
        keys = {"unit": layout.unit_id, "decision": layout.decision_id}
        found |= {name: arrow.keys(block.column(column)) for name, column in keys.items() if column}
        for name, values in found.items():
            self._put(name, values[block.good])
        if eligible is None or eligible.pmf is None:
            self._whole_pmf = False
        else:
            self._put("pmf", eligible.pmf[np.repeat(block.good, self._shape.sets.sizes(eligible.sets))])

    def _put(self, name: str, values: Any) -> None:
        column = self._columns.setdefault(name, array(values.dtype.char))
        column.frombytes(np.ascontiguousarray(values).data.cast("B"))

    def _reward(self, block: Block) -> Floats:
        wanted = self._options.reward_range
        return block.numbers(
            self._layout.reward, lambda values: out_of_range(values, wanted), lambda value: bad_reward(value, wanted)
        )

    def _propensity(self, block: Block) -> Floats:
        """As it stands beside the action; nan where the table has none."""
        if self._layout.propensity is None:
            return np.full(len(block), np.nan)
        return block.numbers(self._layout.propensity, lambda values: ~((values > 0) & (values <= 1)), bad_propensity)

    def _action(self, block: Block) -> Codes:
        block.refuse_missing(self._layout.action, BadRow("action", "has no action"))
        column = block.column(self._layout.action)
        if not block.good.all():  # an action that only a bad row names is none
            column = pc.if_else(pa.array(block.good), arrow.texts(column), None)
        return self._actions.codes(column)

    def _drawn_propensity(self, block: Block, eligible: Eligible, actions: Codes, propensity: Floats) -> Floats:
        """The drawn actions' propensities: what the pmf says of them, too, must agree."""
        places = self._shape.sets.positions(eligible.sets, actions)
        block.refuse(places < 0, lambda row: _not_eligible(self._actions.values[actions[row]]))
        if eligible.pmf is None:
            return propensity
        sizes = self._shape.sets.sizes(eligible.sets)
        starts = np.cumsum(sizes) - sizes
        drawn = np.append(eligible.pmf, np.float32(0))[np.where(places < 0, -1, starts + places)].astype(np.float64)
        named = np.where(np.isnan(propensity), drawn, propensity)
        wrong = ~((drawn > 0) & (np.abs(named - drawn) <= TOLERANCE * drawn))
        block.refuse(wrong, lambda row: _disagree(named[row], drawn[row]))
        return named

    def _field(self, block: Block, name: str) -> Any:
        if name in self._texts:
            return self._texts[name].codes(block.column(name))
        return block.numbers(name, _is_too_large, lambda value: _no_number(name, value))

    def finish(self, name: str) -> Columns:
        """Everything that was added. Raises BadLog where that is nothing."""
        if not self._columns.get("action"):
            raise BadLog(f"{name}: has no usable row ({dict(self._bad.counts) or 'it is empty'}); name another file")
        reward = self._whole("reward")
        count = len(reward)
        time = self._whole("time", np.zeros(count, np.int64))
        columns = Columns(
            name=name,
            actions=self._actions.values,
            action=self._whole("action"),
            propensity=self._whole("propensity"),
            reward=reward,
            reward_range=reward_range(reward, self._options.reward_range),
            time=time,
            known=time,
            unit=self._whole("unit", np.arange(count)),
            sets=self._shape.sets.members or (tuple(range(len(self._actions.values))),),
            eligible=self._whole("eligible", np.zeros(count, np.int32)),
            pmf=self._whole("pmf") if self._whole_pmf else None,
            left_out=self._bad.counts,
            counts={} if self._layout.time else {"without a time": count},
            fields={one.removeprefix(CONTEXT): self._whole_field(one) for one in self._layout.fields},
        )
        return self._without_repeats(columns) if self._layout.decision_id else columns

    def _whole(self, name: str, otherwise: Any = None) -> Any:
        column = self._columns.get(name)
        return otherwise if column is None else np.frombuffer(column, column.typecode)

    def _whole_field(self, name: str) -> Field:
        values = self._whole(f"field {name}")
        return Category(values, self._texts[name].values) if name in self._texts else Number(values)

    def _without_repeats(self, columns: Columns) -> Columns:
        """The first row of every decision id: a repeated row is not a second draw."""
        first = first_of_each(self._whole("decision"))
        if first.all():
            return columns
        left_out = {**columns.left_out, "repeated decision id": int((~first).sum())}
        return replace(columns, left_out=left_out).take(first)


def _not_eligible(action: str) -> BadRow:
    return BadRow("eligible", f"the drawn action {action!r} is not among the eligible ones")


def _disagree(named: float, drawn: float) -> BadRow:
    return BadRow("propensity", f"the propensity {named:.6g} is not the {drawn:.6g} that the pmf gives to the action")


def _is_too_large(values: Floats) -> Flags:
    flags: Flags = np.abs(values) > LARGEST_NUMBER
    return flags


def _no_number(name: str, value: object) -> BadRow:
    return BadRow(
        "field", f"{name} {value!r} is not a number, as the rows before had; say --column categories={name}, or mend it"
    )
