"""Writes a log in an SQLite file: WAL, group commit, any number of writers and readers in any number of processes.

Order and time are dealt by the row in `head`, inside the transaction that appends. Hot path by hand-written SQL;
sqlite-utils runs the migrations.
"""

from __future__ import annotations

import fcntl
import logging
import math
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from decider.errors import LogCorrupt, LogError, LogLocked
from decider.log.archive.last_part import LastPart
from decider.log.division import WholeShare
from decider.log.entry_writer import EntryWriter, OpenCommit
from decider.log.group_commit import GroupCommit, write_wanted
from decider.log.protocol import (
    END,
    Entry,
    Head,
    Mark,
    NewBuild,
    TotalsCheckpoint,
)
from decider.log.rows import head_in
from decider.log.sqlite import action_counts, assignments, early, exposures, units
from decider.log.sqlite.checkpoints import write_checkpoint
from decider.log.sqlite.commit_tables import SqliteTables
from decider.log.sqlite.connection import open_to_read, roll_back, transaction
from decider.log.sqlite.errors import SQLITE_ERRORS, SqliteError, sqlite_errors
from decider.log.sqlite.locks import DatabaseFile, FileLease, hold, let_go, start_writing, stop_writing
from decider.log.sqlite.log_files import FileGone, LogFiles, Witness, last_acknowledged
from decider.log.sqlite.migrations import migrate
from decider.log.sqlite.models import PIECE_BYTES, SqliteModelStore
from decider.log.sqlite.open_versions import CLOSE_INTERVAL, close_versions, find_over
from decider.log.sqlite.reader import SqliteReader
from decider.log.sqlite.trim import Trimmer
from decider.log.sqlite.write_ahead import LARGE_BYTES, WriteAheadLog
from decider.log.tables import DECISIONS, head_after, overtaken, parts
from decider.types import START, Decision, Position, Time, now

logger = logging.getLogger(__name__)

Synchronous = Literal["NORMAL", "FULL"]

_HEAD = "select position, time, chain, exists (select 1 from seals) from head"

_HEAD_AND_CHANGE = """
select position, time, chain, max(
  (select coalesce(max(position), 0) from experiments), (select coalesce(max(position), 0) from serves)
) from head
"""

_OVERTAKEN = overtaken("?")

MOST_DROPS = 20
"""Pieces of what counts no longer that one look deletes."""

MOST_COUNTS = 5
"""Pieces of decisions that one look counts."""

CLOSE_PATIENCE = 500
"""Milliseconds that closing waits for readers: one that stays, as a program that copies the log all the time, would
make every restart longer. What is not written back then stays in the write-ahead log, and is read from there."""


@lru_cache
def _insert_decisions(count: int) -> str:
    """One statement, and transaction, for so many new decisions; it fails as a whole where one is not new.

    Behind them it wants the new time and position, the chain before and afterwards: see `move_head` in schema.sql.
    """
    names = ("position", "time", *DECISIONS.columns)
    row = f"({', '.join(['?'] * len(names))})"
    head = f"(0, ?, ?, ?, ?{', null' * (len(names) - 5)})"
    return f"insert into decisions ({', '.join(names)}) values {', '.join([row] * count)}, {head}"  # noqa: S608 - names


def _ignore_commit(size: int, seconds: float) -> None:
    pass


class _HeadMoved(Exception):
    """Another writer has written something since this one looked."""


class SqliteLog(SqliteReader):
    """A log to write: see EventLog. Made if there is none.

    synchronous: NORMAL survives the death of the process, FULL that of the machine too (one fsync per commit).
    on_commit: called with the number of entries and the seconds of every commit.
    patience: seconds that a commit waits for another process's transaction. piece_bytes: of a stored model.
    """

    def __init__(
        self,
        path: Path,
        *,
        synchronous: Synchronous = "NORMAL",
        clock: Callable[[], Time] = now,
        on_commit: Callable[[int, float], None] = _ignore_commit,
        patience: float = 5.0,
        piece_bytes: int = PIECE_BYTES,
        archives: Sequence[Path] = (),
    ) -> None:
        self._clock = clock
        self._on_commit = on_commit
        self._closed_at = -math.inf
        self._unsealed = START  # up to here the log has no seals
        with ExitStack() as opened:
            self._file = _open_file(path, opened)
            with sqlite_errors(path), self._file.alone_or_waiting():  # one process at a time makes or upgrades a log
                _check_ours(path)
                self._writer = opened.enter_context(closing(_open_to_write(path, synchronous, patience)))
                _bring_up_to_date(path, self._writer)
            super().__init__(path, archives=archives)
            opened.callback(super().close)
            self._head = self.head()
            self._files = LogFiles(path)
            with self._file.alone_or_waiting() as alone:
                self._witness = Witness(path)
                if alone:
                    _tell_of_loss(path, self._head.position)
                    self._witness.begin_at(self._head.position)
            opened.pop_all()
        self._last_change = START  # the newest entry, up to the head, that changes which version serves
        self._known_to_serve: set[Position] = set()  # versions known to serve at the head
        self._group = GroupCommit[Entry, Mark | None](self._write)
        self._lease: FileLease | None = None
        self._share = WholeShare(None)
        self._trouble: LogError | None = None
        self._damage: LogCorrupt | None = None
        self._entries = EntryWriter(SqliteTables(self._writer, self.version_at), self.version_at)
        self._trimmer = Trimmer(self._writer, self._exclusive, self.version_at)
        self._trimmed = START
        self._last_part = LastPart(path, archives)
        self._write_ahead = WriteAheadLog(path, self._exclusive)
        self._models = SqliteModelStore(self._read, self._writer, self._exclusive, piece_bytes=piece_bytes)

    @property
    def models(self) -> SqliteModelStore:
        """See EventLog."""
        return self._models

    @property
    def hosts(self) -> None:
        """See EventLog."""
        return

    @property
    def trouble(self) -> LogError | None:
        """See EventLog."""
        return self._damage or self._files.missing_file() or self._trouble

    def append(self, entries: Sequence[Entry]) -> list[Mark | None]:
        """See EventLog."""
        if not entries:
            return []
        try:
            marks = self._group(entries)
        except LogError as error:
            self._trouble = None if isinstance(error, FileGone) else error  # `trouble` looks for the files itself
            raise
        self._trouble = None
        return marks

    def _to_log_error(self, error: SqliteError) -> LogError:
        problem = super()._to_log_error(error)
        if isinstance(problem, LogCorrupt):
            self._damage = problem
        return problem

    def _write(self, entries: list[Entry]) -> list[Mark | None]:
        started = time.perf_counter()
        try:
            with self._file as alone:
                if not alone:
                    self._look_at_head()
                marks = self._write_on_head(entries)
                # After the commit: nothing that was written into a file that is gone may be acknowledged. The witness
                # last: it must not name a position that the log does not have.
                missing = self._files.missing_file()
                if missing:
                    raise missing
                self._witness.remember(self._head.position)
        except SQLITE_ERRORS as error:
            raise self._to_log_error(error) from error
        self._on_commit(len(entries), time.perf_counter() - started)
        return marks

    def _write_on_head(self, entries: list[Entry]) -> list[Mark | None]:
        while True:
            try:
                return write_wanted(entries, self._write_now, is_overtaken=self._is_overtaken)
            except _HeadMoved:  # by a process that has just begun to write: see `DatabaseFile`
                self._look_at_head()

    def _look_at_head(self) -> None:
        (*head, changed) = self._writer.execute(_HEAD_AND_CHANGE).fetchone()
        self._head = head_in(head)
        if changed != self._last_change:
            self._last_change = Position(changed)
            self._known_to_serve.clear()

    def _is_overtaken(self, version: Position) -> bool:
        """Whether another version serves in its place, at the head that this writer knows. All writes fail where the
        log's is another one, so it is still so in their transaction."""
        if version in self._known_to_serve:
            return False
        if self._writer.execute(_OVERTAKEN, (version,)).fetchone():
            return True
        self._known_to_serve.add(version)
        return False

    def _write_now(self, entries: list[Entry]) -> list[Mark | None]:
        return (self._write_at_once(entries) or self._write_any(entries)) if entries else []

    def _write_at_once(self, entries: list[Entry]) -> list[Mark | None] | None:
        """New decisions, the common case, in one statement that is its own transaction; more than MOST_AT_ONCE in
        several. None, and nothing is written, where another writer has moved the head or a decision is not new."""
        # Every statement releases the interpreter lock and has to win it back, which costs more than its work. So the
        # head is not read: the statement fails where it is not the one that this writer knows.
        if set(map(type, entries)) != {Decision}:
            return None
        if any(self._entries.decisions.version_of(decision).limits for decision in entries):
            return None
        head, at = self._head, self._time_after(self._head)
        pieces = list(parts(entries))
        try:
            if len(pieces) > 1:
                self._writer.execute("begin immediate")
            for part in pieces:
                head = self._insert_decisions(part, head, at)
            if len(pieces) > 1:
                self._writer.execute("commit")
        except sqlite3.IntegrityError:
            roll_back(self._writer)
            return None
        except BaseException:
            roll_back(self._writer)
            raise
        first, self._head = self._head.position + 1, head
        return [Mark(Position(position), at) for position in range(first, head.position + 1)]

    def _insert_decisions(self, decisions: Sequence[Any], head: Head, at: Time) -> Head:
        """The head after them. Raises sqlite3.IntegrityError where the log's own is not `head`."""
        rows = [self._entries.decisions.row_of(decision) for decision in decisions]
        after = head_after(head, at, [DECISIONS.kind] * len(rows), rows)
        values: list[Any] = []
        for position, row in enumerate(rows, head.position + 1):
            values += (position, at, *row)
        values += (at, after.position, head.chain, after.chain)
        self._writer.execute(_insert_decisions(len(rows)), values)
        return after

    def _time_after(self, head: Head) -> Time:
        return Time(max(self._clock(), head.time))

    def _write_any(self, entries: list[Entry]) -> list[Mark | None]:
        """Entries of any kind, some of which a unique key may refuse, in one transaction."""
        with transaction(self._writer):  # nobody moves the head in between
            (*row, has_seals) = self._writer.execute(_HEAD).fetchone()
            head = head_in(row)
            if head != self._head:
                raise _HeadMoved
            commit = OpenCommit(head, self._time_after(head))
            marks = self._entries.write(commit, entries)
            after = commit.end()
            if after is not head:
                self._writer.execute("update head set position = ?, time = ?, chain = ?", after)
        self._head = after
        if commit.changes_what_serves:
            self._known_to_serve.clear()
        if not (has_seals or commit.has_seals):
            self._unsealed = after.position
        return marks

    def seals(self, decisions: Collection[Position], *, until: Position = END) -> Mapping[Position, Position]:
        """See LogReader."""
        return {} if until <= self._unsealed else super().seals(decisions, until=until)

    def name_build(self, build: Mapping[str, Any]) -> Position:
        """See EventLog."""
        (mark,) = self.append([NewBuild(build)])
        assert mark is not None, "no key refuses a build"
        self._entries.decisions.build = mark.position
        return mark.position

    def lease(self) -> FileLease:
        """See EventLog."""
        self._lease = FileLease(self._file, self.name)
        return self._lease

    def share(self) -> WholeShare:
        """See EventLog."""
        self._share.release()
        self._share = WholeShare(self._lease)
        return self._share

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """No commit meanwhile, of this process or another."""
        # The group's lock before the file's, as in a commit: in the other order two threads could wait for each other.
        with self._group.lock, sqlite_errors(self.path), self._file:
            yield

    def store_totals(self, checkpoint: TotalsCheckpoint) -> None:
        """See EventLog."""
        with self._exclusive(), transaction(self._writer) as writer:
            write_checkpoint(writer, checkpoint)

    def maintain(self) -> None:
        """See EventLog. Keeps the write-ahead log short, and deletes a piece of what lies in the archive. Now and then,
        closes the versions whose last window is over, and drops activations whose decision never came."""
        if self._files.missing_file():
            return
        self._close_versions()
        self._drop_state_of_units()
        self._count_actions()
        self._write_ahead.write_back()
        with self._file.try_to_archive() as mine:
            if mine and self.cut().position > START:
                if self._has_to_trim() and self._last_part.is_safe(self.cut().position):
                    self._trim()
                self._trimmer.sweep_now_and_then()

    def _has_to_trim(self) -> bool:
        """Whether anything is left that lies in the archive; the log is not asked again once nothing is."""
        last = self.cut().position
        if last == self._trimmed:
            return False
        with self._exclusive():
            left = self._trimmer.has_work()
        if not left:
            self._trimmed = last
        return left

    def _trim(self) -> Position | None:
        """Delete a piece of what lies in the archive, once its last part is safe. Returns the position reached; None
        where the totals have to be stored first."""
        reached = self._trimmer.trim()
        if reached == self.cut().position:
            self._trimmed = reached
        return reached

    @property
    def warnings(self) -> Sequence[str]:
        """See EventLog."""
        return [*self._write_ahead.warnings, *self._last_part.warnings]

    def _close_versions(self) -> None:
        if time.monotonic() - self._closed_at < CLOSE_INTERVAL:
            return
        self._closed_at, at = time.monotonic(), self._clock()
        with self._connection() as reader:
            over = list(find_over(reader, at))
        for some in over:
            with self._exclusive():
                close_versions(self._writer, some, at)
        self._drop_early(at)

    def _drop_early(self, at: Time) -> None:
        if self._one("select 1 from early_activations limit 1"):
            with self._exclusive(), transaction(self._writer):
                early.drop_old(self._writer, at)

    def _count_actions(self) -> None:
        for _ in range(MOST_COUNTS):
            with self._connection() as reader:
                if not action_counts.is_behind(reader):
                    return
            with self._exclusive(), transaction(self._writer) as writer:
                action_counts.count_piece(writer)

    def _drop_state_of_units(self) -> None:
        # What counts for limits, and windows, end in the log's time: a clock that is ahead must not end them too early.
        log_time = self.head().time
        for room, at in ((assignments, self._clock()), (exposures, log_time), (units, log_time)):
            for _ in range(MOST_DROPS):
                with self._connection() as reader:
                    over = room.has_over(reader, at)
                if not over:
                    break
                with self._exclusive(), transaction(self._writer) as writer:
                    room.drop_over(writer, at)

    def close(self) -> None:
        """See EventLog. Copies the write-ahead log into the database as far as other readers allow it."""
        if self._lease is not None:
            self._lease.release()
        super().close()  # readers first: an open one would keep the checkpoint from reaching the end
        with self._group.lock, sqlite_errors(self.path), self._file.alone_or_waiting() as alone:
            written_back = False
            try:
                self._writer.execute(f"pragma busy_timeout = {CLOSE_PATIENCE}")
                (busy, _, _) = self._writer.execute("pragma wal_checkpoint(truncate)").fetchone()
                written_back = not busy
            finally:
                self._writer.close()
                self._witness.close(remove=written_back and alone)
        stop_writing(self._file)
        let_go(self._file)


def _tell_of_loss(path: Path, end: Position) -> None:
    last = last_acknowledged(path)
    if last > end:
        logger.error(
            "%s: entries up to position %d were acknowledged, and the log ends at %d: its write-ahead log was damaged "
            "or lost, or an older copy was put here; going on from there",
            path, last, end,
        )  # fmt: skip


def _open_file(path: Path, opened: ExitStack) -> DatabaseFile:
    """Hold the file for writing; made if there is none."""
    try:
        path.touch()
    except OSError as error:
        raise LogError(f"{path}: cannot be written there ({error}); choose another place") from error
    file = hold(path)
    opened.callback(let_go, file)
    start_writing(file, path)
    opened.callback(stop_writing, file)
    return file


def _open_to_write(path: Path, synchronous: Synchronous, patience: float = 5.0) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=patience, isolation_level=None, check_same_thread=False)
    connection.execute("pragma journal_mode = wal")
    connection.execute(f"pragma synchronous = {synchronous}")
    connection.execute("pragma temp_store = memory")  # journals of statements: a file made and deleted for each commit
    connection.execute("pragma wal_autocheckpoint = 0")  # `maintain` does it, beside the writers
    connection.execute(f"pragma journal_size_limit = {LARGE_BYTES}")  # of a write-ahead log that begins anew
    return connection


def _names(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("select name from sqlite_master")}


def _check_ours(path: Path) -> None:
    """Raises LogCorrupt for another application's database, which must not get our tables."""
    if path.stat().st_size == 0:
        return
    with closing(open_to_read(path)) as connection:
        names = _names(connection)
    if names and "decisions" not in names:
        raise LogCorrupt(
            f"{path}: is another application's database, with {', '.join(sorted(names)[:3])}; name another"
        )


def _bring_up_to_date(path: Path, connection: sqlite3.Connection) -> None:
    names = _names(connection)
    if names and "head" not in names:
        _check_no_old_server(path)
    migrate(connection)


def _check_no_old_server(path: Path) -> None:
    """Release 0.1 locked a file beside the log; its server would go on without head and chain. Raises LogLocked."""
    try:
        with Path(f"{path}.lock").open("rb") as old_lock:
            fcntl.flock(old_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return
    except OSError as error:
        raise LogLocked(f"{path}: a server of an older release writes this log; end it first") from error
