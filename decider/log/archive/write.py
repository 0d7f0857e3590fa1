"""Writes a part of an archive: all entries of a log between two positions. Called by whoever trims the log.

The part is written under a name that does not count, read back and compared with the chain; only then may the log name
it, and `finish_part` gives it its own name. The log is read in short pieces, so that no snapshot of it is kept: entries
never change, and of decisions whose window is over neither do the rewards in time.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from decider.errors import ArchiveDamaged, LogCorrupt, LogError, LogFull
from decider.experiment.definition import ExperimentVersion
from decider.log import chain
from decider.log.archive import columns
from decider.log.archive.find import identity
from decider.log.archive.part import (
    MARKS,
    NAMED,
    PART_JSON,
    UNFINISHED,
    Part,
    PartFile,
    file_of,
    file_sha256,
    read_head,
    read_part,
    to_text,
)
from decider.log.archive.read import prove
from decider.log.protocol import Head, Mark
from decider.log.sqlite.commits import originals, removals_behind
from decider.log.sqlite.errors import sqlite_errors
from decider.log.sqlite.read_rows import experiment_version, read
from decider.log.sqlite.reader import _open_to_read
from decider.log.sqlite.tables import BUILDS, DECISIONS, ENTRY_TABLES, EXPERIMENTS, EntryTable
from decider.types import START, Position, Time

PIECE = 5_000
"""Positions that are read at a time."""

GROUP_ROWS, GROUP_BYTES = 50_000, 1 << 24
"""A row group has at least one of them, or is the last one of its file."""

_SEALED = """
select position, experiment, experiment_version, deadline, overridden, rewards, reward from sealed_decisions
where position > ? and position <= ? order by position
"""

_REWARDS_IN_TIME = """
select position, reward from decision_rewards where position > ? and position <= ? and joined
order by position, reward_position
"""

_VERSIONS = "select position, time, number, definition from experiments order by position"


def start_of(log: Path) -> Head:
    """The end of an empty log: what the first part comes after. Raises LogError."""
    with sqlite_errors(log), closing(_open_to_read(log)) as connection:
        start = _chain_start(connection)
        return Head(START, Time(0), chain.start(*start) if start else chain.EMPTY)


def write_part(log: Path, *, after: Head, until: Head, folder: Path, name: str) -> Part:
    """Write the entries in (after, until] to `folder`/.unfinished-`name`, and compare them with the chain.

    after: the end of the part before, or `start_of`. until: the end of a commit; the windows of all decisions up to
    there must be over. A complete part of that name that is there already is taken as it is.
    Raises LogCorrupt where the log is not what was acknowledged, LogError where it cannot be read or the part not be
    written.
    """
    if (folder / name).exists():
        return _existing(folder / name, after, until)
    place = folder / f"{UNFINISHED}{name}"
    with _file_errors(folder), sqlite_errors(log), closing(_open_to_read(log)) as connection:
        if place.exists():
            shutil.rmtree(place)
        place.mkdir(parents=True)
        files = _write_files(connection, place, after.position, until.position)
        changed = originals(connection).between(after.position, until.position)
        later = removals_behind(connection, after.position, until.position)
        part = Part(place, identity(connection), after, until, _chain_start(connection), files, "", changed, later)
        _write_text(place / PART_JSON, to_text(part))
        _sync(place)
        _sync(folder)
    written = read_head(place)
    _prove(written, log)
    return written


def discard_unfinished(folder: Path, prefix: str, log: Path) -> None:
    """Remove what killed runs on a log have left under names that begin so, once its last part is finished."""
    with sqlite_errors(log), closing(_open_to_read(log)) as connection:
        ours = identity(connection)
    with _file_errors(folder):
        for one in folder.glob(f"{UNFINISHED}{prefix}*"):
            if not (one / PART_JSON).exists() or read_head(one).log == ours:
                shutil.rmtree(one)


def finish_part(part: Part) -> Part:
    """Give a part its own name, once the log names it; nothing is done where it has it. Raises LogError."""
    final = part.folder.with_name(part.name)
    with _file_errors(final.parent):
        if part.folder != final and part.folder.exists():
            part.folder.rename(final)
            _sync(final.parent)
    return read_head(final)


def _existing(folder: Path, after: Head, until: Head) -> Part:
    part = read_part(folder)
    if (part.after, part.until) != (after, until):
        raise LogError(f"{folder}: is there already, with other entries; move it away or choose another folder")
    prove(part)
    return part


def _prove(part: Part, log: Path) -> None:
    try:
        prove(part)
    except ArchiveDamaged as error:
        raise LogCorrupt(
            f"{log}: positions {part.first} to {part.last} are not what was acknowledged, so they are not archived "
            f"({error}); `simulator verify {log}` says where"
        ) from error


@contextmanager
def _file_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except pa.ArrowInvalid as error:
        raise LogCorrupt(f"the log has a damaged value ({error}); `simulator verify` says where") from error
    except OSError as error:
        kind = LogFull if error.errno == 28 else LogError
        raise kind(f"{folder}: the archive cannot be written there ({error}); free space or choose another") from error


def _chain_start(connection: sqlite3.Connection) -> Mark | None:
    row = connection.execute("select position, at from chain_start").fetchone()
    return Mark(Position(row[0]), Time(row[1])) if row else None


def _write_files(connection: sqlite3.Connection, place: Path, after: Position, last: Position) -> dict[str, PartFile]:
    versions = _Versions(connection)
    named = _Named()
    tables = {table: _File(place / file_of(table), _schema(table)) for table in ENTRY_TABLES}
    marks = _File(place / MARKS, columns.MARKS)
    for start in range(after, last, PIECE):
        span = (start, min(start + PIECE, last))
        for table, file in tables.items():
            rows = connection.execute(table.select, span).fetchall()
            if table is DECISIONS:
                named.add(rows)
                rows = _with_more(connection, rows, span, versions)
            file.add(rows)
        marks.add(
            connection.execute(
                "select position, chain from marks where position > ? and position <= ?", span
            ).fetchall()
        )
    return {file.path.name: file.end() for file in [*tables.values(), marks, *named.write(connection, place, after)]}


def _schema(table: EntryTable) -> Any:
    raw = columns.raw_schema(table)
    return pa.schema([*raw, *columns.FOR_PEOPLE]) if table is DECISIONS else raw


class _Named:
    """Versions and builds that decisions name."""

    def __init__(self) -> None:
        self._positions: dict[EntryTable, set[int]] = {EXPERIMENTS: set(), BUILDS: set()}

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Rows of decisions."""
        for table, column in ((EXPERIMENTS, "version"), (BUILDS, "build")):
            place = columns.raw_names(DECISIONS).index(column)
            self._positions[table] |= {row[place] for row in rows}

    def write(self, connection: sqlite3.Connection, place: Path, after: Position) -> Iterator[_File]:
        """Those up to a position, each kind in a file."""
        for table, positions in self._positions.items():
            file = _File(place / f"{NAMED}{file_of(table)}", columns.raw_schema(table))
            for position in sorted(one for one in positions if one is not None and one <= after):
                file.add(connection.execute(table.select, (position - 1, position)).fetchall())
            yield file


class _Versions:
    """The actions that decisions of a version can draw."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        found = [experiment_version(row) for row in read(connection, _VERSIONS)]
        self._versions: Mapping[int, ExperimentVersion] = {version.position: version for version in found}

    def eligible(self, version: int, text: str | None) -> Sequence[str]:
        """Those of a decision with that column `eligible`."""
        return _list(text) if text else self._versions[version].all_active


@lru_cache(maxsize=256)
def _list(text: str) -> Sequence[str]:
    found: Sequence[str] = json.loads(text)
    return found


def _with_more(
    connection: sqlite3.Connection, rows: Sequence[Any], span: tuple[int, int], versions: _Versions
) -> list[tuple[Any, ...]]:
    """Rows of decisions with what is for people behind them. Raises LogError where a window is open."""
    sealed = connection.execute(_SEALED, span).fetchall()
    if [row[0] for row in rows] != [row[0] for row in sealed]:
        raise _not_sealed(rows, {row[0] for row in sealed})
    in_time = _values(connection.execute(_REWARDS_IN_TIME, span))
    names = columns.raw_names(DECISIONS)
    version, eligible = names.index("version"), names.index("eligible")
    return [
        (
            *row,
            experiment,
            number,
            row[1],
            versions.eligible(row[version], row[eligible]),
            deadline,
            bool(overridden),
            rewards,
            in_time.get(position, []),
            reward,
        )
        for row, (position, experiment, number, deadline, overridden, rewards, reward) in zip(rows, sealed, strict=True)
    ]


def _not_sealed(rows: Sequence[Any], sealed: set[int]) -> LogError:
    first = next(row[0] for row in rows if row[0] not in sealed)
    return LogError(f"the decision at position {first} cannot be archived: its window is still open, or it is damaged")


def _values(rows: Iterator[tuple[int, float]]) -> dict[int, list[float]]:
    return {position: [value for _, value in group] for position, group in groupby(rows, key=itemgetter(0))}


class _File:
    """A Parquet file that grows by row groups."""

    def __init__(self, path: Path, schema: Any) -> None:
        self.path = path
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._batches: list[Any] = []
        self._rows = 0

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Rows with the schema's columns."""
        if not rows:
            return
        arrays = [
            pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), self._schema, strict=True)
        ]
        self._batches.append(pa.record_batch(arrays, schema=self._schema))
        if sum(map(len, self._batches)) >= GROUP_ROWS or sum([batch.nbytes for batch in self._batches]) >= GROUP_BYTES:
            self._write()

    def _write(self) -> None:
        table = pa.Table.from_batches(self._batches, self._schema)
        self._writer.write_table(table, row_group_size=len(table))
        self._rows += len(table)
        self._batches = []

    def end(self) -> PartFile:
        """Everything is added: the file as it lies on the disk."""
        if self._batches:
            self._write()
        self._writer.close()
        _sync(self.path)
        return PartFile(self._rows, self.path.stat().st_size, file_sha256(self.path))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    _sync(path)


def _sync(path: Path) -> None:
    """A file's content, or a folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
