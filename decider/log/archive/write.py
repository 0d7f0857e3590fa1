"""Writes a part of an archive: all entries of a log between two positions. Called by whoever trims the log.

The part is written under a name that does not count, read back and compared with the chain; only then may the log name
it, and the part gets its own name. The log is read in short pieces, so that no snapshot of it is kept: entries
never change, and of decisions whose window is over neither do the rewards in time.
"""

from __future__ import annotations

import fcntl
import glob
import json
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

from decider.errors import ArchiveDamaged, LogCorrupt, LogError, LogLocked
from decider.experiment.definition import ExperimentVersion
from decider.log import chain
from decider.log.archive import columns
from decider.log.archive.files import file_errors, file_sha256, sync, write_text
from decider.log.archive.find import identity, identity_of, is_part, parts_of
from decider.log.archive.part import (
    MARKS,
    NAMED,
    PART_JSON,
    UNFINISHED,
    WRITER,
    Part,
    PartFile,
    file_of,
    read_head,
    read_part,
    to_text,
)
from decider.log.archive.read import prove
from decider.log.protocol import Head, Mark
from decider.log.rows import experiment_version
from decider.log.sqlite.commits import originals, removals_behind
from decider.log.sqlite.connection import open_to_read
from decider.log.sqlite.errors import sqlite_errors
from decider.log.sqlite.read_rows import read
from decider.log.tables import BUILDS, DECISIONS, ENTRY_TABLES, EXPERIMENTS, EntryTable
from decider.types import START, Position, Time

LOCK = ".lock"
"""A file in the folder of an archive, which a run locks."""

PIECE = 5_000
"""Positions that are read at a time."""

GROUP_ROWS, GROUP_BYTES = 50_000, 1 << 24
"""A row group has at least one of them, or is the last one of its file."""

_SEALED = """
select position, experiment, experiment_version, deadline, overridden, activated, shown, rewards, reward
from sealed_decisions
where position > ? and position <= ? order by position
"""

_REWARDS_IN_TIME = """
select position, reward from decision_rewards where position > ? and position <= ? and reward is not null
order by position, reward_position
"""

_VERSIONS = "select position, time, number, definition from experiments order by position"


def start_of(log: Path) -> Head:
    """The end of an empty log: what the first part comes after. Raises LogError."""
    with sqlite_errors(log), closing(open_to_read(log)) as connection:
        start = _chain_start(connection)
        return Head(START, Time(0), chain.start(*start) if start else chain.EMPTY)


def write_part(log: Path, *, after: Head, until: Head, folder: Path, name: str) -> Part:
    """Write the entries in (after, until] to `folder`/.unfinished-`name`, and compare them with the chain.

    after: the end of the part before, or `start_of`. until: the end of a commit; the windows of all decisions up to
    there must be over. A complete part of that name that is there already is taken as it is, a half one is written
    anew. One run at a time writes to a folder: see `alone_in`.
    Raises LogCorrupt where the log is not what was acknowledged, LogError where it cannot be read or the part not be
    written.
    """
    place = folder / f"{UNFINISHED}{name}"
    for there in (folder / name, place):
        if is_part(there) or (there == folder / name and there.exists()):
            return _existing(there, after, until)
    try:
        with file_errors(folder), sqlite_errors(log), closing(open_to_read(log)) as connection:
            _write_part(connection, place, after, until, log)
        written = read_head(place)
        _prove(written, log)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)  # of a full disk it would keep what is needed
        raise
    return written


def _write_part(connection: sqlite3.Connection, place: Path, after: Head, until: Head, log: Path) -> None:
    if place.exists():
        shutil.rmtree(place)
    place.mkdir(parents=True)
    write_text(place / WRITER, _writer_of(log))
    files = _write_files(connection, place, after.position, until.position)
    changed = originals(connection).between(after.position, until.position)
    later = removals_behind(connection, after.position, until.position)
    part = Part(place, identity(connection), after, until, _chain_start(connection), files, "", changed, later)
    write_text(place / PART_JSON, to_text(part))
    sync(place)
    sync(place.parent)


def part_name(log: Path, *, after: Head, until: Head) -> str:
    """The name of a part's folder, which no other log's part has, whatever the logs' files are called."""
    return f"{_prefix(log, after)}{until.position}"


def _prefix(log: Path, after: Head) -> str:
    return f"{log.stem}-{identity_of(log)[:8]}-{after.position + 1}-"


def _writer_of(log: Path) -> str:
    """Which file a part was written from: a copy of a log has the same entries, and its own parts."""
    return f"{log.resolve()}\n{log.stat().st_ino}\n"


def discard_unfinished(folder: Path, log: Path, *, after: Head) -> None:
    """Remove what killed runs on a log have left that was to come after its last part. A whole part only where this
    file of the log wrote it and does not name it: a copy of the log may do."""
    named = {one.digest for one in parts_of(log)}
    with file_errors(folder):
        for one in folder.glob(f"{UNFINISHED}{glob.escape(_prefix(log, after))}*"):
            if not is_part(one) or (_is_ours(one, log, after) and read_head(one).digest not in named):
                shutil.rmtree(one)


def _is_ours(folder: Path, log: Path, after: Head) -> bool:
    try:
        part = read_head(folder)
        return (part.log, part.after, (folder / WRITER).read_text("utf-8")) == (
            identity_of(log),
            after,
            _writer_of(log),
        )
    except (LogError, OSError, ValueError):
        return False


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """The right to write parts to a folder, until the block or the process ends. Raises LogLocked while another run has
    it, of whatever log."""
    with file_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("ab")
    with lock:
        try:
            with file_errors(folder):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except LogError as error:
            if not isinstance(error.__cause__, BlockingIOError):
                raise
            raise LogLocked(
                f"{folder}: another archive run writes there; start again once it has ended, or choose another folder"
            ) from error
        yield


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
            bool(activated),
            shown,
            rewards,
            in_time.get(position, []),
            reward,
        )
        for row, (position, experiment, number, deadline, overridden, activated, shown, rewards, reward) in zip(
            rows, sealed, strict=True
        )
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
        sync(self.path)
        return PartFile(self._rows, self.path.stat().st_size, file_sha256(self.path))
