"""Writes a log in an SQLite file: WAL, group commit, any number of writers and readers in any number of processes.

Order and time are dealt by the row in `head`, inside the transaction that appends. Hot path by hand-written SQL;
sqlite-utils runs the migrations.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from decider.errors import LogCorrupt, LogError, LogLocked
from decider.experiment.attribution import Credit, credited
from decider.experiment.definition import ExperimentVersion
from decider.log import chain
from decider.log.archive.last_part import LastPart
from decider.log.group_commit import GroupCommit, write_wanted
from decider.log.protocol import (
    END,
    EarlyActivation,
    Entry,
    Head,
    Mark,
    NewActivation,
    NewBuild,
    NewLeaveOut,
    NewLink,
    NewRecall,
    NewReward,
    NewRewardChange,
    NewSeal,
    NewSlate,
    NewUnitReward,
    NewUnitRewardChange,
    NewVersion,
    NewVersionNote,
    NewWithheld,
    Orphan,
    RefusedReward,
    TotalsCheckpoint,
    UnitDecision,
    can_change,
    units_of,
)
from decider.log.sqlite import action_counts, assignments, early, exposures, units
from decider.log.sqlite.archived import CUT
from decider.log.sqlite.checkpoints import write_checkpoint
from decider.log.sqlite.connection import open_to_read, roll_back, transaction
from decider.log.sqlite.errors import SQLITE_ERRORS, SqliteError, sqlite_errors
from decider.log.sqlite.locks import DatabaseFile, FileLease, hold, let_go, start_writing, stop_writing
from decider.log.sqlite.log_files import FileGone, LogFiles, Witness, last_acknowledged
from decider.log.sqlite.migrations import COUNT_REFUSED_SUM, migrate
from decider.log.sqlite.models import PIECE_BYTES, SqliteModelStore
from decider.log.sqlite.open_versions import CLOSE_INTERVAL, close_versions, find_over
from decider.log.sqlite.reader import SqliteReader
from decider.log.sqlite.tables import (
    DECISIONS,
    EXPERIMENTS,
    INTERN_SIGNATURE,
    PUBLISHED_MODELS,
    REWARD_CHANGES,
    REWARDS,
    SEALS,
    SERVES,
    UNIT_REWARDS,
    EntryTable,
    change_row,
    decision_row,
    table_and_row,
    unit_reward_row,
)
from decider.log.sqlite.trim import Trimmer
from decider.log.sqlite.unit_state import UnitState
from decider.log.sqlite.write_ahead import LARGE_BYTES, WriteAheadLog
from decider.types import START, ActionId, Decision, Position, RewardOutcome, Time, now

logger = logging.getLogger(__name__)

Synchronous = Literal["NORMAL", "FULL"]

MOST_AT_ONCE = 200
"""Entries that one statement writes."""

DECISION_ID, ACTION = map(DECISIONS.columns.index, ("decision_id", "action"))
_REWARD = "select position from rewards where decision = ? and reward_id = ?"

_HEAD = "select position, time, chain, exists (select 1 from seals) from head"

_HEAD_AND_CHANGE = """
select position, time, chain, max(
  (select coalesce(max(position), 0) from experiments), (select coalesce(max(position), 0) from serves)
) from head
"""

_OVERTAKEN = """
select 1 from experiments old join experiments new on new.experiment = old.experiment and new.number > old.number
where old.position = ? and (new.waits = 0 or exists (
  select 1 from serves where serves.version = new.position and not exists (
    select 1 from experiments newer
    where newer.experiment = new.experiment and newer.number > new.number and newer.position < serves.position
  )
)) limit 1
"""
"""Whether a version serves no more that has served: the rules of `serving/lineup.py`."""

_VERSION_AND_TIME = "select version, time from decisions where position = ?"

MOST_DROPS = 20
"""Pieces of what counts no longer that one look deletes."""

MOST_COUNTS = 5
"""Pieces of decisions that one look counts."""

CLOSE_PATIENCE = 500
"""Milliseconds that closing waits for readers: one that stays, as a program that copies the log all the time, would
make every restart longer. What is not written back then stays in the write-ahead log, and is read from there."""

MAX_REFUSED_NAMES = 50
OTHER_NAME = "other"

_ANY_DECISION = "select 1 from decisions where decision_id in (select value from json_each(?)) limit 1"


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
        self._refused_names: dict[str, set[str]] = {}
        self._build: Position | None = None
        self._last_version: ExperimentVersion | None = None
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
        self._trouble: LogError | None = None
        self._damage: LogCorrupt | None = None
        self._units = UnitState(self._writer, self.version_at)
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
        self._head = Head(*head)
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
        if any(self._version_of(decision).limits for decision in entries):
            return None
        head, at = self._head, self._time_after(self._head)
        parts = list(_parts(entries))
        try:
            if len(parts) > 1:
                self._writer.execute("begin immediate")
            for part in parts:
                head = self._insert_decisions(part, head, at)
            if len(parts) > 1:
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
        rows = [self._decision_row(decision) for decision in decisions]
        after = _head_after(head, at, [DECISIONS.kind] * len(rows), rows)
        values: list[Any] = []
        for position, row in enumerate(rows, head.position + 1):
            values += (position, at, *row)
        values += (at, after.position, head.chain, after.chain)
        self._writer.execute(_insert_decisions(len(rows)), values)
        return after

    def _time_after(self, head: Head) -> Time:
        return Time(max(self._clock(), head.time))

    def _version_of(self, decision: Any) -> ExperimentVersion:
        version = self._last_version  # of the decision before: in most commits they have one version
        if version is None or version.position != decision.version:
            version = self._last_version = self.version_at(decision.version)
        return version

    def _decision_row(self, decision: Any) -> chain.EntryRow:
        return decision_row(decision, self._version_of(decision), self._build)

    def _write_any(self, entries: list[Entry]) -> list[Mark | None]:
        """Entries of any kind, some of which a unique key may refuse, in one transaction."""
        with transaction(self._writer):  # nobody moves the head in between
            (*row, has_seals) = self._writer.execute(_HEAD).fetchone()
            head = Head(*row)
            if head != self._head:
                raise _HeadMoved
            commit = OpenCommit(head, self._time_after(head))
            marks: list[Mark | None] = []
            for _, alike in groupby([self._with_unit(entry) for entry in entries], type):
                for part in _parts(list(alike)):
                    marks += self._insert(commit, part)
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

    def _with_unit(self, entry: Entry) -> Entry:
        """A decision for which others of its unit will ask, as one that says so."""
        return UnitDecision(entry) if isinstance(entry, Decision) and self._version_of(entry).limits else entry

    def _insert(self, commit: OpenCommit, entries: Sequence[Any]) -> list[Mark | None]:
        """Entries of one kind, with one statement where no unique key refuses one of them."""
        match entries[0]:
            case Orphan():
                return self._only_count(entries, RewardOutcome.ORPHAN)
            case RefusedReward():
                for outcome in sorted({one.outcome for one in entries}):
                    self._only_count([one for one in entries if one.outcome is outcome], outcome)
                return [None] * len(entries)
            case NewSlate():
                return [self._insert_slate(commit, one) for one in entries]
            case UnitDecision():
                return self._insert_of_units(commit, entries)
            case NewActivation():
                return self._insert_activations(commit, entries)
            case EarlyActivation():
                return self._insert_early(commit, entries)
            case NewReward():
                return self._insert_rewards(commit, entries)
            case NewRewardChange():
                return [self._insert_change(commit, one) for one in entries]
            case NewUnitReward():
                return [self._insert_unit_reward(commit, one) for one in entries]
            case NewUnitRewardChange():
                return [self._insert_unit_change(commit, one) for one in entries]
            case NewLink():
                return [self._insert_link(commit, one) for one in entries]
            case NewVersion() | NewLeaveOut():
                return [self._insert_with_origin(commit, one) for one in entries]
            case _:
                return self._insert_in(commit, *self._table_and_rows(entries))

    def _only_count(self, entries: Sequence[Orphan | RefusedReward], outcome: RewardOutcome) -> list[Mark | None]:
        self._count_refused([entry.name for entry in entries], outcome)
        return [None] * len(entries)

    def _insert_rewards(self, commit: OpenCommit, rewards: Sequence[NewReward]) -> list[Mark | None]:
        """Rewards, and just behind each final one the seal of its decision."""
        marks: list[Mark | None] = []
        for some in _up_to_final(rewards):
            marks += self._insert_in(commit, *self._table_and_rows(some))
            if some[-1].final and marks[-1] is not None:
                self._seal(commit, some[-1].decision, marks[-1])
        return marks

    def _seal(self, commit: OpenCommit, decision: Position, last: Mark) -> None:
        """Close a decision's window behind its last entry, where it is not over."""
        version, time = self._writer.execute(_VERSION_AND_TIME, (decision,)).fetchone()
        if last.time < time + self.version_at(version).experiment.reward.window:
            self._insert(commit, [NewSeal(decision, version)])
            self._units.note_seal(decision)

    def _insert_change(self, commit: OpenCommit, change: NewRewardChange) -> Mark | None:
        """A change of a reward, which is looked up here, where nobody writes beside; made where it has not come yet."""
        if self._is_archived(change):
            return None
        found = self._writer.execute(_REWARD, (change.decision, change.reward_id)).fetchone()
        reward = Position(found[0]) if found else None
        if reward is None:
            by_unit = units.credited_in_experiment(self._writer, change.decision, change.reward_id, change.name)
            if by_unit:
                return self._change_by_unit(commit, change, *by_unit)
            (made,) = self._insert(commit, [change.missing_reward()])
            if made is None:
                return None
            reward = made.position
        return self._change_reward(commit, change, reward)

    def _change_by_unit(self, commit: OpenCommit, change: NewRewardChange, of: Position, name: str) -> Mark | None:
        """A change of each reward that was credited with the same purchase; the first one's mark."""
        by_unit = NewUnitRewardChange("", change.reward_id, change.value, name, change.occurred_at, final=change.final)
        marks = [self._change_credited(commit, by_unit, one) for one in units.credited_rewards(self._writer, of)]
        return next((mark for mark in marks if mark is not None), None)

    def _is_archived(self, change: NewRewardChange) -> bool:
        """Whether it is of an archived decision, whose window is over: then it is only counted."""
        (cut,) = self._writer.execute(f"select {CUT}").fetchone()
        if change.decision <= cut:
            self._count_refused([change.name], RewardOutcome.LATE)
        return bool(change.decision <= cut)

    def _change_reward(self, commit: OpenCommit, change: NewRewardChange, reward: Position) -> Mark | None:
        (mark,) = self._insert_in(commit, REWARD_CHANGES, [change_row(change, reward)])
        if mark is None:
            self._count_refused([change.name], RewardOutcome.DUPLICATE)
        elif change.final:
            self._seal(commit, change.decision, mark)
        return mark

    def _insert_unit_reward(self, commit: OpenCommit, reward: NewUnitReward, *, told: bool = False) -> Mark | None:
        """A reward by unit, then what is credited. The lock is held: nobody decides or rewards in between. told: it is
        no duplicate where all have it already; those are changed."""
        new = self._credited(reward, commit.last.time)
        if new is None:
            if not told:
                self._count_refused([reward.name], RewardOutcome.DUPLICATE)
            return None
        last = Position(commit.last.position + 1 + len(new) * (2 if reward.final else 1))
        (mark,) = self._insert_in(commit, UNIT_REWARDS, [unit_reward_row(reward, last)])
        if mark is None:
            raise sqlite3.IntegrityError("a reward by unit is refused that was not there")
        self._insert_rewards(commit, [reward.credit(*one) for one in new])
        if commit.last.position != last:
            raise sqlite3.IntegrityError("a reward by unit has credited something else than was chosen")
        if not new:
            self._count_refused([reward.name], RewardOutcome.NO_DECISION)
        return mark

    def _credited(self, reward: NewUnitReward, at: Time) -> Sequence[Credit] | None:
        """To what it is credited; None where the person has it already."""
        persons, id_ = units.units_of(self._writer, reward.unit), reward.reward_id
        if id_ is not None and units.find_unit_reward(self._writer, reward.unit, persons, id_):
            return None
        same = () if id_ is None else units.same_id(self._writer, persons, reward.experiment, at, id_)
        found = units.open_decisions(self._writer, self.version_at, persons, reward.experiment, at)
        return credited(found, reward.name, reward.value, same)

    def _insert_unit_change(self, commit: OpenCommit, change: NewUnitRewardChange) -> Mark | None:
        """A change of each reward that was credited, or sent for a decision; the first one's mark."""
        persons, at = units.units_of(self._writer, change.unit), commit.last.time
        found = units.find_unit_reward(self._writer, change.unit, persons, change.reward_id)
        sent = units.by_decision(self._writer, persons, change.experiment, at, change.reward_id)
        meant = [one for one in sent if one.is_changed_by(change)]
        made = self._insert_unit_reward(commit, change.missing_reward(), told=bool(meant)) if found is None else None
        of = found.position if found else made.position if made else START
        marks = [self._change_credited(commit, change, one) for one in units.credited_rewards(self._writer, of)]
        for one in meant:
            credit = units.CreditedReward(one.place.position, one.reward, one.name, one.weight)
            marks.append(self._change_credited(commit, change, credit))
        return next((mark for mark in marks if mark is not None), None)

    def _change_credited(
        self, commit: OpenCommit, change: NewUnitRewardChange, credit: units.CreditedReward
    ) -> Mark | None:
        """By the place of the reward, not by its id: that may be forgotten."""
        new = change.of_credited(credit.decision, credit.name, credit.weight)
        if not can_change(credit.name, credit.weight, change.value):
            self._count_refused([change.name], RewardOutcome.DUPLICATE)
            return None
        return None if self._is_archived(new) else self._change_reward(commit, new, credit.position)

    def _insert_link(self, commit: OpenCommit, link: NewLink) -> Mark | None:
        if not units.join_persons(self._writer, link.unit, link.same_as, Position(commit.last.position + 1)):
            return None
        (mark,) = self._insert_in(commit, *self._table_and_rows([link]))
        if mark is None:
            raise sqlite3.IntegrityError("a link is refused that was not there")
        return mark

    def _insert_with_origin(self, commit: OpenCommit, entry: NewVersion | NewLeaveOut) -> Mark | None:
        """And just behind it who made it."""
        (mark,) = self._insert_in(commit, *self._table_and_rows([entry]))
        if mark is not None and any(entry.origin):
            self._insert(commit, [NewVersionNote(mark.position, entry.origin)])
        return mark

    def _insert_in(self, commit: OpenCommit, table: EntryTable, rows: list[chain.EntryRow]) -> list[Mark | None]:
        # Every statement releases the interpreter lock and has to win it back, which costs more than its work.
        refused = self._insert_rows(table, rows, commit)
        if refused:
            # Positions have no gaps, so the others move up. The lock is held: no key refuses them this time.
            self._writer.execute(f"delete from {table.name} where position > ?", (commit.last.position,))  # noqa: S608
            accepted = [row for index, row in enumerate(rows) if index not in refused]
            if accepted and self._insert_rows(table, accepted, commit):
                raise sqlite3.IntegrityError(f"{table.name}: a row is refused that was not")
            if table is REWARDS:
                self._count_refused_rewards([rows[index] for index in sorted(refused)])
        else:
            accepted = rows
        marks = commit.add(table, accepted)
        written = [None if index in refused else next(marks) for index in range(len(rows))]
        if commit.early:
            self._activate_early(commit, rows, written)
        return written

    def _activate_early(self, commit: OpenCommit, rows: Sequence[chain.EntryRow], marks: Sequence[Mark | None]) -> None:
        """Write the activations that came before these decisions."""
        said, commit.early = commit.early, {}
        activations = [
            _activation(mark.position, row[ACTION], said[row[DECISION_ID]])
            for row, mark in zip(rows, marks, strict=True)
            if mark is not None and row[DECISION_ID] in said
        ]
        if activations:
            self._insert(commit, activations)

    def _insert_early(self, commit: OpenCommit, activations: Sequence[EarlyActivation]) -> list[Mark | None]:
        """Activations of decisions that were not there when their callers looked."""
        there = early.places(self._writer, activations)
        marks: list[Mark | None] = []
        for one in activations:
            if one.decision_id in there:
                marks += self._insert(commit, [_activation(*there[one.decision_id], one.action)])
            else:
                first = early.remember(self._writer, one, commit.last.time)
                marks.append(Mark(START, commit.last.time) if first else None)
        return marks

    def _insert_slate(self, commit: OpenCommit, slate: NewSlate) -> Mark | None:
        """All of its decisions, or none."""
        new = units_of(slate)
        if len({one.decision.decision_id for one in new}) < len(new):
            raise sqlite3.IntegrityError("a slate names a decision twice")
        return self._insert_all_or_none(commit, new)

    def _insert_of_units(self, commit: OpenCommit, new: Sequence[UnitDecision]) -> list[Mark | None]:
        if any(map(self._units.has_any, new)):
            return [self._insert_all_or_none(commit, [one]) for one in new]
        return self._insert_with_rules(commit, new)

    def _insert_all_or_none(self, commit: OpenCommit, new: Sequence[UnitDecision]) -> Mark | None:
        """The decisions of a unit and what belongs to them, or nothing; the first one's mark."""
        ids = json.dumps([one.decision.decision_id for one in new])
        if self._writer.execute(_ANY_DECISION, (ids,)).fetchone():  # the lock is held: no other writer can come between
            return None
        if not self._units.is_current(new, commit.last.time):
            return None
        for position, one in enumerate(new, commit.last.position + 1):
            self._units.note(one, Mark(Position(position), commit.last.time))
        return self._insert_with_rules(commit, new)[0]

    def _insert_with_rules(self, commit: OpenCommit, new: Sequence[UnitDecision]) -> list[Mark | None]:
        """The decisions, then what was withheld for them, and from what their units' histories were read."""
        marks = self._insert_in(commit, DECISIONS, [self._decision_row(one.decision) for one in new])
        written = [(mark.position, one) for mark, one in zip(marks, new, strict=True) if mark is not None]
        for beside in (
            [NewWithheld(position, one.withheld) for position, one in written if one.withheld],
            [NewRecall(position, one.seen) for position, one in written if one.seen is not None],
        ):
            if beside:
                self._insert(commit, beside)
        return marks

    def _insert_activations(self, commit: OpenCommit, activations: Sequence[NewActivation]) -> list[Mark | None]:
        marks = self._insert_in(commit, *self._table_and_rows(activations))
        for mark, one in zip(marks, activations, strict=True):
            if mark is not None and one.action is not None:
                self._units.note_override(one, mark.time)
        return marks

    def _table_and_rows(self, entries: Sequence[Any]) -> tuple[EntryTable, list[chain.EntryRow]]:
        if isinstance(entries[0], Decision):
            return DECISIONS, [self._decision_row(entry) for entry in entries]
        tables, rows = zip(*map(table_and_row, entries), strict=True)
        return tables[0], list(rows)

    def _insert_rows(self, table: EntryTable, rows: Sequence[chain.EntryRow], commit: OpenCommit) -> set[int]:
        """Insert rows after the commit's last one. Returns the indexes of those that the table's key refuses."""
        if table is PUBLISHED_MODELS:
            self._writer.executemany(INTERN_SIGNATURE, [row[1:2] for row in rows])
        first, at = commit.last.position + 1, commit.last.time
        values = [value for position, row in enumerate(rows, first) for value in (position, at, *row)]
        if self._insert_values(table, rows, values, commit) == len(rows):
            return set()
        written = self._writer.execute(f"select position from {table.name} where position >= ?", (first,))  # noqa: S608
        return {*range(len(rows))} - {position - first for (position,) in written}

    def _insert_values(
        self, table: EntryTable, rows: Sequence[chain.EntryRow], values: Sequence[Any], commit: OpenCommit
    ) -> int:
        """Returns how many rows were inserted."""
        sql = table.insert_many(len(rows))
        try:
            return self._writer.execute(sql, values).rowcount
        except sqlite3.IntegrityError:
            # Only the statement is undone. See the trigger `activated_before`: most decisions were not, so nobody looks
            # before one was.
            ids = [row[DECISION_ID] for row in rows] if table is DECISIONS else []
            said = early.take(self._writer, ids, commit.last.time) if ids else None
            if said is None:
                raise
            commit.early |= said
        return self._writer.execute(sql, values).rowcount

    def _count_refused(self, names: Sequence[str], outcome: str) -> None:
        counts = Counter([self._refused_name(name, outcome) for name in names])
        for name, count in counts.items():
            self._writer.execute(
                "insert into refused_rewards (name, outcome, count) values (?, ?, ?) "
                "on conflict (name, outcome) do update set count = count + excluded.count",
                (name, outcome, count),
            )
            self._writer.execute(COUNT_REFUSED_SUM, (chain.refused_sum(name, outcome) * count & chain.REFUSED_BITS,))

    def _count_refused_rewards(self, rows: Sequence[chain.EntryRow]) -> None:
        """Those that a unique key refused, and those of archived decisions, whose windows are over."""
        (cut,) = self._writer.execute(f"select {CUT}").fetchone()
        self._count_refused([name for decision, name, *_ in rows if decision > cut], RewardOutcome.DUPLICATE)
        self._count_refused([name for decision, name, *_ in rows if decision <= cut], RewardOutcome.LATE)

    def _refused_name(self, name: str, outcome: str) -> str:
        """The name to count under: callers invent names, so their number is bounded."""
        if outcome not in self._refused_names:
            rows = self._writer.execute("select name from refused_rewards where outcome = ?", (outcome,))
            self._refused_names[outcome] = {row[0] for row in rows}
        known = self._refused_names[outcome]
        if len(known) < MAX_REFUSED_NAMES:
            known.add(name)
        return name if name in known else OTHER_NAME

    def name_build(self, build: Mapping[str, Any]) -> Position:
        """See EventLog."""
        (mark,) = self.append([NewBuild(build)])
        assert mark is not None, "no key refuses a build"
        self._build = mark.position
        return mark.position

    def lease(self) -> FileLease:
        """See EventLog."""
        self._lease = FileLease(self._file, self.name)
        return self._lease

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


class OpenCommit:
    """The entries that an open transaction has written since the head."""

    def __init__(self, head: Head, at: Time) -> None:
        self._head = head
        self._at = at
        self._kinds: list[str] = []
        self._rows: list[chain.EntryRow] = []
        self.early: dict[str, ActionId | None] = {}
        """What was shown for decisions whose activation came first, until that is written."""

    @property
    def last(self) -> Mark:
        """The last position, and the time of the commit."""
        return Mark(Position(self._head.position + len(self._rows)), self._at)

    @property
    def has_seals(self) -> bool:
        """Whether one of them is a seal."""
        return SEALS.kind in self._kinds

    @property
    def changes_what_serves(self) -> bool:
        """Whether one of them is a version, or says that one serves."""
        return EXPERIMENTS.kind in self._kinds or SERVES.kind in self._kinds

    def add(self, table: EntryTable, rows: Sequence[chain.EntryRow]) -> Iterator[Mark]:
        """Note entries that were written. Returns their marks."""
        first = self.last.position + 1
        self._kinds += [table.kind] * len(rows)
        self._rows += rows
        return iter([Mark(Position(position), self._at) for position in range(first, first + len(rows))])

    def end(self) -> Head:
        """The head after the commit; the old one where nothing was written."""
        return _head_after(self._head, self._at, self._kinds, self._rows) if self._rows else self._head


def _activation(decision: Position, drawn: ActionId, shown: ActionId | None) -> NewActivation:
    return NewActivation(decision, None if shown == drawn else shown)


def _up_to_final(rewards: Sequence[NewReward]) -> Iterator[Sequence[NewReward]]:
    """In pieces that end with a final one, or with the last."""
    first = 0
    for place, reward in enumerate(rewards, 1):
        if reward.final or place == len(rewards):
            yield rewards[first:place]
            first = place


def _parts(entries: list[Entry]) -> Iterator[list[Entry]]:
    for first in range(0, len(entries), MOST_AT_ONCE):
        yield entries[first : first + MOST_AT_ONCE]


def _head_after(head: Head, at: Time, kinds: Sequence[str], rows: Sequence[chain.EntryRow]) -> Head:
    first = Position(head.position + 1)
    linked = chain.link(head.chain, first, at, chain.digest(kinds, rows))
    return Head(Position(head.position + len(rows)), at, linked)


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
