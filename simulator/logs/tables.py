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
from simulator.logs.columns import Codes, Columns, Field, Flags, Floats, Longs, Number
from simulator.logs.errors import BadLog, BadRow, BadRows
from simulator.logs.files import Files
from simulator.logs.mapping import CONTEXT, Layout, layout_of, told
from simulator.logs.options import ReadOptions, bad_reward, outside, reward_range
from simulator.logs.table_files import TableFile, table_file
from simulator.logs.table_rows import Checked, Decisions, absent, column_of
from simulator.logs.table_shapes import SUM, bad_propensity, shape_of

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
    tables = [table_file(path, files) for path in paths]
    layout = layout_of(tables[0].header, options, str(paths[0]))
    for table, path in zip(tables, paths, strict=True):
        missing = [column for column in layout.columns if column not in table.header]
        if missing:
            raise BadLog(f"{path}: has no column {missing[0]!r}, which {paths[0]} has; give both the same columns")
    undecided = [one for one in layout.fields if one not in layout.numbers | layout.categories]
    numbers = layout.numbers | tables[0].numeric(undecided)
    options.on_note(told(layout, name, numbers))
    gathered = _Gathered(layout, numbers, options)
    for table in tables:
        gathered.add_all(table)
    files.close()
    return gathered.finish(name)


class _Gathered:
    """The columns so far. They grow in place: pieces that are joined at the end would need twice the memory."""

    def __init__(self, layout: Layout, numbers: frozenset[str], options: ReadOptions) -> None:
        self._layout = layout
        self._options = options
        self._bad = BadRows(skip=options.skip_bad)
        self._actions = arrow.Texts(layout.action)
        self._shape = shape_of(layout, self._actions)
        self._texts = {name: arrow.Texts(name) for name in layout.fields if name not in numbers}
        self._columns: dict[str, array[Any]] = {}
        self._whole_pmf = True

    def add_all(self, table: TableFile) -> None:
        """All rows of a file."""
        layout = self._layout
        coded = [layout.action, *([layout.eligible] if layout.eligible else []), *self._texts]
        start = 0
        for block in self._shape.blocks(table.blocks(layout.columns, coded, self._bad)):
            rows = np.arange(start, start + len(block))
            checked = Checked(rows, self._bad, table.where)
            decisions, good = self._shape.decisions(block, rows, checked)
            self._add(decisions, good, Checked(decisions.rows, self._bad, table.where))
            start += len(block)

    def _add(self, decisions: Decisions, good: Flags, checked: Checked) -> None:
        checked.good &= good
        found: dict[str, Any] = {"reward": self._reward(decisions.table, checked)}
        found |= self._time(decisions.table, checked)
        propensity = self._propensity(decisions.table, checked)
        found["action"] = self._action(decisions.table, checked)
        found["propensity"] = self._drawn(decisions, found["action"], propensity, checked)
        found |= {f"field {name}": self._field(decisions.table, name, checked) for name in self._layout.fields}
        found |= self._keys(decisions.table)
        if decisions.sets is not None:
            found["eligible"] = decisions.sets
        for name, values in found.items():
            self._put(name, values if checked.good.all() else values[checked.good])
        if decisions.pmf is not None and decisions.sizes is not None:
            self._put("pmf", decisions.pmf[np.repeat(checked.good, decisions.sizes)])
        else:
            self._whole_pmf = False

    def _put(self, name: str, values: Any) -> None:
        column = self._columns.setdefault(name, array(values.dtype.char))
        column.frombytes(np.ascontiguousarray(values).data.cast("B"))

    def _reward(self, table: Any, checked: Checked) -> Floats:
        column = column_of(table, self._layout.reward)
        rewards, _ = arrow.numbers(column)
        declared = self._options.reward_range
        checked.refuse(outside(rewards, declared), lambda row: bad_reward(column[row].as_py(), declared))
        return rewards

    def _time(self, table: Any, checked: Checked) -> dict[str, Longs]:
        if self._layout.time is None:
            return {}
        column = column_of(table, self._layout.time)
        times, wrong = arrow.times(column)
        checked.refuse(wrong, lambda row: _bad_time(column[row].as_py()))
        return {"time": times}

    def _propensity(self, table: Any, checked: Checked) -> Floats | None:
        if self._layout.propensity is None:
            return None
        column = column_of(table, self._layout.propensity)
        found, _ = arrow.numbers(column)
        checked.refuse(~((found > 0) & (found <= 1)), lambda row: bad_propensity(column[row].as_py()))
        return found

    def _action(self, table: Any, checked: Checked) -> Codes:
        checked.refuse(absent(table, self._layout.action), lambda _: BadRow("action", "has no action"))
        column = column_of(table, self._layout.action)
        if not checked.good.all():
            column = pc.if_else(pa.array(checked.good), arrow.texts(column), None)
        return self._actions.codes(column)

    def _drawn(self, decisions: Decisions, actions: Codes, propensity: Floats | None, checked: Checked) -> Floats:
        """The propensity: as logged beside the action, or what the pmf says of it; both must agree."""
        if decisions.sets is None:
            return np.full(len(actions), np.nan) if propensity is None else propensity
        places = self._shape.sets.positions(decisions.sets, actions)
        checked.refuse(places < 0, lambda row: _not_eligible(self._actions.values[actions[row]]))
        if decisions.pmf is None or decisions.sizes is None:
            return np.full(len(actions), np.nan) if propensity is None else propensity
        starts = np.cumsum(decisions.sizes) - decisions.sizes
        padded = np.append(decisions.pmf, np.float32(0))
        drawn = padded[np.where(places < 0, -1, starts + places)].astype(np.float64)
        named = drawn if propensity is None else propensity
        wrong = ~((drawn > 0) & (np.abs(named - drawn) <= SUM * drawn))
        checked.refuse(wrong, lambda row: _disagree(named[row], drawn[row]))
        return named

    def _field(self, table: Any, name: str, checked: Checked) -> Any:
        column = column_of(table, name)
        if name in self._texts:
            return self._texts[name].codes(column)
        values, wrong = arrow.numbers(column)
        checked.refuse(wrong | np.isinf(values), lambda row: _no_number(name, column[row].as_py()))
        return values

    def _keys(self, table: Any) -> dict[str, Longs]:
        layout = self._layout
        named = {"unit": layout.unit_id, "decision": layout.decision_id}
        return {name: arrow.keys(column_of(table, column)) for name, column in named.items() if column is not None}

    def finish(self, name: str) -> Columns:
        """Everything that was added. Raises BadLog where that is nothing."""
        if not self._columns.get("action"):
            raise BadLog(f"{name}: has no usable row ({dict(self._bad.counts) or 'it is empty'}); name another file")
        action, reward = self._whole("action"), self._whole("reward")
        count = len(action)
        time = self._whole("time") if self._layout.time else np.zeros(count, np.int64)
        members = self._shape.sets.members
        columns = Columns(
            name=name,
            actions=self._actions.values,
            action=action,
            propensity=self._whole("propensity"),
            reward=reward,
            reward_range=reward_range(reward, self._options.reward_range),
            time=time,
            known=time,
            unit=self._whole("unit") if self._layout.unit_id else np.arange(count),
            sets=members or (tuple(range(len(self._actions.values))),),
            eligible=self._whole("eligible") if members else np.zeros(count, np.int32),
            pmf=self._whole("pmf") if self._whole_pmf else None,
            left_out=self._bad.counts,
            counts={} if self._layout.time else {"without a time": count},
            fields={one.removeprefix(CONTEXT): self._whole_field(one) for one in self._layout.fields},
        )
        return self._once(columns) if self._layout.decision_id else columns

    def _whole(self, name: str) -> Any:
        column = self._columns[name]
        return np.frombuffer(column, column.typecode)

    def _whole_field(self, name: str) -> Field:
        values = self._whole(f"field {name}")
        return self._texts[name].category(values) if name in self._texts else Number(values)

    def _once(self, columns: Columns) -> Columns:
        """The first row of every decision id: a row that comes again is no other draw."""
        first = np.zeros(len(columns), np.bool_)
        first[np.unique(self._whole("decision"), return_index=True)[1]] = True
        if first.all():
            return columns
        left_out = {**columns.left_out, "repeated decision id": int((~first).sum())}
        return replace(columns, left_out=left_out).take(first)


def _bad_time(value: object) -> BadRow:
    return BadRow("time", f"the time {value!r} is not like 2021-07-29T10:00:00Z or seconds since 1970")


def _not_eligible(action: str) -> BadRow:
    return BadRow("eligible", f"the drawn action {action!r} is not among the eligible ones")


def _disagree(named: float, drawn: float) -> BadRow:
    return BadRow("propensity", f"the propensity {named:.6g} is not the {drawn:.6g} that the pmf gives to the action")


def _no_number(name: str, value: object) -> BadRow:
    return BadRow(
        "field", f"{name} {value!r} is not a number, as the rows before had; say --column categories={name}, or mend it"
    )
