"""Writes a log in PostgreSQL: group commit, any number of writers and readers on any number of machines.

Order and time are dealt by the row in `head`, inside the statement or transaction that appends. A commit whose
connection was lost is sent again with its number, until it is known to be written once or the patience is over.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar
from uuid import uuid4

import psycopg

from decider.errors import LogError, LogLocked
from decider.experiment.origin import FROM_SERVER
from decider.log import chain
from decider.log.entry_writer import EntryWriter, OpenCommit
from decider.log.group_commit import GroupCommit, write_wanted
from decider.log.place import name_of
from decider.log.postgres.checkpoints import store_checkpoint
from decider.log.postgres.commit_tables import PostgresTables
from decider.log.postgres.connection import (
    STATEMENT_SECONDS,
    Connection,
    Dialer,
    NoAnswer,
    end_if_gone,
    execute,
    is_lost,
    log_error,
    postgres_errors,
    read_one,
    to_stored,
    to_write,
)
from decider.log.postgres.connection import read as read_rows
from decider.log.postgres.hosts import PostgresHosts
from decider.log.postgres.lease import PostgresLease, check_epoch
from decider.log.postgres.migrations import migrate
from decider.log.postgres.models import PostgresModelStore
from decider.log.postgres.reader import PostgresReader
from decider.log.postgres.share import PostgresShare
from decider.log.postgres.statements import TAKE_PLACE, append, by_column, copy
from decider.log.postgres.upkeep import drop_over
from decider.log.protocol import (
    Awaited,
    Entry,
    Head,
    Mark,
    NewActivation,
    NewBuild,
    NewLeaveOut,
    NewModel,
    NewReward,
    Serves,
    Tick,
    TotalsCheckpoint,
)
from decider.log.tables import DECISIONS, EntryTable, overtaken, table_and_row
from decider.policy.algorithms import code_versions
from decider.types import START, Decision, ExperimentId, Position, Time, now

logger = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds for which a commit whose connection was lost is sent again."""

PAUSE = 0.05
"""Seconds between two tries."""

PATIENCE_IN_TROUBLE = 0.3
"""Seconds, where the call before has waited in vain."""

WRITE_SECONDS = 5.0
"""For which a statement of a commit waits for an answer; then its connection counts as lost. Longer than PostgreSQL
leaves the head to a writer that is gone: see `end_if_gone`."""

TO_ANSWER, LEAST_PATIENCE = 0.1, 0.2
"""Seconds before the first caller's deadline at which trying ends, so that all are told why; and for which it is tried
however near that is."""

MOST_AT_ONCE = 1_000
"""Entries that one statement writes."""

COPY_FROM = 200
"""Entries from which on streaming them costs less than one statement with lists. It asks three times more, with the
head taken, so all other writers wait for the network as well."""

CLOSE_INTERVAL = 60.0
"""Seconds between two looks for what counts no longer."""

_LEARNED = (NewModel, Serves, NewLeaveOut)
"""What only the learner of its experiment writes; of NewLeaveOut, what its guard does."""

_FENCED = (*_LEARNED, Tick)
"""With what only the leader writes."""

_OPEN = """
insert into writers (writer, commits, positions, time) values (%(writer)s, 0, '{}', 0) on conflict (writer) do nothing
"""
_BEGIN = """
select w.commits, h.changed, h.position, h.time, h.chain from writers w, head h where w.writer = %(writer)s for update
"""
_END = """
with h as (update head set position = %(position)s, time = %(time)s, chain = %(chain)s,
  changed = %(changed)s)
update writers set commits = %(commit)s, positions = %(positions)s::bigint[], time = %(at)s where writer = %(writer)s
"""
_WRITTEN = "select positions, time from writers where writer = %(writer)s and commits = %(commit)s"
_CHANGED = "select changed from head"
_OVERTAKEN = overtaken("%(version)s")
_LEAVE = "delete from writers where writer = %(writer)s"
_FORGET_WRITERS = "delete from writers where opened < now() - interval '30 days' and time < %(before)s"

_NOT_NEW = (psycopg.errors.UniqueViolation, psycopg.errors.RaiseException)


T = TypeVar("T")

_NO_ROW = "the row of this writer in `writers` is gone"


def _ignore_commit(size: int, seconds: float) -> None:
    pass


def _code() -> str:
    """Of the learning code of this process."""
    return json.dumps(code_versions(), sort_keys=True)


class _Written(Exception):
    """This commit was written before."""


class _Changed(Exception):
    """Another version of an experiment serves since this writer looked."""


class PostgresLog(PostgresReader):
    """A log to write: see EventLog. Made if there is none.

    url: as libpq takes it; the log is in the first schema of its search path. clock: None: this machine's, put back by
    what it is ahead of PostgreSQL's, since the time that it gives the log is that of all hosts. on_commit: called with
    the number of entries and the seconds of every commit. on_lost: called where the writer's connection is lost.
    patience: seconds for which a commit is sent again while PostgreSQL cannot be reached.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], Time] | None = None,
        on_commit: Callable[[int, float], None] = _ignore_commit,
        on_lost: Callable[[], None] = lambda: None,
        patience: float = PATIENCE,
    ) -> None:
        self._url = to_write(url)
        self._dialer = Dialer(self._url, most_seconds=STATEMENT_SECONDS)
        self._give_up = 0.0
        self._clock = clock or now
        self._on_commit, self._on_lost = on_commit, on_lost
        self._patience = patience
        self._writer_id = uuid4()
        self._commit = 0
        self._changed = START  # the newest change of what serves that this writer knows
        self._known_to_serve: set[Position] = set()  # versions known to serve since then
        self._closed_at = -CLOSE_INTERVAL
        with ExitStack() as opened, postgres_errors(name_of(url)):
            opened.callback(self._dialer.close)
            self._writer = self._connect()
            opened.callback(self._close_writer)
            migrate(self._writer, name_of(url))
            self._open_row()
            super().__init__(url, self._dialer)
            opened.pop_all()
        self._group = GroupCommit[Entry, Mark | None](self._write)
        self._entries = EntryWriter(PostgresTables(lambda: self._writer, self.version_at), self.version_at)
        self._lease: PostgresLease | None = None
        self._share: PostgresShare | None = None
        self._trouble: LogError | None = None
        self._hosts = PostgresHosts(self._pool, lambda: self._lease, lambda: self._share)
        self._models = PostgresModelStore(self._pool, self._hosts)
        if clock is None:
            ahead = max(0, now() - self._hosts.time())
            self._clock = lambda: Time(now() - ahead)

    @property
    def models(self) -> PostgresModelStore:
        """See EventLog."""
        return self._models

    @property
    def hosts(self) -> PostgresHosts:
        """See EventLog."""
        return self._hosts

    @property
    def trouble(self) -> LogError | None:
        """See EventLog."""
        return self._trouble

    @property
    def warnings(self) -> Sequence[str]:
        """See EventLog."""
        return ()

    def append(self, entries: Sequence[Entry]) -> list[Mark | None]:
        """See EventLog."""
        if not entries:
            return []
        try:
            # What may be refused as a whole is committed by itself: nobody else's decisions with it.
            alone = any(isinstance(entry, _FENCED) for entry in entries)
            marks = self._group.alone(entries) if alone else self._group(entries)
        except LogLocked:  # serving goes on
            raise
        except LogError as error:
            self._trouble = error
            raise
        self._trouble = None
        return marks

    def _write(self, entries: list[Entry]) -> list[Mark | None]:
        started = time.perf_counter()
        self._give_up = self._patience_of(entries)
        if self._writer.closed:  # before anybody asks who still waits for an answer
            self._connect_again()
        marks = self._write_on_head(entries)
        self._on_commit(len(entries), time.perf_counter() - started)
        return marks

    def _patience_of(self, entries: Sequence[Entry]) -> float:
        """Until when, on the monotonic clock, a commit of these is tried while PostgreSQL cannot be reached."""
        now_ = time.monotonic()
        deadline = min([entry.caller.deadline for entry in entries if type(entry) is Awaited], default=math.inf)
        patience = self._patience if self._trouble is None else min(self._patience, PATIENCE_IN_TROUBLE)
        return min(now_ + patience, max(now_ + LEAST_PATIENCE, deadline - TO_ANSWER))

    def _write_on_head(self, entries: list[Entry]) -> list[Mark | None]:
        while True:
            try:
                return write_wanted(entries, self._write_now, is_overtaken=self._is_overtaken)
            except _Changed:
                self._known_to_serve.clear()

    def _is_overtaken(self, version: Position) -> bool:
        """Whether another version serves in its place. Where that changes after this look, the commit fails: see
        `statements.py`."""
        if version in self._known_to_serve:
            return False
        if self._again(lambda: self._look_at(version)):
            return True
        self._known_to_serve.add(version)
        return False

    def _look_at(self, version: Position) -> bool:
        if not self._known_to_serve:
            self._changed = Position(read_one(self._writer, _CHANGED)[0])  # before the look at versions
        return read_one(self._writer, _OVERTAKEN, {"version": version}) is not None

    def _again(self, work: Callable[[], T]) -> T:
        """Again with a new connection where one is lost, as long as `_patience_of` said. Raises LogError."""
        while True:
            try:
                return work()
            except psycopg.Error as error:
                if isinstance(error, NoAnswer):
                    self._dialer.note(error)
                if not is_lost(error) or time.monotonic() >= self._give_up:
                    raise log_error(self.name, error) from error
                logger.warning("%s: sending it again: %s", self.name, error)
                self._on_lost()
                self._connect_again()

    def _write_now(self, entries: list[Entry]) -> list[Mark | None]:
        """Never asks first what became of a commit: one that was not there when somebody looked may still come."""
        if not entries:
            return []
        self._commit += 1
        return self._again(lambda: self._try_to_write(entries))

    def _connect(self) -> Connection:
        connection = self._dialer.connect()
        connection.most_seconds = WRITE_SECONDS
        end_if_gone(connection)  # it may have the head, for which all writers wait
        return connection

    def _open_row(self) -> None:
        """Where a server that took over has lost the row, as it has lost the last commits, they are written again."""
        execute(self._writer, _OPEN, {"writer": self._writer_id})

    def _connect_again(self) -> None:
        self._close_writer()
        while True:
            try:
                self._writer = self._connect()
                self._open_row()
                return
            except psycopg.OperationalError as error:
                if time.monotonic() >= self._give_up:
                    raise log_error(self.name, error) from error
            time.sleep(PAUSE)

    def _try_to_write(self, entries: list[Entry]) -> list[Mark | None]:
        if self._writer.closed:
            raise psycopg.OperationalError("the connection is closed")
        try:
            return self._write_at_once(entries) or self._write_any(entries)
        except _Written:
            row = read_one(self._writer, _WRITTEN, {"writer": self._writer_id, "commit": self._commit})
            if row is None:
                self._look_at_changes()
                raise psycopg.OperationalError(_NO_ROW) from None
            return [None if position is None else Mark(position, row["time"]) for position in row["positions"]]

    def _look_at_changes(self) -> None:
        """Raises _Changed."""
        changed = Position(read_one(self._writer, _CHANGED)[0])
        if changed != self._changed:
            self._changed = changed
            raise _Changed

    def _write_at_once(self, entries: list[Entry]) -> list[Mark | None] | None:
        """New entries of one kind that depend on nothing, the common case, in one statement that is its own
        transaction. None, and nothing is written, where one of them is not new or needs another look."""
        if len(entries) > MOST_AT_ONCE or len(set(map(type, entries))) > 1:
            return None
        found = self._rows_at_once(entries)
        if found is None:
            return None
        try:
            return self._copy(*found) if len(entries) >= COPY_FROM else self._append(*found)
        except _NOT_NEW:
            return None

    def _append(self, table: EntryTable, rows: Sequence[chain.EntryRow]) -> list[Mark | None]:
        values = {**by_column(table, rows), **self._commit_of(table, rows)}
        marks = sorted([Mark(*row) for row in read_rows(self._writer, append(table), values)])
        if not marks:
            raise _Written
        return [*marks]

    def _copy(self, table: EntryTable, rows: Sequence[chain.EntryRow]) -> list[Mark | None]:
        with self._writer.transaction(), self._writer.cursor() as cursor:
            row = read_one(self._writer, TAKE_PLACE, {"_count": len(rows), **self._commit_of(table, rows)})
            if row is None:
                raise _Written
            before, at = row
            with cursor.copy(copy(table).encode()) as stream:
                for position, values in enumerate(rows, before + 1):
                    stream.write_row((position, at, *map(to_stored, values)))
        return [Mark(Position(before + number), at) for number in range(1, len(rows) + 1)]

    def _commit_of(self, table: EntryTable, rows: Sequence[chain.EntryRow]) -> dict[str, Any]:
        return {
            "_writer": self._writer_id,
            "_commit": self._commit,
            "_changed": self._changed,
            "_at": self._clock(),
            "_digest": chain.digest([table.kind] * len(rows), rows),
        }

    def _rows_at_once(self, entries: Sequence[Any]) -> tuple[EntryTable, Sequence[chain.EntryRow]] | None:
        match entries[0]:
            case Decision():
                if any(self._entries.decisions.version_of(decision).limits for decision in entries):
                    return None
                return DECISIONS, [self._entries.decisions.row_of(decision) for decision in entries]
            case NewReward() if any(reward.final for reward in entries):
                return None
            case NewActivation() if any(one.action is not None for one in entries):
                return None
            case NewReward() | NewActivation():
                return table_and_row(entries[0])[0], [table_and_row(entry)[1] for entry in entries]
            case _:
                return None

    def _write_any(self, entries: list[Entry]) -> list[Mark | None]:
        """Entries of any kind, some of which a unique key may refuse, in one transaction."""
        with self._writer.transaction():  # nobody moves the head in between
            row = read_one(self._writer, _BEGIN, {"writer": self._writer_id})
            if row is None:
                raise psycopg.OperationalError(_NO_ROW)
            if row["commits"] >= self._commit:
                raise _Written
            self._check_fences(entries)
            if row["changed"] != self._changed:
                self._changed = Position(row["changed"])
                raise _Changed
            head = Head(*row[2:])
            commit = OpenCommit(head, Time(max(self._clock(), head.time)))
            marks = self._entries.write(commit, entries)
            self._end(commit, marks)
        return marks

    def _check_fences(self, entries: Sequence[Entry]) -> None:
        """Whether this process still leads, and learns, what it writes about. Raises LogLocked."""
        if self._lease is not None and any(isinstance(entry, Tick) for entry in entries):
            check_epoch(self._writer, self._lease.epoch, self.name)
        if self._share is not None:
            learned = {self._learned(entry) for entry in entries if isinstance(entry, _LEARNED)}
            if learned - {None}:
                self._share.check(self._writer, {id_ for id_ in learned if id_ is not None})

    def _learned(self, entry: NewModel | Serves | NewLeaveOut) -> ExperimentId | None:
        """The experiment whose learner alone writes that; None: somebody else may."""
        match entry:
            case NewModel():
                return entry.name.experiment
            case Serves():
                return self.version_at(entry.version).experiment.id
            case NewLeaveOut():
                return entry.experiment if entry.origin.source == FROM_SERVER else None

    def _end(self, commit: OpenCommit, marks: Sequence[Mark | None]) -> None:
        after = commit.end()
        values = {
            **after._asdict(),
            "writer": self._writer_id,
            "commit": self._commit,
            "at": commit.last.time,
            "positions": [None if mark is None else mark.position for mark in marks],
            "changed": after.position if commit.changes_what_serves else self._changed,
        }
        execute(self._writer, _END, values)

    def name_build(self, build: Mapping[str, Any]) -> Position:
        """See EventLog."""
        (mark,) = self.append([NewBuild(build)])
        assert mark is not None, "no key refuses a build"
        self._entries.decisions.build = mark.position
        return mark.position

    def lease(self) -> PostgresLease:
        """See EventLog."""
        lease = PostgresLease(self._url, _code())
        self._lease = lease
        return lease

    def share(self) -> PostgresShare:
        """See EventLog."""
        if self._share is not None:
            self._share.release()
        self._share = PostgresShare(self._url, _code())
        return self._share

    def store_totals(self, checkpoint: TotalsCheckpoint) -> None:
        """See EventLog."""
        with self._pool.writing() as connection:
            if self._lease is not None:
                check_epoch(connection, self._lease.epoch, self.name)
            store_checkpoint(connection, checkpoint)

    def maintain(self) -> None:
        """See EventLog. Now and then, deletes what counts no longer: none of it is an entry."""
        if time.monotonic() - self._closed_at < CLOSE_INTERVAL:
            return
        self._closed_at = time.monotonic()
        at, log_time = self._clock(), self.head().time
        with self._pool.writing() as connection:
            drop_over(connection, at, log_time)
        with self._pool.connection() as connection:
            execute(connection, _FORGET_WRITERS, {"before": at - 30 * 86_400_000_000})
        if self._lease is not None:
            self._hosts.drop_old_models()

    def close(self) -> None:
        """See EventLog."""
        if self._lease is not None:
            self._lease.release()
        if self._share is not None:
            self._share.release()
        with self._group.lock:
            self._close_writer(leave=True)
        super().close()

    def _close_writer(self, *, leave: bool = False) -> None:
        try:
            if leave and not self._writer.closed:
                execute(self._writer, _LEAVE, {"writer": self._writer_id})
        except psycopg.Error as error:
            logger.warning("%s: %s", self.name, error)
        finally:
            self._writer.close()
