"""Tables (CSV, TSV, Parquet) as columns, block by block, without a Python object for a row. Called by `open.py`.

Wide: one row a decision, perhaps with its whole pmf in columns `pmf.ACTION`. Long: one row for each action that a
decision could have drawn, `chosen` marking the drawn one; the rows of a decision stand together. A decision costs 40
bytes, 4 for each category field, 8 for each number field and 4 for each logged probability.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simulator.logs import arrow
from simulator.logs.columns import KIND, Category, Codes, Columns, Field, Flags, Floats, Longs, Number
from simulator.logs.errors import BadLog, BadRow, BadRows
from simulator.logs.files import Files
from simulator.logs.id_fields import LOOKS_LIKE_ID, id_fields, names_of_actions, unit_by_shape, without_fields
from simulator.logs.mapping import Layout, describe, layout_of, without_doubtful_unit
from simulator.logs.names import CONTEXT
from simulator.logs.options import (
    DROP,
    LARGEST_NUMBER,
    SMALLEST_PROPENSITY,
    ReadOptions,
    bad_reward,
    out_of_range,
    reward_range,
)
from simulator.logs.table_block import Block
from simulator.logs.table_files import TableFile, table_file
from simulator.logs.table_losses import LeftOutBuilder, exact_copies
from simulator.logs.table_shapes import TOLERANCE, Eligible, bad_propensity, shape_of
from simulator.logs.times import Times

SUFFIXES = (".csv", ".tsv", ".parquet")

SURELY_ID = 10_000
"""Different texts after which a field with a new one in every second row is an id for sure."""

ARCHIVED = {"experiment_version", "eligible_actions", "rewards_in_time"}
"""Columns that tell the decisions of an archive, among which are control traffic and what was overridden."""


def load(paths: Sequence[Path], name: str, options: ReadOptions) -> Columns:
    """The decisions of the files, one after the other; all have the columns of the first. Raises BadLog.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "log.csv")
    ...     _ = path.write_text("item_id,click,pscore,device\\n7,1,0.5,web\\n8,0,0.25,\\n")
    ...     columns = load([path], "log.csv", ReadOptions(on_note=print))
    log.csv: one row a decision; each column is
      item_id: action (2 actions)
      click: reward
      pscore: propensity
      device: context, category of 1 value
    >>> columns.actions, columns.reward.tolist(), columns.fields["device"]
    (('7', '8'), [1.0, 0.0], Category(codes=array([ 0, -1], dtype=int32), values=('web',)))
    """
    _check_empty_reward(options)
    files = Files(paths, options.on_progress)
    tables = [table_file(path, files, block_bytes=options.block_bytes) for path in paths]
    header = tables[0].header
    if set(header) >= ARCHIVED and not options.columns and options.mapping is None:
        raise BadLog(
            f"{paths[0]}: is from an archive of a log of ours, which is read by its folder: name the one that has "
            "part.json; to read this file alone say what its columns are: --column eligible=eligible_actions --column "
            "time=decided_at --column fields=segment,device"
        )
    layout = layout_of(header, options, str(paths[0]))
    layout = without_doubtful_unit(layout, lambda column: _has_few_values(tables[0].first([column])))
    for table, path in zip(tables, paths, strict=True):
        missing = [column for column in layout.columns if column not in table.header]
        if missing:
            raise BadLog(f"{path}: has no column {missing[0]!r}, which {paths[0]} has; give both the same columns")
    try:
        columns = _read(tables, layout, name, options)
    except BadLog:
        options.on_note(describe(layout, header, None, name))
        raise
    files.close()
    options.on_note(describe(layout, header, columns, name))
    return columns


def _check_empty_reward(options: ReadOptions) -> None:
    instead, declared = options.empty_reward, options.reward_range
    if declared and isinstance(instead, float | int) and not declared[0] <= instead <= declared[1]:
        raise BadLog(
            f"--empty-reward {instead:g} is not in the declared range [{declared[0]:g}, {declared[1]:g}]; name a "
            "reward that can be"
        )


def _read(tables: Sequence[TableFile], layout: Layout, name: str, options: ReadOptions) -> Columns:
    undecided = [one for one in layout.fields if one not in layout.numbers | layout.categories]
    builder = _Builder(layout, layout.numbers | tables[0].numeric(undecided), options)
    for table in tables:
        builder.add_all(table)
    return builder.finish(name)


def _has_few_values(rows: Any) -> bool:
    """Fewer than ten in a hundred rows or more."""
    return rows is not None and len(rows) >= 100 and pc.count_distinct(rows.column(0)).as_py() < 10


class _Builder:
    """The columns so far. They grow in place: pieces that are joined at the end would need twice the memory."""

    def __init__(self, layout: Layout, numbers: frozenset[str], options: ReadOptions) -> None:
        self._layout = layout
        self._options = options
        self._bad = BadRows(skip=options.skip_bad)
        self._actions = arrow.TextCodes(layout.action, most=options.most_texts)
        self._kinds = arrow.TextCodes(layout.action_kind or "")
        self._kinds_of: dict[int, set[int]] = defaultdict(set)
        self._times = Times(layout.time or "")
        self._shape = shape_of(layout, self._actions)
        most = defaultdict(lambda: sys.maxsize, dict.fromkeys(layout.insisted, options.most_texts))
        self._texts = {name: arrow.TextCodes(name, most=most[name]) for name in layout.fields if name not in numbers}
        self._columns: dict[str, array[Any]] = {}
        self._whole_pmf = True
        self._rows = 0
        self._given_up: dict[str, str] = {}
        self._counts: Counter[str] = Counter()
        self._left_out = LeftOutBuilder(layout.action)
        self._empty_reward = ""

    def add_all(self, table: TableFile) -> None:
        """All rows of a file."""
        layout = self._layout
        coded = [layout.action, *filter(None, (layout.eligible, layout.action_kind)), *self._texts]
        start = 0
        for rows in self._shape.blocks(table.blocks(layout.columns, coded, self._bad)):
            numbers = np.arange(start, start + len(rows))
            self._add(*self._shape.decisions(Block(rows, numbers, self._bad, table.where)))
            self._give_up_ids()
            start += len(rows)

    def _add(self, block: Block, eligible: Eligible | None) -> None:
        layout = self._layout
        found: dict[str, Any] = {"reward": self._reward(block)}
        if layout.time:
            found["time"] = block.times(layout.time, self._times)
        propensity = self._propensity(block)
        found["action"] = self._action(block)
        if layout.action_kind:
            self._add_kinds(found["action"], self._kinds.codes(block.column(layout.action_kind)), block.good)
        if eligible is not None:
            found["eligible"] = eligible.sets
            propensity = self._drawn_propensity(block, eligible, found["action"], propensity)
        found["propensity"] = propensity
        found |= {f"field {name}": self._field(block, name) for name in layout.fields if name not in self._given_up}
        found |= self._keys(block)
        self._left_out.add(block, self._rows, layout.action, found["reward"], found.get("time"))
        for name, values in found.items():
            self._put(name, values[block.good])
        if eligible is None or eligible.pmf is None:
            self._whole_pmf = False
        else:
            self._put("pmf", eligible.pmf[np.repeat(block.good, self._shape.sets.sizes(eligible.sets))])
        self._rows += len(block)

    def _put(self, name: str, values: Any) -> None:
        column = self._columns.setdefault(name, array(values.dtype.char))
        column.frombytes(np.ascontiguousarray(values).data.cast("B"))

    def _keys(self, block: Block) -> dict[str, Longs]:
        """Of units and decisions; a row without an id gets one of its own."""
        found = {}
        for what, column in (("unit", self._layout.unit_id), ("decision", self._layout.decision_id)):
            if column:
                found[what], empty = block.keys(column, first=self._rows)
                self._counts[f"without a {what} id"] += int((empty & block.good).sum())
        return found

    def _reward(self, block: Block) -> Floats:
        """Empty ones are what the user said; until then they are left out, and counted."""
        wanted, instead = self._options.reward_range, self._options.empty_reward
        empty = block.empty(self._layout.reward) & block.good
        block.good &= ~empty
        rewards = block.numbers(
            self._layout.reward, lambda values: out_of_range(values, wanted), lambda value: bad_reward(value, wanted)
        )
        if not empty.any():
            return rewards
        self._counts["empty reward"] += int(empty.sum())
        self._empty_reward = self._empty_reward or block.place(int(np.argmax(empty)))
        if isinstance(instead, float | int):
            block.good |= empty
            rewards = np.where(empty, instead, rewards)
        return rewards

    def _propensity(self, block: Block) -> Floats:
        """As it stands beside the action; nan where the table has none."""
        if self._layout.propensity is None:
            return np.full(len(block), np.nan)
        return block.numbers(self._layout.propensity, _not_propensities, bad_propensity)

    def _action(self, block: Block) -> Codes:
        block.refuse_missing(self._layout.action, BadRow("action", "has no action"))
        column = block.column(self._layout.action)
        if not block.good.all():  # an action that only a bad row names is none
            column = pc.if_else(pa.array(block.good), self._actions.texts_of(column), None)
        return self._actions.codes(column)

    def _add_kinds(self, actions: Codes, kinds: Codes, good: Flags) -> None:
        known = good & (actions >= 0) & (kinds >= 0)
        pairs = np.unique(np.stack([actions[known], kinds[known]]), axis=1)
        for action, kind in pairs.T.tolist():
            self._kinds_of[action].add(kind)

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

    def _give_up_ids(self) -> None:
        """Texts of a field that is an id for sure are forgotten early: each is a Python object."""
        kept = self._layout.insisted | self._given_up.keys()
        for name in [one for one in self._texts if one not in kept]:
            different = len(self._texts[name])
            if different > self._options.most_texts or (different > SURELY_ID and 2 * different > self._rows):
                self._given_up[name] = f"{LOOKS_LIKE_ID}: {different:,} different values in {self._rows:,} rows"
                self._texts[name] = arrow.TextCodes(name)
                self._columns.pop(f"field {name}")

    def finish(self, name: str) -> Columns:
        """Everything that was added. Raises BadLog where that is nothing."""
        self._check_empty_rewards()
        if not self._columns.get("action"):
            found = {**self._bad.counts, **{kind: count for kind, count in self._counts.items() if count}}
            raise BadLog(f"{name}: has no usable row ({found or 'it is empty'}); name another file")
        reward = self._whole("reward")
        count = len(reward)
        time = self._whole("time", np.zeros(count, np.int64))
        actions = self._all_actions(name)
        columns = Columns(
            name=name,
            actions=actions,
            action=self._whole("action"),
            propensity=self._whole("propensity"),
            reward=reward,
            reward_range=reward_range(reward, self._options.reward_range),
            range_declared=self._options.reward_range is not None,
            time=time,
            known=time,
            unit=self._whole("unit", np.arange(count)),
            sets=self._shape.sets.members or (tuple(range(len(actions))),),
            eligible=self._whole("eligible", np.zeros(count, np.int32)),
            eligible_logged=bool(self._shape.sets.members),
            pmf=self._whole("pmf") if self._whole_pmf else None,
            fields={one.removeprefix(CONTEXT): self._whole_field(one) for one in self._kept_fields},
            insisted=frozenset(one.removeprefix(CONTEXT) for one in self._layout.insisted),
            traits=self._traits(len(actions)),
        )
        counts = dict(self._counts) | ({} if self._layout.time else {"without a time": count})
        if not self._layout.decision_id and not self._given_up:  # what was given up may tell rows apart
            timed, with_units = self._layout.time is not None, self._layout.unit_id is not None
            counts["exact copies of rows"] = exact_copies(columns, timed=timed, with_units=with_units)
        empty = counts.pop("empty reward", 0) if self._options.empty_reward == DROP else 0
        left_out = {**self._bad.counts, "empty reward": empty}
        columns = replace(
            self._without_ids(columns),
            counts={kind: number for kind, number in counts.items() if number},
            left_out={kind: number for kind, number in left_out.items() if number},
        )
        decision = self._whole("decision", np.arange(count))
        return self._left_out.without_repeats(columns, decision, rows=self._rows)

    @property
    def _kept_fields(self) -> list[str]:
        return [name for name in self._layout.fields if name not in self._given_up]

    def _check_empty_rewards(self) -> None:
        count = self._counts["empty reward"]
        if count and self._options.empty_reward is None:
            raise BadLog(
                f"{self._empty_reward}: the reward is empty, here and in {count:,} of {self._rows:,} rows in all; say "
                f"what that means: --empty-reward 0 (nothing happened, like no click), or --empty-reward "
                f"{DROP} (nobody knows: such rows are left out and counted)"
            )

    def _all_actions(self, name: str) -> tuple[str, ...]:
        """Those of the table, then those that were declared besides. Raises BadLog."""
        seen, declared = self._actions.values, self._options.actions
        if declared is None:
            return seen
        if self._shape.sets.members:
            raise BadLog(f"{name}: says itself which actions could be drawn; leave out --actions")
        if not isinstance(declared, int):
            return tuple(dict.fromkeys([*seen, *declared]))
        if declared < len(seen):
            raise BadLog(f"{name}: has {len(seen):,} different actions, more than --actions {declared}; say how many")
        return (*seen, *[f"unseen-{number}" for number in range(1, declared - len(seen) + 1)])

    def _without_ids(self, columns: Columns) -> Columns:
        """Fields that look like ids are no context, unless the user said that they are."""
        numbers = {one.removeprefix(CONTEXT) for one in self._layout.numbers}
        found = id_fields(columns.fields, but=columns.insisted | numbers)
        found = {name: found[name] for name in found if name not in names_of_actions(columns, found)}
        given_up = {one.removeprefix(CONTEXT): reason for one, reason in self._given_up.items()}
        if self._layout.action_kind and not columns.traits:
            given_up[self._layout.action_kind] = "is not one for each action, so it is no kind of theirs"
        columns = replace(columns, set_aside=given_up)
        return without_fields(columns if self._layout.unit_id else unit_by_shape(columns, found), found)

    def _traits(self, actions: int) -> dict[str, tuple[str, ...]]:
        """The kind of every action, where each has one; `content` of those that were never drawn."""
        if not self._kinds_of or any(len(kinds) > 1 for kinds in self._kinds_of.values()):
            return {}
        names = self._kinds.values
        kinds = {action: names[kind] for action, (kind,) in self._kinds_of.items()}
        return {"kind": tuple([kinds.get(action, KIND) for action in range(actions)])}

    def _whole(self, name: str, otherwise: Any = None) -> Any:
        column = self._columns.get(name)
        return otherwise if column is None else np.frombuffer(column, column.typecode)

    def _whole_field(self, name: str) -> Field:
        values = self._whole(f"field {name}")
        return Category(values, self._texts[name].values) if name in self._texts else Number(values)


def _not_propensities(values: Floats) -> Flags:
    wrong: Flags = ~((values >= SMALLEST_PROPENSITY) & (values <= 1))
    return wrong


def _not_eligible(action: str) -> BadRow:
    return BadRow("eligible", f"the drawn action {action!r} is not among the eligible ones")


def _disagree(named: float, drawn: float) -> BadRow:
    return BadRow("propensity", f"the propensity {named:.6g} is not the {drawn:.6g} that the pmf gives to the action")


def _is_too_large(values: Floats) -> Flags:
    flags: Flags = np.abs(values) > LARGEST_NUMBER
    return flags


def _no_number(name: str, value: object) -> BadRow:
    wrong = "is too large for a number" if _is_number(value) else "is not a number, as the rows before had"
    return BadRow("field", f"{name} {value!r} {wrong}; say --column categories={name}, or mend it")


def _is_number(value: object) -> bool:
    return bool(arrow.all_numbers(pa.array([str(value)])))
