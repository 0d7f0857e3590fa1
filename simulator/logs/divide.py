"""A Parquet log, divided by unit into parts that can be read one after the other. Called for logs larger than memory.

All decisions of a unit come into one part, whichever row or file they are in, and units fall into parts by a hash: so
every part is a random sample of the units. Rows are copied as they are, and read later like any other table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simulator.logs import arrow
from simulator.logs.columns import Longs
from simulator.logs.errors import BadLog
from simulator.logs.files import Files, files_of
from simulator.logs.mapping import Layout, layout_of
from simulator.logs.options import ReadOptions
from simulator.logs.table_block import NO_IDS, is_nothing
from simulator.logs.table_files import ParquetTable, arrow_errors

SUFFIX = ".parquet"

TASK_ROWS = 4_000_000
"""Rows that one task divides, or what one row group has."""

BATCH_ROWS = 1 << 19
"""Rows in memory at a time."""

PART_ROWS = 1_000_000
"""Rows of a part, if nobody says how many parts there shall be."""


@dataclass(frozen=True, slots=True)
class DivideTask:
    """Some row groups of a file. unit, action: names of columns. folder: where the parts are. number: of the task."""

    file: str
    first: int
    last: int
    unit: str
    action: str
    columns: tuple[str, ...]
    parts: int
    folder: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}, row groups {self.first} to {self.last}"


@dataclass(frozen=True, slots=True)
class DividedRows:
    """What a task found. by_part: rows. actions: the ids of those that were drawn."""

    by_part: tuple[int, ...]
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Division:
    """How a log is divided. says_eligible: the log itself says which actions could be drawn."""

    tasks: tuple[DivideTask, ...]
    rows: int
    parts: int
    says_eligible: bool


def plan_division(log: Path, options: ReadOptions, *, parts: int | None, folder: Path) -> Division:
    """The tasks; reads nothing but the files' ends. parts: None for PART_ROWS rows each. Raises BadLog."""
    paths = files_of(log, (SUFFIX,))
    if any(path.suffix.lower() != SUFFIX for path in paths):
        raise BadLog(f"{log}: only Parquet can be divided; convert it, or evaluate it whole: simulator evaluate")
    layout = _layout(paths, options)
    groups = [(path, *one) for path in paths for one in _row_groups(path)]
    rows = sum(count for *_, count in groups)
    parts = parts or max(1, -(-rows // PART_ROWS))
    assert layout.unit_id
    tasks = [
        DivideTask(
            str(path), first, last, layout.unit_id, layout.action, tuple(layout.columns), parts, str(folder), number
        )
        for number, (path, first, last, _) in enumerate(groups)
    ]
    return Division(tuple(tasks), rows, parts, bool(layout.eligible or layout.pmf or layout.chosen))


def _layout(paths: Sequence[Path], options: ReadOptions) -> Layout:
    header = ParquetTable(paths[0], Files([paths[0]], options.on_progress)).header
    layout = layout_of(header, options, str(paths[0]))
    if layout.unit_id is None:
        raise BadLog(
            f"{paths[0]}: no column says who a decision is for, and parts are made by that; name it: --column "
            "unit_id=NAME (where each decision is of another visitor, the column of its id)"
        )
    return layout


def _row_groups(path: Path) -> Iterator[tuple[int, int, int]]:
    """First and last group of each task, and its rows."""
    with arrow_errors(path):
        metadata = pq.ParquetFile(path).metadata
    first, rows = 0, 0
    for group in range(metadata.num_row_groups):
        rows += metadata.row_group(group).num_rows
        if rows >= TASK_ROWS or group == metadata.num_row_groups - 1:
            yield first, group, rows
            first, rows = group + 1, 0


def divide(task: DivideTask) -> DividedRows:
    """Write the task's file into each part. The same again writes the same files. Raises BadLog or OSError."""
    actions, by_part = arrow.TextCodes(task.action), np.zeros(task.parts, np.int64)
    with arrow_errors(Path(task.file)):
        file = pq.ParquetFile(task.file)
        names = _names(task, file)
        schema = pa.schema([file.schema_arrow.field(name) for name in names.values()])
        groups = list(range(task.first, task.last + 1))
        with _writers(task, schema) as writers:
            for batch in file.iter_batches(BATCH_ROWS, row_groups=groups, columns=list(names.values())):
                rows = pa.Table.from_batches([batch]).select(list(names.values()))
                actions.codes(rows[names[task.action]].combine_chunks())
                part = _part_of(rows[names[task.unit]].combine_chunks(), int(by_part.sum()), task.parts)
                counts = np.bincount(part, minlength=task.parts)
                _write(rows, part, np.cumsum(counts), writers)
                by_part += counts
    return DividedRows(tuple(by_part.tolist()), actions.values)


def _names(task: DivideTask, file: Any) -> dict[str, str]:
    """The columns that are wanted, as people see them and as the file has them. Raises BadLog."""
    path = Path(task.file)
    header = ParquetTable(path, Files([path], lambda _: None)).header
    names = dict(zip(header, file.schema_arrow.names, strict=True))
    missing = [name for name in task.columns if name not in names]
    if missing:
        raise BadLog(f"{path}: has no column {missing[0]!r}, which the first file has; give both the same columns")
    return {name: names[name] for name in task.columns}


@contextmanager
def _writers(task: DivideTask, schema: Any) -> Iterator[list[Any]]:
    """One for each part; the files get their names when all are whole."""
    targets = [part_folder(Path(task.folder), part) / f"{task.number:06}{SUFFIX}" for part in range(task.parts)]
    unfinished = [target.with_suffix(".unfinished") for target in targets]
    with ExitStack() as opened:
        for target in unfinished:
            target.parent.mkdir(parents=True, exist_ok=True)
        yield [opened.enter_context(pq.ParquetWriter(target, schema)) for target in unfinished]
    for before, after in zip(unfinished, targets, strict=True):
        before.replace(after)


def _part_of(units: Any, first: int, parts: int) -> Longs:
    """(n,) the part of each row; those without a unit are spread evenly: each is a unit of its own."""
    keys = arrow.keys(units)
    return np.where(is_nothing(units, NO_IDS), first + np.arange(len(keys)), keys) % parts


def _write(table: Any, part: Longs, ends: Longs, writers: Sequence[Any]) -> None:
    """The rows in the order of their parts; ends: where each part ends there."""
    order = np.argsort(part, kind="stable")
    ordered = table.take(pa.array(order))
    for writer, start, end in zip(writers, [0, *ends[:-1].tolist()], ends.tolist(), strict=True):
        if end > start:
            writer.write_table(ordered.slice(start, end - start))


def part_folder(folder: Path, part: int) -> Path:
    """Where a part is.

    >>> part_folder(Path("parts"), 3).name
    'part-00003'
    """
    return folder / f"part-{part:05}"
