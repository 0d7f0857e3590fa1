"""The log in one SQLite file: WAL, group commit, one writer process, any number of readers.

Hot path by hand-written SQL; sqlite-utils runs the migrations. `SqliteReader` opens a log without the right to write:
the simulator and people's tools use it on a live log.
"""

from __future__ import annotations

import fcntl
import json
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import IO, Any, Literal

import sqlite_utils

from decider.errors import LogCorrupt, LogError, LogFull, LogLocked
from decider.experiment.definition import ExperimentVersion
from decider.log.commit import GroupCommit
from decider.log.protocol import (
    Entry,
    LoggedDecision,
    Mark,
    NewActivation,
    NewReward,
    NewVersion,
    Orphan,
    Place,
    PublishedModel,
    SealedDecision,
    Tick,
)
from decider.log.sqlite.migrations import migrate
from decider.log.sqlite.rows import (
    DECISION_COLUMNS,
    INSERT_DECISION,
    INSERT_VERSION,
    Row,
    decision_row,
    experiment_version,
    insert_decisions,
    logged_decision,
    version_row,
)
from decider.policy.saved import SavedModel
from decider.types import START, Decision, DecisionId, ExperimentId, Position, Time, now

Synchronous = Literal["NORMAL", "FULL"]

LARGE_WAL_PAGES = 4_000
"""Beyond this the write-ahead log is written back to its end while writers wait, so that it cannot grow for ever."""

MOST_AT_ONCE = 200
"""Decisions that one statement writes; more go one by one."""

MAX_REFUSED_NAMES = 50
OTHER_NAME = "other"

_SEALED = f"""
select {DECISION_COLUMNS}, r.value * r.weight, a.decision is not null
from decisions d
left join activations a on a.decision = d.position and a.action is not null and a.time < d.time + :window
left join rewards r on r.decision = d.position and r.time < d.time + :window
where d.version = :version and d.time > :after and d.time <= :until
order by d.time, d.position, r.position
"""  # noqa: S608 - a constant


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """sqlite3's exceptions as ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise log_error(path, error) from error


def log_error(path: Path, error: sqlite3.Error) -> LogError:
    """An exception of sqlite3 as ours, saying what to do."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_FULL"):
        return LogFull(f"{path}: no space left to write the log; free some, the server goes on by itself")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return LogLocked(f"{path}: another process keeps the log locked ({error}); end its transaction")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return LogCorrupt(f"{path}: damaged or not a log ({error}); restore a copy or name another file")
    return LogError(f"{path}: {error}")


_FORGET = """
update models set data = null
where experiment = :experiment and data is not null
  and position < (select min(position) from (select position from models
    where experiment = :experiment and data is not null order by position desc limit :keep))
  and position < (select max(position) from models other
    where other.experiment = :experiment and other.signature = models.signature and other.data is not null)
"""


class SqliteReader:
    """A log to read, from any thread: idle connections are kept and taken again.

    Raises LogError where there is no log.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise LogError(f"{path}: there is no such log")
        self.path = path
        self._idle: deque[sqlite3.Connection] = deque()
        self._connections: list[sqlite3.Connection] = []
        self._versions: dict[Position, ExperimentVersion] = {}
        with sqlite_errors(path):
            if "sealed_decisions" not in self._tables():
                raise LogCorrupt(f"{path}: is an SQLite file but not a log of this service")

    def _tables(self) -> set[str]:
        return {name for (name,) in self._read("select name from sqlite_master")}

    def _take(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            connection = _open_to_read(self.path)
            self._connections.append(connection)
            return connection

    def _read(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> Generator[Row, None, None]:
        try:
            connection = self._take()
            try:
                yield from connection.execute(sql, parameters)
            finally:
                self._idle.append(connection)
        except sqlite3.Error as error:
            raise self._failed(error) from error

    def _one(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> Row | None:
        rows = self._read(sql, parameters)
        try:
            return next(rows, None)
        finally:
            rows.close()

    def _failed(self, error: sqlite3.Error) -> LogError:
        return log_error(self.path, error)

    def close(self) -> None:
        """Let go of the file; nobody may be reading."""
        for connection in self._connections:
            connection.close()

    def stream(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> Iterator[Row]:
        """Rows of any SQL, one after the other, for readers of whole logs."""
        return self._read(sql, parameters)

    def query(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[Row]:
        """Rows of any SQL; for the metrics and the simulator's tables."""
        return list(self._read(sql, parameters))

    def end(self) -> Mark:
        """See EventLog."""
        position, time_ = self._one("select position, time from log_end") or (0, 0)
        return Mark(Position(position or 0), Time(time_ or 0))

    def time_at(self, position: Position) -> Time:
        """See EventLog."""
        row = self._one("select time from entries where position = ?", (position,))
        return Time(row[0] if row else 0)

    def versions(self) -> Sequence[ExperimentVersion]:
        """See EventLog."""
        newest = max(self._versions, default=START)
        for row in self._read(
            "select position, time, number, definition from experiments where position > ? order by position", (newest,)
        ):
            self._versions[Position(row[0])] = experiment_version(*row)
        return list(self._versions.values())

    def _version(self, position: Position) -> ExperimentVersion:
        if position not in self._versions:
            self.versions()
        return self._versions[position]

    def find(self, decision_id: DecisionId) -> LoggedDecision | None:
        """See EventLog."""
        row = self._one(
            f"select {DECISION_COLUMNS} from decisions d where decision_id = ?",  # noqa: S608 - a constant
            (decision_id,),
        )
        return self._logged(row) if row else None

    def locate(self, decision_id: DecisionId) -> Place | None:
        """See EventLog."""
        row = self._one("select position, time, version, action from decisions where decision_id = ?", (decision_id,))
        return Place(*row) if row else None

    def _logged(self, row: Row) -> LoggedDecision:
        if row[2] not in self._versions:
            self.versions()
        return logged_decision(row, self._versions)

    def decisions(self, version: Position) -> Iterator[LoggedDecision]:
        """See EventLog."""
        sql = f"select {DECISION_COLUMNS} from decisions d where version = ? order by model, position"  # noqa: S608
        return map(self._logged, self._read(sql, (version,)))

    def decided_versions(self) -> Sequence[Position]:
        """See EventLog."""
        return [Position(row[0]) for row in self._read("select distinct version from decisions order by version")]

    def count_decisions(self) -> int:
        """See EventLog."""
        row = self._one("select count(*) from decisions")
        return row[0] if row else 0

    def sealed(self, version: ExperimentVersion, *, after: Time, until: Time) -> Iterator[SealedDecision]:
        """See EventLog."""
        window = version.experiment.reward.window
        self._version(version.position)
        rows = self._read(
            _SEALED,
            {"version": version.position, "window": window, "after": after - window, "until": until - window},
        )
        for _, group in groupby(rows, key=lambda row: row[0]):
            joined = list(group)
            logged = logged_decision(joined[0], self._versions)
            yield SealedDecision(
                position=logged.position,
                deadline=Time(logged.time + window),
                decision=logged.decision,
                rewards=tuple([row[18] for row in joined if row[18] is not None]),
                overridden=bool(joined[0][19]),
            )

    def next_deadline(self, version: ExperimentVersion, *, after: Time) -> Time | None:
        """See EventLog."""
        window = version.experiment.reward.window
        row = self._one(
            "select time from decisions where version = ? and time > ? order by time limit 1",
            (version.position, after - window),
        )
        return Time(row[0] + window) if row else None

    def newest_model(self, experiment: ExperimentId, signature: str) -> tuple[Position, SavedModel] | None:
        """See EventLog."""
        row = self._one(
            "select position, signature, checksum, cast(data as blob) from models "
            "where experiment = ? and signature = ? and data is not null order by position desc limit 1",
            (experiment, signature),
        )
        return (Position(row[0]), SavedModel(*row[1:])) if row else None

    def published(self, experiment: ExperimentId, signature: str) -> Sequence[Position]:
        """See EventLog."""
        sql = "select position from models where experiment = ? and signature = ? order by position"
        return [Position(row[0]) for row in self._read(sql, (experiment, signature))]

    def load_model(self, model: PublishedModel) -> SavedModel | None:
        """See EventLog."""
        row = self._one(
            "select signature, checksum, cast(data as blob) from models "
            "where experiment = ? and signature = ? and position = ? and data is not null",
            (model.experiment, model.signature, model.position),
        )
        return SavedModel(*row) if row else None


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


def _open_to_read(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=5, check_same_thread=False)


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
