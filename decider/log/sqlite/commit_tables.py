"""CommitTables of an SQLite file: see `log/commit_tables.py`. Called by `writer.py`."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from decider.experiment.attribution import OpenDecision, SameId
from decider.experiment.definition import ExperimentVersion
from decider.experiment.limits import Counts
from decider.log import chain
from decider.log.commit_tables import CreditedReward, Inserted, Place
from decider.log.entry_writer import DECISION_ID, RefusedNames
from decider.log.exposures import Exposure, ShownDecision
from decider.log.protocol import DirectReward, EarlyActivation, Mark, UnitRewardRef
from decider.log.sqlite import assignments, early, exposures, units
from decider.log.sqlite.archived import CUT
from decider.log.sqlite.migrations import COUNT_REFUSED_SUM
from decider.log.tables import DECISIONS, INTERN_SIGNATURE, PUBLISHED_MODELS, EntryTable
from decider.types import ActionId, DecisionId, ExperimentId, Position, RewardOutcome, Time

_REWARD = "select position from rewards where decision = ? and reward_id = ?"
_VERSION_AND_TIME = "select version, time from decisions where position = ?"
_ANY_DECISION = "select 1 from decisions where decision_id in (select value from json_each(?)) limit 1"


class SqliteTables:
    """See CommitTables. writer: in its open transaction. version_at: see LogReader."""

    def __init__(self, writer: sqlite3.Connection, version_at: Callable[[Position], ExperimentVersion]) -> None:
        self._writer = writer
        self._version_at = version_at
        self._names = RefusedNames(self._refused_names)

    def insert(self, table: EntryTable, rows: Sequence[chain.EntryRow], last: Mark) -> Inserted:
        """See CommitTables."""
        refused, said = self._insert_rows(table, rows, last)
        if refused:
            # Positions have no gaps, so the others move up. The lock is held: no key refuses them this time.
            self._writer.execute(f"delete from {table.name} where position > ?", (last.position,))  # noqa: S608
            accepted = [row for index, row in enumerate(rows) if index not in refused]
            if accepted:
                again, more = self._insert_rows(table, accepted, last)
                if again:
                    raise sqlite3.IntegrityError(f"{table.name}: a row is refused that was not")
                said = {**said, **more}
        return Inserted(refused, said)

    def _insert_rows(self, table: EntryTable, rows: Sequence[chain.EntryRow], last: Mark) -> Inserted:
        # Every statement releases the interpreter lock and has to win it back, which costs more than its work.
        if table is PUBLISHED_MODELS:
            self._writer.executemany(INTERN_SIGNATURE, [row[1:2] for row in rows])
        first = last.position + 1
        values = [value for position, row in enumerate(rows, first) for value in (position, last.time, *row)]
        sql, said = table.insert_many(len(rows)), dict[str, ActionId | None]()
        try:
            written = self._writer.execute(sql, values).rowcount
        except sqlite3.IntegrityError:
            # Only the statement is undone. See the trigger `activated_before`: most decisions were not, so nobody looks
            # before one was.
            ids = [row[DECISION_ID] for row in rows] if table is DECISIONS else []
            taken = early.take(self._writer, ids, last.time) if ids else None
            if taken is None:
                raise
            said |= taken
            written = self._writer.execute(sql, values).rowcount
        if written == len(rows):
            return Inserted((), said)
        there = self._writer.execute(f"select position from {table.name} where position >= ?", (first,))  # noqa: S608
        return Inserted({*range(len(rows))} - {position - first for (position,) in there}, said)

    def fail(self, text: str) -> Exception:
        """See CommitTables."""
        return sqlite3.IntegrityError(text)

    def cut(self) -> Position:
        """See CommitTables."""
        (cut,) = self._writer.execute(f"select {CUT}").fetchone()
        return Position(cut)

    def version_and_time(self, decision: Position) -> tuple[Position, Time]:
        """See CommitTables."""
        version, time = self._writer.execute(_VERSION_AND_TIME, (decision,)).fetchone()
        return Position(version), Time(time)

    def has_any(self, ids: Sequence[DecisionId]) -> bool:
        """See CommitTables."""
        return self._writer.execute(_ANY_DECISION, (json.dumps(ids),)).fetchone() is not None

    def find_reward(self, decision: Position, reward_id: str) -> Position | None:
        """See CommitTables."""
        found = self._writer.execute(_REWARD, (decision, reward_id)).fetchone()
        return Position(found[0]) if found else None

    def count_refused(self, names: Sequence[str], outcome: RewardOutcome) -> None:
        """See CommitTables."""
        counts = Counter([self._names.counted_as(name, outcome) for name in names])
        for name, count in counts.items():
            self._writer.execute(
                "insert into refused_rewards (name, outcome, count) values (?, ?, ?) "
                "on conflict (name, outcome) do update set count = count + excluded.count",
                (name, outcome, count),
            )
            self._writer.execute(COUNT_REFUSED_SUM, (chain.refused_sum(name, outcome) * count & chain.REFUSED_BITS,))

    def _refused_names(self, outcome: str) -> Iterator[str]:
        rows = self._writer.execute("select name from refused_rewards where outcome = ?", (outcome,))
        return (name for (name,) in rows)

    def early_places(self, activations: Sequence[EarlyActivation]) -> Mapping[str, Place]:
        """See CommitTables."""
        return early.places(self._writer, activations)

    def remember_early(self, activation: EarlyActivation, at: Time) -> bool:
        """See CommitTables."""
        return early.remember(self._writer, activation, at)

    def units_of(self, unit: str) -> Sequence[str]:
        """See CommitTables."""
        return units.units_of(self._writer, unit)

    def find_unit_reward(self, unit: str, persons: Sequence[str], reward_id: str) -> UnitRewardRef | None:
        """See CommitTables."""
        return units.find_unit_reward(self._writer, unit, persons, reward_id)

    def open_decisions(
        self, persons: Sequence[str], experiment: ExperimentId | None, at: Time
    ) -> Sequence[OpenDecision]:
        """See CommitTables."""
        return list(units.open_decisions(self._writer, self._version_at, persons, experiment, at))

    def same_id(
        self, persons: Sequence[str], experiment: ExperimentId | None, at: Time, reward_id: str
    ) -> Sequence[SameId]:
        """See CommitTables."""
        return units.same_id(self._writer, persons, experiment, at, reward_id)

    def by_decision(
        self, persons: Sequence[str], experiment: ExperimentId | None, at: Time, reward_id: str
    ) -> Sequence[DirectReward]:
        """See CommitTables."""
        return units.by_decision(self._writer, persons, experiment, at, reward_id)

    def credited_in_experiment(self, decision: Position, reward_id: str, name: str) -> tuple[Position, str] | None:
        """See CommitTables."""
        return units.credited_in_experiment(self._writer, decision, reward_id, name)

    def credited_rewards(self, unit_reward: Position) -> Sequence[CreditedReward]:
        """See CommitTables."""
        return units.credited_rewards(self._writer, unit_reward)

    def join_persons(self, unit: str, same_as: str, person: Position) -> bool:
        """See CommitTables."""
        return units.join_persons(self._writer, unit, same_as, person)

    def kept_decision(self, experiment: ExperimentId, unit: str, at: Time) -> Position | None:
        """See CommitTables."""
        return assignments.kept_decision(self._writer, experiment, unit, at)

    def assign(self, experiment: ExperimentId, unit: str, *, until: Time, decision: Position) -> None:
        """See CommitTables."""
        assignments.assign(self._writer, experiment, unit, until=until, decision=decision)

    def end_assignment(self, decision: Position) -> None:
        """See CommitTables."""
        assignments.end_assignment(self._writer, decision)

    def limit_counts(self, version: ExperimentVersion, unit: str, at: Time) -> Counts:
        """See CommitTables."""
        return exposures.counts(self._writer, version, unit, at)

    def put_exposure(self, one: Exposure | None) -> None:
        """See CommitTables."""
        exposures.put(self._writer, one)

    def take_out_exposure(self, decision: Position) -> None:
        """See CommitTables."""
        exposures.take_out(self._writer, decision)

    def shown_decision(self, decision: Position) -> ShownDecision | None:
        """See CommitTables."""
        return exposures.open_decision(self._writer, decision, self._version_at)
