"""CommitTables in PostgreSQL: see `log/commit_tables.py`. Called by `writer.py`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import psycopg

from decider.experiment.attribution import OpenDecision, SameId
from decider.experiment.definition import ExperimentVersion
from decider.experiment.limits import Counts, Day
from decider.experiment.schema import from_message, read_json
from decider.log.chain import EntryRow
from decider.log.commit_tables import CreditedReward, Inserted, Place
from decider.log.entry_writer import DECISION_ID, RefusedNames
from decider.log.exposures import Exposure, ShownDecision
from decider.log.postgres import early, units
from decider.log.postgres.connection import Connection, execute, read, read_one
from decider.log.postgres.statements import by_column, insert
from decider.log.protocol import (
    MOST_UNITS,
    DirectReward,
    EarlyActivation,
    Mark,
    UnitRewardRef,
)
from decider.log.tables import DECISIONS, EXPERIMENTS, PUBLISHED_MODELS, EntryTable
from decider.types import START, DecisionId, ExperimentId, Position, RewardOutcome, Time

_COUNT_REFUSED = """
insert into refused_rewards as r (name, outcome, count) values (%(name)s, %(outcome)s, %(count)s)
on conflict (name, outcome) do update set count = r.count + excluded.count
"""
INTERN_SIGNATURE = """
insert into signatures (signature) values (%(signature)s) on conflict (md5(signature)) do nothing
"""
SIGNATURE = "(select id from signatures where md5(signature) = md5(%(signature)s))"

_KEEP_KIND = """
insert into action_kinds (experiment, action, kind) values (%(experiment)s, %(action)s, %(kind)s)
on conflict (experiment, action) do update set kind = excluded.kind
"""
_SAME_ID = f"select r.decision, e.experiment, r.name {units.REWARDS_WITH_ID}"

_CREDITED_IN_EXPERIMENT = """
select unit_reward, name from find_credited(%(decision)s, %(id)s, %(name)s, 9223372036854775807)
order by is_own desc, unit_reward desc limit 1
"""
_CREDITED = """
select r.decision, r.position, r.name, r.weight from unit_rewards u
  join rewards r on r.position > u.position and r.position <= u.last
where u.position = %(unit_reward)s order by r.position
"""
_JOIN = """
insert into persons (unit_id, person) select unnest(%(units)s::text[]), %(person)s
on conflict (unit_id) do update set person = excluded.person
"""
KEPT = "select decision from assignments where experiment = %(experiment)s and unit_id = %(unit)s and until > %(at)s"
_ASSIGN = """
insert into assignments (experiment, unit_id, until, decision)
values (%(experiment)s, %(unit)s, %(until)s, %(decision)s)
on conflict (experiment, unit_id) do update set until = excluded.until, decision = excluded.decision
"""
_END_ASSIGNMENT = """
delete from assignments where decision = %(decision)s and (experiment, unit_id) = (
  select e.experiment, d.unit_id from decisions d join experiments e on e.position = d.version
  where d.position = %(decision)s)
"""
_PUT_EXPOSURE = """
insert into exposures
  (decision, experiment, unit_id, action, kind, time, until, reserved_until, day_begin, day_end)
values (%(decision)s, %(experiment)s, %(unit_id)s, %(action)s, %(kind)s, %(time)s, %(until)s, %(reserved_until)s,
  %(day_begin)s, %(day_end)s)
"""
_SPEND = """
insert into daily_counts as d (experiment, day_end, day_begin, action, count)
values (%(experiment)s, %(end)s, %(begin)s, %(action)s, %(count)s)
on conflict (experiment, day_end, day_begin, action) do update set count = d.count + excluded.count
"""
_OPEN_DECISION = """
select position, time, version, unit_id, action, action_features from decisions
where position = %(decision)s and not exists (select 1 from seals where decision = %(decision)s)
"""


class PostgresTables:
    """See CommitTables. connection: the writer's, in a transaction that has the head. version_at: see LogReader."""

    def __init__(
        self, connection: Callable[[], Connection], version_at: Callable[[Position], ExperimentVersion]
    ) -> None:
        self._connection = connection
        self._version_at = version_at
        self._names = RefusedNames(self._refused_names)

    def _read(self, sql: str, **values: Any) -> list[Any]:
        return read(self._connection(), sql, values)

    def _one(self, sql: str, **values: Any) -> Any:
        return read_one(self._connection(), sql, values)

    def _execute(self, sql: str, **values: Any) -> int:
        return execute(self._connection(), sql, values)

    def insert(self, table: EntryTable, rows: Sequence[EntryRow], last: Mark) -> Inserted:
        """See CommitTables."""
        ids = [row[DECISION_ID] for row in rows] if table is DECISIONS else []
        said = early.take(self._connection(), ids, last.time) if ids else {}
        stored = rows_to_store(self._connection(), table, rows)
        values = {**by_column(table, stored), "_last": last.position, "_at": last.time}
        written = {row[0] - 1 for row in read(self._connection(), insert(table), values)}
        if table is EXPERIMENTS:
            self._keep_kinds([rows[index] for index in written])
        return Inserted({*range(len(rows))} - written, said)

    def _keep_kinds(self, rows: Sequence[EntryRow]) -> None:
        for id_, _, definition, *_ in rows:
            for action in from_message(read_json(definition)).actions:
                self._execute(_KEEP_KIND, experiment=id_, action=action.id, kind=action.kind)

    def fail(self, text: str) -> Exception:
        """See CommitTables."""
        return psycopg.IntegrityError(text)

    def cut(self) -> Position:
        """See CommitTables. Nothing is archived out of PostgreSQL yet."""
        return START

    def version_and_time(self, decision: Position) -> tuple[Position, Time]:
        """See CommitTables."""
        row = self._one("select version, time from decisions where position = %(decision)s", decision=decision)
        return row[0], row[1]

    def has_any(self, ids: Sequence[DecisionId]) -> bool:
        """See CommitTables."""
        sql = "select 1 from decisions where decision_id = any(%(ids)s::text[]) limit 1"
        return self._one(sql, ids=list(ids)) is not None

    def find_reward(self, decision: Position, reward_id: str) -> Position | None:
        """See CommitTables."""
        sql = "select position from rewards where decision = %(decision)s and reward_id = %(id)s"
        found = self._one(sql, decision=decision, id=reward_id)
        return found[0] if found else None

    def count_refused(self, names: Sequence[str], outcome: RewardOutcome) -> None:
        """See CommitTables."""
        for name, count in Counter([self._names.counted_as(name, outcome) for name in names]).items():
            self._execute(_COUNT_REFUSED, name=name, outcome=str(outcome), count=count)

    def _refused_names(self, outcome: str) -> Iterator[str]:
        sql = "select name from refused_rewards where outcome = %(outcome)s"
        return (row[0] for row in self._read(sql, outcome=str(outcome)))

    def early_places(self, activations: Sequence[EarlyActivation]) -> Mapping[str, Place]:
        """See CommitTables."""
        return early.places(self._connection(), activations)

    def remember_early(self, activation: EarlyActivation, at: Time) -> bool:
        """See CommitTables."""
        return early.remember(self._connection(), activation, at)

    def units_of(self, unit: str) -> Sequence[str]:
        """See CommitTables."""
        return units.units_of(self._connection(), unit)

    def find_unit_reward(self, unit: str, persons: Sequence[str], reward_id: str) -> UnitRewardRef | None:
        """See CommitTables."""
        return units.find_unit_reward(self._connection(), unit, persons, reward_id)

    def open_decisions(
        self, persons: Sequence[str], experiment: ExperimentId | None, at: Time
    ) -> Sequence[OpenDecision]:
        """See CommitTables."""
        return units.open_decisions(self._connection(), self._version_at, persons, experiment, at)

    def same_id(
        self, persons: Sequence[str], experiment: ExperimentId | None, at: Time, reward_id: str
    ) -> Sequence[SameId]:
        """See CommitTables."""
        rows = self._read(_SAME_ID, units=list(persons), experiment=experiment, at=at, id=reward_id)
        return [SameId(*row) for row in rows]

    def by_decision(
        self, persons: Sequence[str], experiment: ExperimentId | None, at: Time, reward_id: str
    ) -> Sequence[DirectReward]:
        """See CommitTables."""
        return units.by_decision(self._connection(), persons, experiment, at, reward_id)

    def credited_in_experiment(self, decision: Position, reward_id: str, name: str) -> tuple[Position, str] | None:
        """See CommitTables."""
        row = self._one(_CREDITED_IN_EXPERIMENT, decision=decision, id=reward_id, name=name)
        return (row[0], row[1]) if row else None

    def credited_rewards(self, unit_reward: Position) -> Sequence[CreditedReward]:
        """See CommitTables."""
        return [CreditedReward(*row) for row in self._read(_CREDITED, unit_reward=unit_reward)]

    def join_persons(self, unit: str, same_as: str, person: Position) -> bool:
        """See CommitTables."""
        ours, theirs = self.units_of(unit), self.units_of(same_as)
        if same_as in ours or len(ours) + len(theirs) > MOST_UNITS:
            return False
        self._execute(_JOIN, units=[*ours, *theirs], person=person)
        return True

    def kept_decision(self, experiment: ExperimentId, unit: str, at: Time) -> Position | None:
        """See CommitTables."""
        sql = f"select position from decisions where position = ({KEPT}) and unit_id = %(unit)s"  # noqa: S608
        row = self._one(sql, experiment=experiment, unit=unit, at=at)
        return row[0] if row else None

    def assign(self, experiment: ExperimentId, unit: str, *, until: Time, decision: Position) -> None:
        """See CommitTables."""
        self._execute(_ASSIGN, experiment=experiment, unit=unit, until=until, decision=decision)

    def end_assignment(self, decision: Position) -> None:
        """See CommitTables."""
        self._execute(_END_ASSIGNMENT, decision=decision)

    def limit_counts(self, version: ExperimentVersion, unit: str, at: Time) -> Counts:
        """See CommitTables."""
        return units.limit_counts(self._connection(), version, unit, at)

    def put_exposure(self, one: Exposure | None) -> None:
        """See CommitTables."""
        if one is not None:
            begin, end = one.day or (None, None)
            self._execute(_PUT_EXPOSURE, **one._asdict() | {"day_begin": begin, "day_end": end})
            self._spend(one.experiment, one.action, one.day, 1)

    def take_out_exposure(self, decision: Position) -> None:
        """See CommitTables."""
        sql = "delete from exposures where decision = %(decision)s returning experiment, action, day_begin, day_end"
        for experiment, action, begin, end in self._read(sql, decision=decision):
            self._spend(experiment, action, None if begin is None else Day(begin, end), -1)

    def _spend(self, experiment: str, action: str, day: Day | None, count: int) -> None:
        if day is not None:
            self._execute(_SPEND, experiment=experiment, action=action, begin=day.begin, end=day.end, count=count)

    def shown_decision(self, decision: Position) -> ShownDecision | None:
        """See CommitTables."""
        row = self._one(_OPEN_DECISION, decision=decision)
        return None if row is None or self._version_at(row[2]).limits is None else shown(row, self._version_at)


def shown(row: Sequence[Any], version_at: Callable[[Position], ExperimentVersion]) -> ShownDecision:
    """From position, time, version, unit_id, action and action_features."""
    position, time, version, unit, action, features = row
    return ShownDecision(position, time, version_at(version), unit, action, json.loads(features or "{}"))


def rows_to_store(connection: Connection, table: EntryTable, rows: Sequence[EntryRow]) -> Sequence[EntryRow]:
    """Rows with what the tables have beside the entry, or in place of it."""
    if table is EXPERIMENTS:
        return [(*row, *derived(row[2])) for row in rows]
    if table is PUBLISHED_MODELS:
        return [(row[0], _signature_id(connection, row[1]), *row[2:]) for row in rows]
    return rows


def derived(definition: str) -> tuple[bool, bool, bool]:
    """What the table of versions has beside a definition, so that nobody has to read it for each decision."""
    experiment = from_message(read_json(definition))
    has_limits = bool(experiment.caps) or any(action.daily_budget is not None for action in experiment.actions)
    return experiment.needs_activation, experiment.reward.attribution is not None, has_limits


def _signature_id(connection: Connection, signature: str) -> int:
    execute(connection, INTERN_SIGNATURE, {"signature": signature})
    found: int = read_one(connection, f"select {SIGNATURE} as id", {"signature": signature})["id"]
    return found
