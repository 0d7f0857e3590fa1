"""Reads a log in an SQLite file, without the right to write; also while a server writes it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from heapq import merge as merge_sorted
from pathlib import Path
from typing import Any

from decider.errors import EntriesArchived, LogCorrupt, LogError
from decider.experiment.attribution import OpenDecision
from decider.experiment.definition import ExperimentVersion
from decider.experiment.limits import Counts
from decider.experiment.origin import Origin
from decider.experiment.schema import active_actions
from decider.experiment.unit_history import HistoryDefinition, PastDecision, Seen
from decider.log.archive.part import Part, check_sizes
from decider.log.commits import build_of
from decider.log.exposures import FollowUp, ShownDecision
from decider.log.forgotten import ChangedCommit, Removal, removals
from decider.log.past_decisions import ROW as PAST_DECISION
from decider.log.past_decisions import past_decisions
from decider.log.protocol import (
    END,
    ArrowBatches,
    ClosedDecision,
    CreditedDecision,
    Damage,
    DecisionLine,
    DecisionRef,
    DirectReward,
    Head,
    LeaveOut,
    LoggedDecision,
    LoggedReward,
    LogSizes,
    Mark,
    ModelName,
    NamedModel,
    OnProgress,
    RewardRef,
    SealedDecision,
    ServingChanges,
    TotalsCheckpoint,
    UnitRewardRef,
    VersionName,
)
from decider.log.rows import (
    DECISION,
    PLACE,
    Parameters,
    RowType,
    experiment_version,
    head_in,
    leave_out,
    logged_decision,
    whole_number,
)
from decider.log.sqlite import unit_history
from decider.log.sqlite.archived import CUT, FIRST_ARCHIVED_DEADLINE, read_cut
from decider.log.sqlite.assignments import ASSIGNED
from decider.log.sqlite.check import check
from decider.log.sqlite.checkpoints import known_place, may_be_gone, newest_checkpoint
from decider.log.sqlite.connection import open_to_read
from decider.log.sqlite.deadlines import FIRST_DEADLINES, FIRST_DEADLINES_OF, due_until
from decider.log.sqlite.decided import decided_by_version
from decider.log.sqlite.errors import SQLITE_ERRORS, SqliteError, log_error
from decider.log.sqlite.exposures import all_shown, counts, limited_versions
from decider.log.sqlite.known_strata import KnownMeasures, KnownStrata
from decider.log.sqlite.locks import hold, let_go
from decider.log.sqlite.log_files import last_acknowledged
from decider.log.sqlite.models import SqliteModelReader
from decider.log.sqlite.read_rows import read, read_one
from decider.log.sqlite.sealed import (
    LAST_PLACE,
    ArchiveStream,
    InTimeRows,
    Place,
    WithLateRows,
    first_after,
    place_of,
    sealed_page,
)
from decider.log.sqlite.totals import Grouped, count_totals
from decider.log.sqlite.units import CREDITS, PERSONS, UNIT_REWARD, UNITS, by_decision, open_decisions
from decider.log.totals import ActionNames, Totals, names_of
from decider.log.version_cache import VersionCache
from decider.types import START, ActionId, DecisionId, ExperimentId, Position, Reason, RewardOutcome, Time

_SEALS = "select decision, position from seals where decision in (select value from json_each(?)) and position <= ?"

_NAMED_MODELS = """
select version, coalesce(build, 0), min(model) from decisions not indexed where position > ? group by 1, 2 order by 1, 2
"""

_ALL_VERSIONS = "select position, time, number, definition from experiments order by position"
_NEWEST_VERSIONS = "select position from experiments where experiment = ? order by number desc limit ?"
_NEWEST_DECISIONS = """
select decision_id, time, action, reason from decisions where version = ? order by time desc, position desc limit ?
"""
_VERSION = "select position, time, number, definition from experiments where position = ?"

_ORIGINS = """
select version, author, source, note from version_notes where version in (select value from json_each(?))
"""

_DECISIONS = f"select {DECISION.columns} from decisions"  # noqa: S608 - a constant

_FIND = f"""
select {DECISION.columns} from decisions where decision_id = ?1
union all select {DECISION.columns} from archived_decisions where decision_id = ?1 order by position desc limit 1
"""  # noqa: S608 - constants
"""A log that was put together with its archive may have several of one id: the newest is what a retry gets."""

_PLACES = f"""
select {PLACE.columns} from decisions where decision_id in (select value from json_each(?1))
union all select {PLACE.columns} from archived_decisions where decision_id in (select value from json_each(?1))
order by position
"""  # noqa: S608 - constants

_COUNT = f"""
select (select count(*) from decisions) - (select count(*) from decisions where position <= {CUT}) as count
"""  # noqa: S608 - a constant
"""The smallest index counts the whole table, so nothing is read but what is still to be deleted."""

_SEALED_ALIKE = f"""
select version, reason, activated, overridden, count(*) as count from decision_windows
where position > {CUT} and version in (select position from experiments where experiment = :experiment)
  and deadline <= (select time from head)
group by version, reason, activated, overridden
"""  # noqa: S608 - a constant

_TIME_AT = """
select time from entries where position = ? union all select time from archived_times where position = ? limit 1
"""

_LAST_NEWS = """
select position, max((select coalesce(max(position), 0) from experiments),
  (select coalesce(max(position), 0) from serves), (select coalesce(max(position), 0) from published),
  (select coalesce(max(position), 0) from leave_outs)) as last
from head
"""
_NEW_VERSIONS = """
select position, experiment, waits from experiments where position > ? and position <= ? order by position
"""
_SERVES = "select position, version from serves where position > ? and position <= ? order by position"
_NEW_LEAVE_OUTS = "select position, experiment from leave_outs where position > ? and position <= ? order by position"
# The seals of a stretch of decisions: those of a version, without the sign, would be all that it ever had.
_CLOSED = """
select w.window_end, w.position, w.unit_id, w.reason, exists (
  select 1 from decision_rewards r where r.position = w.position and r.reward is not null) as rewarded
from seals s cross join decision_windows w on w.position = s.decision
where +s.version = :version and not w.left_out
  and s.decision >= (select d.position from decisions d
    where d.version = :version and d.time > :after order by d.time, d.position limit 1)
  and s.decision <= (select d.position from decisions d
    where d.version = :version and d.time <= :until order by d.time desc, d.position desc limit 1)
order by s.decision
"""
_LEAVE_OUTS = """
select l.position, l.time, l.experiment, sealed_after, sealed_until, replaces, coalesce(n.author, l.author) as author,
  coalesce(n.source, '') as source, coalesce(n.note, l.reason) as note
from leave_outs l left join version_notes n on n.version = l.position where l.experiment = ? order by l.position
"""

# With `max` the other columns are those of the row that has it: so SQLite promises.
_MODELS = """
select max(p.position) as position, p.experiment, p.model, s.signature
from published p join signatures s on s.id = p.signature
where p.position > ? and p.position <= ? group by p.experiment, p.signature order by 1
"""

# The same for all that were ever published, by a loose index scan: it steps from one owner to the next in the unique
# key's index, since a log has millions of models and a few owners.
NEWEST_MODELS = """
with recursive owners (experiment, signature) as (
  select experiment, signature from (
    select experiment, signature from published order by experiment, signature limit 1)
  union all
  select next.experiment, next.signature from owners join published next on next.position = (
    select p.position from published p
    where (p.experiment, p.signature) > (owners.experiment, owners.signature)
    order by p.experiment, p.signature limit 1)
)
select p.position, p.experiment, p.model, s.signature
from owners join published p on p.experiment = owners.experiment and p.signature = owners.signature
  and p.model = (select max(model) from published
    where experiment = owners.experiment and signature = owners.signature)
join signatures s on s.id = p.signature
where p.position > ? and p.position <= ? order by 1
"""


class SqliteReader:
    """A log to read, from any thread: idle connections are kept and used again.

    archives: folders with parts of its archive that do not lie any more where they were written.
    Raises LogError where there is no log.
    """

    def __init__(self, path: Path, *, archives: Sequence[Path] = ()) -> None:
        if not path.is_file():
            raise LogError(f"{path}: there is no such log")
        self.path = path
        self._archives = archives
        self._database_file = hold(path)
        self._idle: deque[sqlite3.Connection] = deque()
        self._connections: list[sqlite3.Connection] = []
        self._versions = VersionCache()
        self._strata = KnownStrata(self.version_at)
        self._measures = KnownMeasures(self.version_at)
        try:
            self._check_tables()
        except BaseException:
            SqliteReader.close(self)
            raise

    def _check_tables(self) -> None:
        tables = self._tables()
        if "sealed_decisions" not in tables:
            raise LogCorrupt(f"{self.path}: is an SQLite file but not a log of this service")
        if "head" not in tables:
            raise LogError(f"{self.path}: was written by an older release; `open_reader` reads it")

    @property
    def models(self) -> SqliteModelReader:
        """See LogReader."""
        return SqliteModelReader(self._read)

    def _tables(self) -> set[str]:
        return {row["name"] for row in self._read("select name from sqlite_master")}

    @property
    def name(self) -> str:
        """See LogReader."""
        return str(self.path)

    def _take(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            connection = open_to_read(self.path)
            self._connections.append(connection)
            return connection

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else uses meanwhile."""
        try:
            connection = self._take()
            try:
                yield connection
            finally:
                self._idle.append(connection)
        except SQLITE_ERRORS as error:
            raise self._to_log_error(error) from error

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection on which all queries see the same log, whatever others write or delete meanwhile."""
        with self._connection() as connection:
            connection.execute("begin")
            try:
                yield connection
            finally:
                connection.execute("rollback")

    def _read(self, sql: str, parameters: Parameters = (), row: RowType | None = None) -> Generator[Any, None, None]:
        """Rows; as sqlite3.Row where no type is given."""
        with self._connection() as connection:
            yield from read(connection, sql, parameters, row)

    def _one(self, sql: str, parameters: Parameters = (), row: RowType | None = None) -> Any:
        """The first row, or None. Looking up a decision takes 30 us, of which 5 would go to `_read`."""
        try:
            connection = self._take()
            try:
                return read_one(connection, sql, parameters, row)
            finally:
                self._idle.append(connection)
        except SQLITE_ERRORS as error:
            raise self._to_log_error(error) from error

    def _to_log_error(self, error: SqliteError) -> LogError:
        return log_error(self.path, error)

    def chain_start(self) -> Mark | None:
        """See LogReader."""
        row = self._one("select position, at from chain_start")
        return Mark(row["position"], row["at"]) if row else None

    _changed: Sequence[ChangedCommit] = ()
    """Commits out of which something was removed by entries that this log does not have."""

    def check(self, on_progress: OnProgress) -> Sequence[Damage]:
        """See LogReader."""
        try:
            last = last_acknowledged(self.path)  # before the snapshot, since writers go on
            with closing(open_to_read(self.path)) as connection:
                return check(connection, on_progress, acknowledged=last, changed=self._changed)
        except SQLITE_ERRORS as error:
            raise self._to_log_error(error) from error

    def close(self) -> None:
        """Let go of the file; nobody may be reading."""
        for connection in self._connections:
            connection.close()
        let_go(self._database_file)

    def head(self) -> Head:
        """See LogReader."""
        row = self._one("select position, time, chain from head")
        return head_in(row) if row else Head(START, Time(0), b"")

    def time_at(self, position: Position) -> Time:
        """See LogReader."""
        row = self._one(_TIME_AT, (position, position))
        return Time(row["time"] if row else 0)

    def cut(self) -> Mark:
        """See LogReader."""
        row = self._one("select position, time from cut")
        return Mark(row["position"], row["time"]) if row else Mark(START, Time(0))

    def check_archive(self, experiment: ExperimentId, *, after: Time, late: Mark | None = None) -> None:
        """See LogReader."""
        with self._snapshot() as connection:
            cut = (WithLateRows(late) if late else InTimeRows()).cut_to_read(connection, experiment, after)
        if cut > START:
            for part in self._parts():
                check_sizes(part)

    def _parts(self) -> Sequence[Part]:
        """All parts of the archive. Raises ArchiveMissing, ArchiveDamaged."""
        from decider.log.archive.find import found_parts, parts_of

        return found_parts(parts_of(self.path, self._archives), self._archives)

    def versions(self) -> Sequence[ExperimentVersion]:
        """See LogReader."""
        return [self._version_in(row) for row in self._read(_ALL_VERSIONS)]

    def version_at(self, position: Position) -> ExperimentVersion:
        """See LogReader."""
        known = self._versions.get(position)
        if known is not None:
            return known
        row = self._one(_VERSION, (position,))
        if row is None:
            raise KeyError(position)
        return self._version_in(row)

    def _version_in(self, row: Any) -> ExperimentVersion:
        known = self._versions.get(row["position"])
        return known or self._versions.put(experiment_version(row), characters=len(row["definition"]))

    def newest_versions(self, experiment: ExperimentId, *, most: int) -> Sequence[Position]:
        """See LogReader."""
        return [row["position"] for row in self._read(_NEWEST_VERSIONS, (experiment, most))]

    def origins(self, versions: Collection[Position]) -> Mapping[Position, Origin]:
        """See LogReader."""
        rows = self._read(_ORIGINS, (json.dumps(list(versions)),))
        return {version: Origin(*origin) for version, *origin in rows}

    def experiment_ids(self, positions: Collection[Position]) -> Mapping[Position, ExperimentId]:
        """See LogReader."""
        sql = "select position, experiment from experiments where position in (select value from json_each(?))"
        return {row["position"]: row["experiment"] for row in self._read(sql, (json.dumps(list(positions)),))}

    def action_kinds(self, experiment: ExperimentId) -> Mapping[ActionId, str]:
        """See LogReader."""
        rows = self._read("select action, kind from action_kinds where experiment = ?", (experiment,))
        return {row["action"]: row["kind"] for row in rows}

    def follow(self, after: Position) -> ServingChanges:
        """See LogReader."""
        if after > START:
            (head, last), *_ = self._read(_LAST_NEWS)
            if last <= after:  # by far the most looks find nothing: one statement for them
                return ServingChanges(head, (), (), ())
        head = self.head().position
        part = (after, head)
        return ServingChanges(
            head=head,
            versions=[
                (VersionName(row["position"], row["experiment"]), bool(row["waits"]))
                for row in self._read(_NEW_VERSIONS, part)
            ],
            serves=[(row["position"], row["version"]) for row in self._read(_SERVES, part)],
            models=[
                (row["position"], ModelName(row["experiment"], row["model"], row["signature"]))
                for row in self._read(NEWEST_MODELS if after == START else _MODELS, part)
            ],
            leave_outs=[(row["position"], row["experiment"]) for row in self._read(_NEW_LEAVE_OUTS, part)],
        )

    def leave_outs(self, experiment: ExperimentId) -> Sequence[LeaveOut]:
        """See LogReader."""
        rows = [*self._read(_LEAVE_OUTS, (experiment,))]  # the statement is over before one of them is refused
        return [leave_out(row) for row in rows]

    def builds(self) -> Mapping[Position, Mapping[str, Any]]:
        """See LogReader."""
        rows = self._read("select position, build from builds order by position")
        return {row["position"]: build_of(row["position"], row["build"]) for row in rows}

    def removals(self) -> Sequence[Removal]:
        """See LogReader."""
        return removals(self.builds().values())

    def find(self, decision_id: DecisionId) -> LoggedDecision | None:
        """See LogReader."""
        row = self._one(_FIND, (decision_id,), DECISION)
        return self._to_logged_decision(row) if row else None

    def assigned(self, experiment: ExperimentId, unit: str, *, at: Time) -> LoggedDecision | None:
        """See LogReader."""
        row = self._one(ASSIGNED, {"experiment": experiment, "unit": unit, "at": at}, DECISION)
        return self._to_logged_decision(row) if row else None

    def unit_history(
        self, experiment: ExperimentId, unit: str, history: HistoryDefinition, *, at: Time
    ) -> tuple[Seen, Sequence[PastDecision]]:
        """See LogReader."""
        rows = self._history_rows(unit_history.NOW, experiment, unit, history, at=at)
        return Seen(*rows[0][:3]), self._past_decisions(rows)

    def unit_history_at(
        self, experiment: ExperimentId, unit: str, history: HistoryDefinition, seen: Seen
    ) -> Sequence[PastDecision]:
        """See LogReader."""
        span = {"after": seen.after, "until": seen.until, "at": seen.time}
        return self._past_decisions(self._history_rows(unit_history.THEN, experiment, unit, history, **span))

    def _history_rows(
        self, sql: str, experiment: ExperimentId, unit: str, history: HistoryDefinition, **span: int
    ) -> list[Any]:
        asked = {"experiment": experiment, "unit": unit, "period": history.period, "most": history.most}
        return list(self._read(sql, {**asked, **span}, PAST_DECISION))

    def _past_decisions(self, rows: Sequence[Any]) -> Sequence[PastDecision]:
        return tuple(past_decisions(rows, self.version_at))

    def recall(self, decision: Position) -> Seen | None:
        """See LogReader."""
        row = self._one(unit_history.RECALL, (decision,))
        return Seen(*row) if row else None

    def limit_counts(self, version: ExperimentVersion, unit: str, *, at: Time) -> Counts:
        """See LogReader."""
        with self._connection() as connection:
            return counts(connection, version, unit, at)

    def withheld(self, decision: Position) -> Mapping[ActionId, str]:
        """See LogReader."""
        row = self._one("select rules from withheld where decision = ?", (decision,))
        found: Mapping[ActionId, str] = json.loads(row["rules"]) if row else {}
        return found

    def shown_decisions(self) -> Iterator[tuple[ShownDecision, FollowUp | None]]:
        """See LogReader."""
        with self._connection() as connection:
            yield from all_shown(connection, limited_versions(connection), self.version_at)

    def locate(self, decision_id: DecisionId) -> DecisionRef | None:
        """See LogReader."""
        return self.locate_all((decision_id,))[0]

    def locate_all(self, ids: Sequence[DecisionId]) -> list[DecisionRef | None]:
        """See LogReader."""
        rows = self._read(_PLACES, (json.dumps(ids),), PLACE)
        places = {row.decision_id: DecisionRef(*row[1:]) for row in rows}
        return list(map(places.get, ids))

    def find_reward(self, decision: Position, reward_id: str) -> RewardRef | None:
        """See LogReader."""
        row = self._one(
            "select position, name, weight from rewards where decision = ? and reward_id = ?", (decision, reward_id)
        )
        return RewardRef(*row) if row else None

    def units_of(self, unit: str) -> Sequence[str]:
        """See LogReader."""
        return [row["unit_id"] for row in self._read(UNITS, {"unit": unit})]

    def persons(self) -> Mapping[str, str]:
        """See LogReader."""
        return {row["unit_id"]: row["name"] for row in self._read(PERSONS)}

    def find_unit_reward(self, unit: str, reward_id: str) -> UnitRewardRef | None:
        """See LogReader."""
        units = json.dumps(self.units_of(unit))
        row = self._one(UNIT_REWARD, {"unit": unit, "units": units, "id": reward_id})
        return UnitRewardRef(*row) if row else None

    def by_decision(self, unit: str, reward_id: str, experiment: ExperimentId | None) -> Sequence[DirectReward]:
        """See LogReader."""
        units, at = self.units_of(unit), self.head().time
        with self._connection() as connection:
            return by_decision(connection, units, experiment, at, reward_id)

    def open_decisions(self, unit: str, experiment: ExperimentId | None) -> Sequence[OpenDecision]:
        """See LogReader."""
        units, at = self.units_of(unit), self.head().time
        with self._connection() as connection:
            return list(open_decisions(connection, self.version_at, units, experiment, at))

    def credits(self, unit_reward: Position) -> Sequence[CreditedDecision]:
        """See LogReader."""
        return [
            CreditedDecision(
                row["decision_id"],
                DecisionRef(row["position"], row["time"], row["version"], row["action"]),
                row["worth"],
            )
            for row in self._read(CREDITS, (unit_reward,))
        ]

    def seals(self, decisions: Collection[Position], *, until: Position = END) -> Mapping[Position, Position]:
        """See LogReader."""
        rows = self._read(_SEALS, (json.dumps(list(decisions)), until))
        return {row["decision"]: row["position"] for row in rows}

    def closed_decisions(self, version: Position, *, after: Time, until: Time) -> Sequence[ClosedDecision]:
        """See LogReader."""
        window = self.version_at(version).experiment.reward.window
        span = {"version": version, "after": after - window, "until": until - window}
        return [
            ClosedDecision(
                row["window_end"], row["position"], row["unit_id"], Reason(row["reason"]), bool(row["rewarded"])
            )
            for row in self._read(_CLOSED, span)
        ]

    def _to_logged_decision(self, row: Any) -> LoggedDecision:
        try:
            all_active = self.version_at(row.version).all_active
        except KeyError:  # in a damaged log
            all_active = ()
        return logged_decision(row, all_active)

    def _action_names(self, version: Position) -> ActionNames:
        known = self._versions.get(version)
        if known:
            return names_of(known)
        row = self._one(_VERSION, (version,))
        if row is None:
            raise LogCorrupt(f"{self.path}: it has no experiment version at position {version!r:.40}")
        return ActionNames(*active_actions(row["definition"]))

    def decisions(self, version: Position) -> Iterator[LoggedDecision]:
        """See LogReader."""
        sql = f"{_DECISIONS} where version = ? and position > {CUT} order by model, position"
        rows = self._read(sql, (version,), DECISION)
        return map(self._to_logged_decision, rows)

    def newest_decisions(self, version: Position, *, most: int) -> Sequence[DecisionLine]:
        """See LogReader."""
        rows = self._read(_NEWEST_DECISIONS, (version, most))
        return [DecisionLine(id_, time, action, Reason(reason)) for id_, time, action, reason in rows]

    def decisions_between(self, first: str, last: str) -> Iterator[LoggedDecision]:
        """See LogReader."""
        sql = f"{_DECISIONS} where decision_id >= ? and decision_id < ? order by position"
        return map(self._to_logged_decision, self._read(sql, (first, last), DECISION))

    def rewards_between(self, first: str, last: str) -> Iterator[LoggedReward]:
        """See LogReader."""
        sql = "select * from joined_rewards where decision_id >= ? and decision_id < ? order by position"
        for row in self._read(sql, (first, last)):
            yield LoggedReward(
                position=row["position"],
                time=row["time"],
                decision_id=row["decision_id"],
                name=row["name"],
                value=row["value"],
                weight=row["weight"],
                reward_id=row["reward_id"],
                outcome=RewardOutcome(row["outcome"]),
                in_force=row["in_force"],
            )

    def named_models(self, after: Position) -> Sequence[NamedModel]:
        """See LogReader. Reads every decision behind the position."""
        with self._connection() as connection:
            return [NamedModel(*row) for row in connection.execute(_NAMED_MODELS, (after,))]

    def versions_with_decisions(self) -> Sequence[Position]:
        """See LogReader."""
        return [row["version"] for row in self._read("select distinct version from decisions order by version")]

    def count_decisions(self, experiment: ExperimentId | None = None) -> int:
        """See LogReader."""
        sql = _COUNT
        if experiment is not None:
            sql = (
                f"select count(*) as count from decisions where position > {CUT} "  # noqa: S608 - a constant
                "and version in (select position from experiments where experiment = :experiment)"
            )
        count: int = self._one(sql, {"experiment": experiment})["count"]
        return count

    def count_decided(self, experiment: ExperimentId, *, after: Mark, until: Mark) -> int:
        """See LogReader."""
        with self._snapshot() as connection:
            cut = InTimeRows().cut_to_read(connection, experiment, after.time)
            begin = Mark(max(after.position, cut), after.time)
            counts = decided_by_version(connection, experiment, after=begin, until=until)
        here = sum(count for version, count in counts if self.version_at(version).experiment.learns)
        return here + self._decided_in_archive(experiment, after.position, min(cut, until.position))

    def _decided_in_archive(self, experiment: ExperimentId, after: Position, until: Position) -> int:
        """Of versions that learn, at positions in (after, until]."""
        if after >= until:
            return 0
        from decider.log.archive.sealed import count_in_parts  # pyarrow is imported where an archive is read

        mine = [one for one in self.versions() if one.experiment.id == experiment and one.experiment.learns]
        return count_in_parts(self._parts(), [one.position for one in mine], after=after, until=until)

    def count_learned(self, experiment: ExperimentId) -> int:
        """See LogReader."""
        return sum(
            row["count"]
            for row in self._read(_SEALED_ALIKE, {"experiment": experiment})
            if self.version_at(row["version"]).learns_from(
                row["reason"], activated=bool(row["activated"]), overridden=bool(row["overridden"])
            )
        )

    def sealed_decisions(self, experiment: ExperimentId, *, after: Time, until: Time) -> Iterator[SealedDecision]:
        """See LogReader. In pages: see `sealed.py`."""
        return self._sealed(experiment, InTimeRows(), self._archived_in_time, after=after, until=until)

    def sealed_with_late(
        self, experiment: ExperimentId, *, after: Time, until: Time, late: Mark
    ) -> Iterator[SealedDecision]:
        """See LogReader."""
        archived = partial(self._archived_with_late, late=late)
        return self._sealed(experiment, WithLateRows(late), archived, after=after, until=until)

    def _sealed(
        self,
        experiment: ExperimentId,
        which: InTimeRows | WithLateRows,
        archived: Callable[[Position, ExperimentId, Place, Time], Iterator[SealedDecision]],
        *,
        after: Time,
        until: Time,
    ) -> Iterator[SealedDecision]:
        """archived: gives those from the parts up to a cut, beyond a place, until a time."""
        beyond, archive = Place(after, END), ArchiveStream(START, iter(()))
        while True:
            with self._snapshot() as connection:
                cut = which.cut_to_read(connection, experiment, beyond.deadline)
                page = sealed_page(
                    connection, self.version_at, experiment, which, beyond=beyond, until=until, cut=cut
                )  # fmt: skip
            if cut != archive.cut:
                there = archived(cut, experiment, beyond, until) if cut > START else iter(())
                archive = ArchiveStream(cut, (sealed for sealed in there if place_of(sealed) > beyond))
            last = LAST_PLACE if page.is_last else place_of(page.decisions[-1])
            yield from merge_sorted(page.decisions, archive.up_to(last), key=place_of)
            if last is LAST_PLACE:
                return
            beyond = last

    def _archived_in_time(
        self, cut: Position, experiment: ExperimentId, beyond: Place, until: Time
    ) -> Iterator[SealedDecision]:
        from decider.log.archive.sealed import sealed_in_parts  # pyarrow is imported where an archive is read

        versions = {one.position: one for one in self.versions() if one.experiment.id == experiment}
        parts = self._parts_up_to(cut)
        return sealed_in_parts(parts, experiment, after=first_after(beyond), until=until, versions=versions)

    def _archived_with_late(
        self, cut: Position, experiment: ExperimentId, beyond: Place, until: Time, *, late: Mark
    ) -> Iterator[SealedDecision]:
        from decider.log.archive.rewards import ArchivedRewards

        rewards = ArchivedRewards()
        with self._snapshot() as connection:  # the cut may have moved on meanwhile, and rewards with it
            newest = read_cut(connection).position
            rewards.read_log(connection, newest)
        rewards.read_parts(self._parts_up_to(newest))
        return rewards.add_to(self._archived_in_time(cut, experiment, beyond, until), late)

    def _parts_up_to(self, cut: Position) -> Sequence[Part]:
        return [part for part in self._parts() if part.last <= cut]

    def next_deadline(self, *, after: Time, experiment: ExperimentId | None = None) -> Time | None:
        """See LogReader."""
        sql = FIRST_DEADLINES if experiment is None else FIRST_DEADLINES_OF
        rows = self._read(sql, {"after": after, "experiment": experiment})
        open_ = [row["deadline"] for row in rows if row["deadline"] is not None]
        archived = self._one(FIRST_ARCHIVED_DEADLINE, {"after": after, "experiment": experiment})["deadline"]
        return min(open_ if archived is None else [*open_, archived], default=None)

    def first_deadlines(self, *, after: Time) -> Mapping[ExperimentId, Time]:
        """See LogReader."""
        first: dict[ExperimentId, Time] = {}
        for row in self._read(FIRST_DEADLINES, {"after": after}):
            id_, deadline = row["experiment"], row["deadline"]
            if deadline is not None:
                first[id_] = min(first.get(id_, deadline), deadline)
        return first

    def arrow(self, experiment: ExperimentId, head: Head) -> ArrowBatches:
        """See LogReader."""
        from decider.log.sqlite.arrow import arrow_batches

        return arrow_batches(self.path, experiment, head)

    def totals(self, after: Mark, until: Mark) -> Totals:
        """See LogReader."""
        with self._snapshot() as connection:
            if may_be_gone(connection, after.position):
                raise EntriesArchived(f"{self.path}: entries behind position {after.position} are archived")
            due = due_until(read(connection, FIRST_DEADLINES, {"after": after.time}), until.time)
            grouped = Grouped(partial(self._strata.of, connection), partial(self._measures.of, connection))
            return count_totals(connection, self._action_names, due, grouped=grouped, after=after, until=until)

    def totals_checkpoint(self, until: Mark | None = None) -> TotalsCheckpoint | None:
        """See LogReader."""
        with self._snapshot() as connection:
            return newest_checkpoint(connection, self.name, until)

    def known_place(self, until: Position) -> Head:
        """See LogReader."""
        with self._snapshot() as connection:
            return known_place(connection, until)

    def sizes(self) -> LogSizes:
        """See LogReader."""
        real = self.path.resolve()
        return LogSizes(
            database=_size(real),
            wal=_size(real.with_name(f"{real.name}-wal")),
            # A damaged log has no row.
            models=sum(
                whole_number(row["bytes"], "model_bytes") for row in self._read("select bytes from model_bytes")
            ),
            free=shutil.disk_usage(real.parent).free,
        )

    def refused_rewards(self) -> Mapping[tuple[str, str], int]:
        """See LogReader."""
        rows = self._read("select name, outcome, count from refused_rewards")
        return {(row["name"], row["outcome"]): row["count"] for row in rows}


def _size(path: Path) -> int:
    """Bytes; 0 where there is no such file."""
    try:
        return path.stat().st_size
    except OSError:
        return 0
