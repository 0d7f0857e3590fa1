"""The log in one SQLite file: WAL, group commit, one writer process, any number of readers.

Hot path by hand-written SQL; sqlite-utils runs the migrations. `SqliteReader` opens a log without the right to write:
the simulator and people's tools use it on a live log.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import IO, Any, Literal

import sqlite_utils

from decider.errors import LogCorrupt, LogError, LogLocked
from decider.log.commit import GroupCommit
from decider.log.protocol import (
    Entry,
    Mark,
    NewActivation,
    NewReward,
    NewVersion,
    Orphan,
    PublishedModel,
    Tick,
)
from decider.log.sqlite.errors import sqlite_errors
from decider.log.sqlite.migrations import migrate
from decider.log.sqlite.reader import SqliteReader, _open_to_read
from decider.log.sqlite.rows import (
    INSERT_DECISION,
    INSERT_VERSION,
    Row,
    decision_row,
    insert_decisions,
    version_row,
)
from decider.policy.make import SavedModel
from decider.types import Decision, Position, Time, now

Synchronous = Literal["NORMAL", "FULL"]

LARGE_WAL_PAGES = 4_000
"""Beyond this the write-ahead log is written back to its end while writers wait, so that it cannot grow for ever."""

MOST_AT_ONCE = 200
"""Decisions that one statement writes; more go one by one."""

MAX_REFUSED_NAMES = 50
OTHER_NAME = "other"

_FORGET = """
update models set data = null
where experiment = :experiment and data is not null
  and position < (select min(position) from (select position from models
    where experiment = :experiment and data is not null order by position desc limit :keep))
  and position < (select max(position) from models other
    where other.experiment = :experiment and other.signature = models.signature and other.data is not null)
"""


def _ignore_commit(size: int, seconds: float) -> None:
    pass


class SqliteLog(SqliteReader):
    """A log to write: see EventLog. Made if there is none; raises LogLocked while another process writes it.

    synchronous: NORMAL survives the death of the process, FULL that of the machine too (one fsync a commit).
    on_commit: told the number of entries of every commit and its seconds.
    """

    def __init__(
        self,
        path: Path,
        *,
        synchronous: Synchronous = "NORMAL",
        clock: Callable[[], Time] = now,
        on_commit: Callable[[int, float], None] = _ignore_commit,
    ) -> None:
        self._clock = clock
        self._on_commit = on_commit
        self._refused_names: dict[str, set[str]] = {}
        with ExitStack() as opened:
            with sqlite_errors(path):
                _check_ours(path)
            self._lock_file = opened.enter_context(lock(path))
            with sqlite_errors(path):
                self._writer = opened.enter_context(closing(_open_to_write(path, synchronous)))
                migrate(sqlite_utils.Database(self._writer))
            super().__init__(path)
            opened.pop_all()
        self._end = self.end()
        self._group = GroupCommit[Entry, Mark | None](self._write)
        self._inode = path.stat().st_ino
        self._trouble: LogError | None = None
        self._damage: LogCorrupt | None = None

    @property
    def trouble(self) -> LogError | None:
        """Why the last attempt to write failed, if it did; or that the file is damaged or gone, which does not pass."""
        return self._damage or self._gone() or self._trouble

    def _gone(self) -> LogError | None:
        try:
            there = self.path.stat().st_ino
        except OSError:
            there = None
        if there == self._inode:
            return None
        return LogError(f"{self.path}: was moved, deleted or replaced under the server; restart it on the right file")

    def append(self, entries: Sequence[Entry]) -> list[Mark | None]:
        """See EventLog."""
        if not entries:
            return []
        try:
            marks = self._group(entries)
        except LogError as error:
            self._trouble = error
            raise
        self._trouble = None
        return marks

    def _failed(self, error: sqlite3.Error) -> LogError:
        problem = super()._failed(error)
        if isinstance(problem, LogCorrupt):
            self._damage = problem
        return problem

    def _write(self, entries: list[Entry]) -> list[Mark | None]:
        started = time.perf_counter()
        first = self._end.position + 1
        at = Time(max(self._clock(), self._end.time))
        try:
            marks = self._write_at_once(entries, first, at) or self._write_singly(entries, first, at)
        except sqlite3.Error as error:
            raise self._failed(error) from error
        last = max([mark.position for mark in marks if mark], default=self._end.position)
        self._end = Mark(last, at)
        self._on_commit(len(entries), time.perf_counter() - started)
        return marks

    def _write_at_once(self, entries: list[Entry], first: int, at: Time) -> list[Mark | None] | None:
        """Decisions whose ids nobody had, the common case, in one statement that is its own transaction.

        Every statement lets go of the interpreter and fights for it again, which costs more than its work. None, and
        nothing written, where this is not the case.
        """
        if len(entries) > MOST_AT_ONCE or not all(type(entry) is Decision for entry in entries):
            return None
        marks = [Mark(Position(position), at) for position in range(first, first + len(entries))]
        row = self._decision_row
        values = [value for mark, entry in zip(marks, entries, strict=True) for value in row(mark, entry)]
        try:
            self._writer.execute(insert_decisions(len(entries)), values)
        except sqlite3.IntegrityError:
            return None
        return list(marks)

    def _decision_row(self, mark: Mark, decision: Any) -> Row:
        version = self._versions.get(decision.version) or self._version(decision.version)
        return decision_row(mark, decision, version)

    def _write_singly(self, entries: list[Entry], first: int, at: Time) -> list[Mark | None]:
        """Anything, one by one in one transaction, so that it is known which ones a unique key refused."""
        marks: list[Mark | None] = []
        cursor = self._writer.cursor()
        try:
            cursor.execute("begin immediate")
            for entry in entries:
                mark = Mark(Position(first), at)
                written = self._insert(cursor, mark, entry)
                first += written
                marks.append(mark if written else None)
            cursor.execute("commit")
        except BaseException:
            self._roll_back()
            raise
        return marks

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            self._writer.execute("rollback")

    def _insert(self, cursor: sqlite3.Cursor, mark: Mark, entry: Entry) -> int:
        """Rows added to the order: 1, or 0 where the unique key refused."""
        match entry:
            case Decision():
                return cursor.execute(INSERT_DECISION, self._decision_row(mark, entry)).rowcount
            case NewReward():
                return self._insert_reward(cursor, mark, entry)
            case NewActivation():
                return cursor.execute(
                    "insert or ignore into activations values (?,?,?,?)", (*mark, entry.decision, entry.action)
                ).rowcount
            case NewVersion():
                return cursor.execute(INSERT_VERSION, version_row(mark, entry)).rowcount
            case Tick():
                return cursor.execute("insert into ticks values (?,?)", mark).rowcount
            case Orphan():
                self._count_refused(cursor, entry.name, "orphan")
                return 0

    def _insert_reward(self, cursor: sqlite3.Cursor, mark: Mark, reward: NewReward) -> int:
        written = cursor.execute(
            "insert or ignore into rewards values (?,?,?,?,?,?,?,?)",
            (
                *mark,
                reward.decision,
                reward.name,
                reward.value,
                reward.weight,
                reward.reward_id,
                reward.occurred_at,
            ),
        ).rowcount
        if not written:
            self._count_refused(cursor, reward.name, "duplicate")
        return written

    def _count_refused(self, cursor: sqlite3.Cursor, name: str, outcome: str) -> None:
        cursor.execute(
            "insert into refused_rewards values (?,?,1) on conflict do update set count = count + 1",
            (self._refused_name(name, outcome), outcome),
        )

    def _refused_name(self, name: str, outcome: str) -> str:
        """Callers invent these names, so their number is bounded here."""
        if outcome not in self._refused_names:
            rows = self._writer.execute("select name from refused_rewards where outcome = ?", (outcome,))
            self._refused_names[outcome] = {row[0] for row in rows}
        known = self._refused_names[outcome]
        if len(known) < MAX_REFUSED_NAMES:
            known.add(name)
        return name if name in known else OTHER_NAME

    def publish(self, model: PublishedModel, saved: SavedModel, *, learned: int, keep: int) -> None:
        """See EventLog."""
        place = (model.experiment, model.position, model.signature)
        with self._group.lock, sqlite_errors(self.path), self._writer as cursor:
            cursor.execute("begin immediate")
            cursor.execute(
                "insert or replace into models values (?,?,?,?,?,?,?)",
                (*place, now(), learned, saved.checksum, saved.data),
            )
            cursor.execute(_FORGET, {"experiment": model.experiment, "keep": keep})

    def name_build(self, build: Mapping[str, str]) -> None:
        """Note which build writes from here on. Raises LogError."""
        row = (self._end.position, now(), json.dumps(build, sort_keys=True))
        with self._group.lock, sqlite_errors(self.path):
            self._writer.execute("insert into builds values (?,?,?)", row)

    def maintain(self) -> None:
        """Write the write-ahead log back: beside the writers; once it is large, its last part while they wait, so
        that it starts anew."""
        with sqlite_errors(self.path), closing(sqlite3.connect(self.path, timeout=0)) as beside:
            _, pages, _ = beside.execute("pragma wal_checkpoint(passive)").fetchone()
        if pages > LARGE_WAL_PAGES:
            with self._group.lock, sqlite_errors(self.path):
                self._writer.execute("pragma wal_checkpoint(passive)")

    def close(self) -> None:
        """See EventLog. Writes the write-ahead log back as far as other readers allow it."""
        super().close()
        with self._group.lock, sqlite_errors(self.path):
            try:
                self._writer.execute("pragma wal_checkpoint(truncate)")
            finally:
                self._writer.close()
                self._lock_file.close()


def _open_to_write(path: Path, synchronous: Synchronous) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
    connection.execute("pragma journal_mode = wal")
    connection.execute(f"pragma synchronous = {synchronous}")
    connection.execute("pragma wal_autocheckpoint = 0")  # `maintain` does it, beside the writers
    return connection


def _names(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("select name from sqlite_master")}


def _check_ours(path: Path) -> None:
    """Somebody else's database must not get our tables. Raises LogCorrupt."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    with closing(_open_to_read(path)) as connection:
        names = _names(connection)
    if names and "decisions" not in names:
        raise LogCorrupt(
            f"{path}: is another application's database, with {', '.join(sorted(names)[:3])}; name another"
        )


def lock(path: Path) -> IO[bytes]:
    """The right to write a log, until closed; the operating system gives it back even if this process is killed.

    Raises LogLocked if another process has it.
    """
    lock = Path(f"{path}.lock")
    try:
        file = lock.open("wb")
    except OSError as error:
        raise LogError(f"{path}: cannot be written there ({error}); choose another place") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise LogLocked(f"{path}: another server writes this log; end it or name another file") from error
    return file
