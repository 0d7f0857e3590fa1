"""A log in an SQLite file as one end of a copy. See `log/transfer.py`; called by `open.py`.

The copy is made in a hidden folder beside its place, and gets its name once it is whole: a run that was killed leaves
that folder, which the next one to the same place removes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from decider.log.protocol import Damage, Head, Mark, OnProgress, TotalsCheckpoint
from decider.log.rows import head_in
from decider.log.sqlite.all_at_once import without_indexes, without_triggers
from decider.log.sqlite.backup import check_acknowledged, check_place, folder_of_our_own, sync_file, take_name
from decider.log.sqlite.check import check
from decider.log.sqlite.checkpoints import stored_checkpoints, write_checkpoint
from decider.log.sqlite.connection import open_to_read
from decider.log.sqlite.early import sum_of_refused
from decider.log.sqlite.errors import sqlite_errors
from decider.log.sqlite.locks import check_unused, replacing
from decider.log.sqlite.log_files import last_acknowledged
from decider.log.sqlite.migrations import OPEN_ALL, migrate, sum_rows
from decider.log.sqlite.models import insert_pieces
from decider.log.sqlite.reader import SqliteReader
from decider.log.tables import INTERN_SIGNATURE, PUBLISHED_MODELS, EntryTable
from decider.log.totals import CONTENT_FORMAT
from decider.log.transfer import LogTarget, Row, SideTable, StoredModel, has_entries, refuse_archive
from decider.types import START, Position

_HEAD = "select position, time, chain from head"
_MARKS = "select position, chain from marks order by position"
_INSERT_MARK = "insert into marks (position, chain) values (?, ?)"
_START = "select position, at from chain_start"
_INSERT_START = "insert into chain_start (position, at) values (?, ?)"
_SIGNATURES = "select signature from signatures order by id"
_MODELS = """
select experiment, signature, position, created, checksum, parts, data from models
order by experiment, signature, position, part
"""
_MODEL_BYTES = "update model_bytes set bytes = (select coalesce(sum(length(data)), 0) from models)"
_MOVE_HEAD = "update head set position = ?, time = ?, chain = ?, refused = ?"


class SqliteSource:
    """See LogSource. connection: in a transaction of its own."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self.name = name
        self.head = head_in(connection.execute(_HEAD).fetchone())

    def chain_start(self) -> Mark | None:
        """See LogSource."""
        row = self._connection.execute(_START).fetchone()
        return Mark(*row) if row else None

    def marks(self) -> Iterator[Row]:
        """See LogSource."""
        return self._connection.execute(_MARKS)

    def signatures(self) -> Sequence[str]:
        """See LogSource."""
        return [signature for (signature,) in self._connection.execute(_SIGNATURES)]

    def entries(self, table: EntryTable) -> Iterator[Row]:
        """See LogSource."""
        return self._connection.execute(table.select, (START, self.head.position))

    def side_rows(self, table: SideTable) -> Iterator[Row]:
        """See LogSource."""
        return self._connection.execute(f"select {', '.join(table.columns)} from {table.name}")  # noqa: S608 - our names

    def models(self) -> Iterator[StoredModel]:
        """See LogSource. What a killed process has left of one is none."""
        for _, group in groupby(self._connection.execute(_MODELS), key=itemgetter(0, 1, 2)):
            rows = list(group)
            *model, parts, _ = rows[0]
            if len(rows) == parts:
                yield StoredModel._make((*model, b"".join([row[-1] for row in rows])))

    def checkpoints(self) -> Iterator[TotalsCheckpoint]:
        """See LogSource."""
        for stored in reversed(list(stored_checkpoints(self._connection))):
            if stored.row.format == CONTENT_FORMAT and not stored.problem(self._connection):
                yield stored.checkpoint


@contextmanager
def sqlite_source(path: Path, name: str) -> Iterator[SqliteSource]:
    """The log in a file as it is now, whoever writes it. name: in messages. Raises LogError."""
    acknowledged = last_acknowledged(path)  # before the snapshot, since writers go on
    with sqlite_errors(path), closing(open_to_read(path)) as connection:
        connection.execute("begin")
        source = SqliteSource(connection, name)
        (cut,) = connection.execute("select coalesce(max(position), 0) from cut").fetchone()
        refuse_archive(name, cut)
        check_acknowledged(path, source.head.position, acknowledged)
        yield source


class SqliteTarget:
    """See LogTarget. connection: to an empty log in autocommit mode."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._bare = ExitStack()
        self._bare.enter_context(without_indexes(connection))
        self._bare.enter_context(without_triggers(connection))
        connection.execute("begin")

    def write_signatures(self, signatures: Sequence[str]) -> None:
        """See LogTarget."""
        self._connection.executemany(INTERN_SIGNATURE, [(signature,) for signature in signatures])

    def write_entries(self, table: EntryTable, rows: Iterable[Row]) -> None:
        """See LogTarget. Without its index, a signature is looked up once."""
        if table is PUBLISHED_MODELS:
            place = 2 + table.columns.index("signature")
            ids = dict(self._connection.execute("select signature, id from signatures").fetchall())
            rows = ([*row[:place], ids[row[place]], *row[place + 1 :]] for row in rows)
        self._insert(table.name, ("position", "time", *table.columns), rows)

    def write_side(self, table: SideTable, rows: Iterable[Row]) -> None:
        """See LogTarget."""
        self._connection.execute(f"delete from {table.name}")  # noqa: S608 - our names
        self._insert(table.name, table.columns, rows)

    def _insert(self, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
        places = ", ".join("?" * len(columns))
        sql = f"insert into {table} ({', '.join(columns)}) values ({places})"  # noqa: S608 - our names
        self._connection.executemany(sql, rows)

    def write_marks(self, marks: Iterable[Row], start: Mark | None) -> None:
        """See LogTarget."""
        self._connection.executemany(_INSERT_MARK, marks)
        self._connection.executemany(_INSERT_START, [] if start is None else [start])

    def write_models(self, models: Iterable[StoredModel]) -> None:
        """See LogTarget."""
        for one in models:
            key = (one.experiment, one.signature, one.position)
            insert_pieces(self._connection, key, one.created, one.checksum, one.data)
        self._connection.execute(_MODEL_BYTES)

    def write_checkpoint(self, checkpoint: TotalsCheckpoint) -> None:
        """See LogTarget."""
        write_checkpoint(self._connection, checkpoint)

    def finish(self, head: Head) -> None:
        """See LogTarget. Every version that has decisions may have open ones: the writer closes them."""
        self._connection.execute(_MOVE_HEAD, (*head, sum_of_refused(self._connection)))
        sum_rows(self._connection)
        self._bare.close()
        self._connection.execute(OPEN_ALL)
        self._connection.execute("commit")

    def check(self, on_progress: OnProgress) -> Sequence[Damage]:
        """See LogTarget."""
        return check(self._connection, on_progress, acknowledged=START)


class SqlitePlace:
    """See LogPlace. A file that is an empty log is replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def filling(self) -> Iterator[LogTarget]:
        """See LogPlace."""
        self._check()
        with folder_of_our_own(self._path) as folder:
            copy = folder / self._path.name
            with sqlite_errors(copy), closing(sqlite3.connect(copy, isolation_level=None)) as connection:
                # A file that nobody needs after a crash.
                connection.execute("pragma journal_mode = off")
                connection.execute("pragma synchronous = off")
                migrate(connection)
                yield SqliteTarget(connection)
            sync_file(copy)
            with replacing(self._path):
                self._check_empty()  # somebody may have written it meanwhile
                take_name(copy, self._path)

    def _check(self) -> None:
        check_place(self._path)
        check_unused(self._path)
        self._check_empty()

    def _check_empty(self) -> None:
        if self._path.exists() and self._path.stat().st_size:
            with closing(SqliteReader(self._path)) as log:
                head = log.head()
            if head.position > Position(START):
                raise has_entries(str(self._path), head)
