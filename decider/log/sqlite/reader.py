"""Reads a log in an SQLite file, without the right to write; also while a server writes it.

views.sql defines what is sealed. A query for the decisions whose deadline lies in (after, until] is written as a range
of their times, since the index is on (version, time).
"""

from __future__ import annotations

import json
import sqlite3
from collections import deque
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from decider.errors import LogCorrupt, LogError
from decider.experiment.definition import ExperimentVersion
from decider.experiment.schema import active_actions
from decider.log.protocol import (
    ArrowBatches,
    Damage,
    DecisionRef,
    Head,
    LoggedDecision,
    LoggedReward,
    Mark,
    ModelName,
    OnProgress,
    SealedDecision,
    ServingChanges,
    VersionName,
)
from decider.log.sqlite.check import check
from decider.log.sqlite.errors import SQLITE_ERRORS, SqliteError, log_error
from decider.log.sqlite.locks import hold, let_go
from decider.log.sqlite.log_files import last_acknowledged
from decider.log.sqlite.merge import merge
from decider.log.sqlite.models import SqliteModelReader
from decider.log.sqlite.read_rows import (
    DECISION,
    DECISION_REF,
    SEALED_DECISION,
    Parameters,
    RowType,
    decision,
    experiment_version,
    logged_decision,
    read,
    read_one,
)
from decider.log.sqlite.totals import count_totals
from decider.log.sqlite.version_cache import VersionCache
from decider.log.totals import Totals
from decider.types import START, ActionId, DecisionId, ExperimentId, Position, RewardOutcome, Time

_ALL_VERSIONS = "select position, time, number, definition from experiments order by position"
_VERSION = "select position, time, number, definition from experiments where position = ?"

_DECISIONS = f"select {DECISION.columns} from decisions"  # noqa: S608 - a constant

_VERSIONS_TO_ASK = """
with asked (position, experiment) as (
  select o.version, o.experiment from closed_until c cross join open_versions o where c.id = 1 and c.time <= :after
  union all
  select e.position, e.experiment from closed_until c cross join experiments e where c.id = 1 and c.time > :after)
"""
"""The versions that may have a window's end beyond :after: the open ones, but all of them where closed ones have."""

FIRST_DEADLINES = f"""{_VERSIONS_TO_ASK}
select v.position, v.experiment, (
  select deadline from decision_windows w where w.version = v.position and w.time > :after - w.window
  order by w.time limit 1) as deadline
from asked v
"""  # noqa: S608 - a constant
"""The first deadline beyond :after of the versions that may have one; null where there is none."""

FIRST_DEADLINES_OF = f"{FIRST_DEADLINES} where v.experiment = :experiment"

SEALED_DECISIONS_OF_VERSION = f"""
select {SEALED_DECISION.columns} from decision_rewards
where version = :version and time >= :first and time <= :last and (time, position) > (:first, :position)
order by time, position, reward_position limit :page
"""  # noqa: S608 - constants
"""A page of them: those decided beyond (:first, :position) and up to :last."""

PAGE = 256
"""Rows that are read at a time. Between two pages nothing is held: a reader that holds the log's state of some minutes
ago, as one that learns a long log would, keeps the write-ahead log from being written back."""

LAST_POSITION = Position(2**63 - 1)

_LAST_NEWS = """
select position, max((select coalesce(max(position), 0) from experiments),
  (select coalesce(max(position), 0) from serves), (select coalesce(max(position), 0) from published)) as last
from head
"""
_NEW_VERSIONS = """
select position, experiment, waits from experiments where position > ? and position <= ? order by position
"""
_SERVES = "select position, version from serves where position > ? and position <= ? order by position"

# With `max` the other columns are those of the row that has it: so SQLite promises.
_MODELS = """
select max(p.position) as position, p.experiment, p.model, s.signature
from published p join signatures s on s.id = p.signature
where p.position > ? and p.position <= ? group by p.experiment, p.signature order by 1
"""

# The same for all that were ever published, by a loose index scan: it steps from one owner to the next in the unique
# key's index, since a log has millions of models and a few owners.
_NEWEST_MODELS = """
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

    Raises LogError where there is no log.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise LogError(f"{path}: there is no such log")
        self.path = path
        self._database_file = hold(path)
        self._idle: deque[sqlite3.Connection] = deque()
        self._connections: list[sqlite3.Connection] = []
        self._versions = VersionCache()
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
            connection = _open_to_read(self.path)
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

    def check(self, on_progress: OnProgress) -> Sequence[Damage]:
        """See LogReader."""
        try:
            last = last_acknowledged(self.path)  # before the snapshot, since writers go on
            with closing(_open_to_read(self.path)) as connection:
                return check(connection, on_progress, acknowledged=last)
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
        return Head(row["position"], row["time"], row["chain"]) if row else Head(START, Time(0), b"")

    def time_at(self, position: Position) -> Time:
        """See LogReader."""
        row = self._one("select time from entries where position = ?", (position,))
        return Time(row["time"] if row else 0)

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
                for row in self._read(_NEWEST_MODELS if after == START else _MODELS, part)
            ],
        )

    def builds(self) -> Mapping[Position, Mapping[str, Any]]:
        """See LogReader."""
        rows = self._read("select position, build from builds order by position")
        return {row["position"]: json.loads(row["build"]) for row in rows}

    def find(self, decision_id: DecisionId) -> LoggedDecision | None:
        """See LogReader."""
        row = self._one(f"{_DECISIONS} where decision_id = ?", (decision_id,), DECISION)
        return self._to_logged_decision(row) if row else None

    def locate(self, decision_id: DecisionId) -> DecisionRef | None:
        """See LogReader."""
        place: DecisionRef | None = self._one(
            f"select {DECISION_REF.columns} from decisions where decision_id = ?",  # noqa: S608 - a constant
            (decision_id,),
            DECISION_REF,
        )
        return place

    def _to_logged_decision(self, row: Any) -> LoggedDecision:
        try:
            all_active = self.version_at(row.version).all_active
        except KeyError:  # in a damaged log
            all_active = ()
        return logged_decision(row, all_active)

    def _all_active(self, version: Position) -> tuple[ActionId, ...]:
        known = self._versions.get(version)
        return known.all_active if known else active_actions(self._one(_VERSION, (version,))["definition"])

    def decisions(self, version: Position) -> Iterator[LoggedDecision]:
        """See LogReader."""
        rows = self._read(f"{_DECISIONS} where version = ? order by model, position", (version,), DECISION)
        return map(self._to_logged_decision, rows)

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
            )

    def versions_with_decisions(self) -> Sequence[Position]:
        """See LogReader."""
        return [row["version"] for row in self._read("select distinct version from decisions order by version")]

    def count_decisions(self, experiment: ExperimentId | None = None) -> int:
        """See LogReader."""
        sql = "select count(*) as count from decisions"
        if experiment is not None:
            sql += " where version in (select position from experiments where experiment = :experiment)"
        count: int = self._one(sql, {"experiment": experiment})["count"]
        return count

    def sealed_decisions(self, experiment: ExperimentId, *, after: Time, until: Time) -> Iterator[SealedDecision]:
        """See LogReader. A version's first page is read when the merge reaches its first deadline."""
        due = _due(self._read(FIRST_DEADLINES_OF, {"after": after, "experiment": experiment}), until)
        streams = [
            ((deadline, START), self._sealed_of_version(version, after, until)) for version, deadline in due.items()
        ]
        yield from merge(streams, key=attrgetter("deadline", "position"))

    def _sealed_of_version(self, version: Position, after: Time, until: Time) -> Iterator[SealedDecision]:
        # In pages, and exact all the same: what is sealed does not change any more, and nothing is sealed before it.
        asked = self.version_at(version)
        window = asked.experiment.reward.window
        first, position, size = Time(after - window), LAST_POSITION, PAGE
        while True:
            page = {"version": version, "first": first, "position": position, "last": until - window, "page": size}
            rows = list(self._read(SEALED_DECISIONS_OF_VERSION, page, SEALED_DECISION))
            more = len(rows) == size
            if more:  # the last decision may have rewards beyond the page
                rows = [row for row in rows if row.position != rows[-1].position]
            yield from _sealed(rows, asked.all_active)
            if not more:
                return
            if rows:
                first, position = rows[-1].time, rows[-1].position
            else:
                size *= 2

    def next_deadline(self, *, after: Time, experiment: ExperimentId | None = None) -> Time | None:
        """See LogReader."""
        sql = FIRST_DEADLINES if experiment is None else FIRST_DEADLINES_OF
        rows = self._read(sql, {"after": after, "experiment": experiment})
        return min([row["deadline"] for row in rows if row["deadline"] is not None], default=None)

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
        with self._connection() as connection:
            due = _due(read(connection, FIRST_DEADLINES, {"after": after.time}), until.time)
            return count_totals(connection, self._all_active, due, after=after, until=until)

    def refused_rewards(self) -> Mapping[tuple[str, str], int]:
        """See LogReader."""
        rows = self._read("select name, outcome, count from refused_rewards")
        return {(row["name"], row["outcome"]): row["count"] for row in rows}


def _due(rows: Iterator[Any], until: Time) -> dict[Position, Time]:
    """Of FIRST_DEADLINES those up to `until`, by version."""
    found = {row["position"]: row["deadline"] for row in rows if row["deadline"] is not None}
    return {version: deadline for version, deadline in found.items() if deadline <= until}


def _sealed(rows: Sequence[Any], all_active: tuple[ActionId, ...]) -> Iterator[SealedDecision]:
    """From rows of SEALED_DECISION, those of a decision one after the other."""
    for _, group in groupby(rows, key=attrgetter("position")):
        joined = list(group)
        first = joined[0]
        yield SealedDecision(
            position=first.position,
            deadline=first.deadline,
            decision=decision(first, all_active),
            rewards=tuple([row.reward for row in joined if row.reward is not None]),
            overridden=bool(first.overridden),
        )


def _open_to_read(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=5, check_same_thread=False)
