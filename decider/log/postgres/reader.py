"""Reads a log in PostgreSQL, without the right to write; also while servers write it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from decider.errors import LogError
from decider.experiment.attribution import OpenDecision
from decider.experiment.definition import ExperimentVersion
from decider.experiment.limits import Counts
from decider.experiment.origin import Origin
from decider.experiment.unit_history import HistoryDefinition, PastDecision, Seen
from decider.log.commits import build_of
from decider.log.exposures import FollowUp, ShownDecision, follow_up
from decider.log.forgotten import Removal, removals
from decider.log.past_decisions import ROW as PAST_DECISION
from decider.log.past_decisions import past_decisions
from decider.log.postgres import queries, unit_history, units
from decider.log.postgres.check import check
from decider.log.postgres.checkpoints import known_place, newest_checkpoint
from decider.log.postgres.commit_tables import KEPT, shown
from decider.log.postgres.connection import Dialer, Pool, stream
from decider.log.postgres.lease import is_led
from decider.log.postgres.migrations import is_log
from decider.log.postgres.models import PostgresModelReader
from decider.log.postgres.sealed import sealed_decisions
from decider.log.postgres.totals import KnownGroups, count_totals
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
from decider.log.rows import DECISION, PLACE, RowType, experiment_version, leave_out, logged_decision
from decider.log.totals import Totals
from decider.log.version_cache import VersionCache
from decider.types import START, ActionId, DecisionId, ExperimentId, Position, Reason, RewardOutcome, Time


class PostgresReader:
    """A log to read, from any thread. Raises LogError where there is none.

    url: as libpq takes it; the log is in the first schema of its search path. dialer: makes its connections.
    """

    def __init__(self, url: str, dialer: Dialer | None = None) -> None:
        self._pool = Pool(url, dialer)
        self._versions = VersionCache()
        self._groups = KnownGroups(self.versions)
        try:
            with self._pool.connection() as connection:
                if not is_log(connection):
                    raise LogError(f"{self.name}: there is no log; a writer makes one")
        except BaseException:
            self._pool.close()
            raise

    @property
    def name(self) -> str:
        """See LogReader."""
        return self._pool.name

    @property
    def models(self) -> PostgresModelReader:
        """See LogReader."""
        return PostgresModelReader(self._pool)

    def _read(self, sql: str, row: RowType | None = None, **values: Any) -> list[Any]:
        return self._pool.read(sql, values, row)

    def _one(self, sql: str, row: RowType | None = None, **values: Any) -> Any:
        return self._pool.one(sql, values, row)

    def _stream(self, sql: str, row: RowType | None = None, **values: Any) -> Iterator[Any]:
        with self._pool.snapshot() as connection:
            yield from stream(connection, sql, values, row)

    def is_led(self) -> bool:
        """Whether a process leads the log."""
        with self._pool.connection() as connection:
            return is_led(connection)[0]

    def head(self) -> Head:
        """See LogReader."""
        return Head(*self._one("select position, time, chain from head"))

    def time_at(self, position: Position) -> Time:
        """See LogReader."""
        row = self._one("select time from entries where position = %(position)s", position=position)
        return Time(row["time"] if row else 0)

    def cut(self) -> Mark:
        """See LogReader. Nothing is archived out of PostgreSQL yet."""
        return Mark(START, Time(0))

    def check_archive(self, experiment: ExperimentId, *, after: Time, late: Mark | None = None) -> None:
        """See LogReader. There is none."""

    def versions(self) -> Sequence[ExperimentVersion]:
        """See LogReader."""
        return [self._version_in(row) for row in self._read(f"{queries.VERSIONS} order by position")]

    def version_at(self, position: Position) -> ExperimentVersion:
        """See LogReader."""
        known = self._versions.get(position)
        if known is not None:
            return known
        row = self._one(f"{queries.VERSIONS} where position = %(position)s", position=position)
        if row is None:
            raise KeyError(position)
        return self._version_in(row)

    def _version_in(self, row: Any) -> ExperimentVersion:
        known = self._versions.get(row["position"])
        return known or self._versions.put(experiment_version(row), characters=len(row["definition"]))

    def newest_versions(self, experiment: ExperimentId, *, most: int) -> Sequence[Position]:
        """See LogReader."""
        return [row["position"] for row in self._read(queries.NEWEST_VERSIONS, experiment=experiment, most=most)]

    def origins(self, versions: Collection[Position]) -> Mapping[Position, Origin]:
        """See LogReader."""
        rows = self._read(queries.ORIGINS, versions=list(versions))
        return {version: Origin(*origin) for version, *origin in rows}

    def experiment_ids(self, positions: Collection[Position]) -> Mapping[Position, ExperimentId]:
        """See LogReader."""
        sql = "select position, experiment from experiments where position = any(%(positions)s::bigint[])"
        return dict(self._read(sql, positions=list(positions)))

    def action_kinds(self, experiment: ExperimentId) -> Mapping[ActionId, str]:
        """See LogReader."""
        return dict(
            self._read("select action, kind from action_kinds where experiment = %(experiment)s", experiment=experiment)
        )

    def follow(self, after: Position) -> ServingChanges:
        """See LogReader."""
        head, last = self._one(queries.LAST_NEWS)
        if last <= after:  # by far the most looks find nothing: one statement for them
            return ServingChanges(head, (), (), ())
        part = {"after": after, "until": head}
        models = queries.NEWEST_MODELS if after == START else queries.NEW_MODELS
        return ServingChanges(
            head=head,
            versions=[
                (VersionName(row["position"], row["experiment"]), bool(row["waits"]))
                for row in self._read(queries.NEW_VERSIONS, **part)
            ],
            serves=[(row[0], row[1]) for row in self._read(queries.NEW_SERVES, **part)],
            models=[
                (row["position"], ModelName(row["experiment"], row["model"], row["signature"]))
                for row in self._read(models, **part)
            ],
            leave_outs=[(row[0], row[1]) for row in self._read(queries.NEW_LEAVE_OUTS, **part)],
        )

    def leave_outs(self, experiment: ExperimentId) -> Sequence[LeaveOut]:
        """See LogReader."""
        return [leave_out(row) for row in self._read(queries.LEAVE_OUTS, experiment=experiment)]

    def builds(self) -> Mapping[Position, Mapping[str, Any]]:
        """See LogReader."""
        rows = self._read("select position, build from builds order by position")
        return {row["position"]: build_of(row["position"], row["build"]) for row in rows}

    def removals(self) -> Sequence[Removal]:
        """See LogReader."""
        return removals(self.builds().values())

    def find(self, decision_id: DecisionId) -> LoggedDecision | None:
        """See LogReader."""
        row = self._one(f"{queries.DECISIONS} where decision_id = %(id)s", DECISION, id=decision_id)
        return self._to_logged_decision(row) if row else None

    def assigned(self, experiment: ExperimentId, unit: str, *, at: Time) -> LoggedDecision | None:
        """See LogReader."""
        sql = f"{queries.DECISIONS} where position = ({KEPT}) and unit_id = %(unit)s"
        row = self._one(sql, DECISION, experiment=experiment, unit=unit, at=at)
        return self._to_logged_decision(row) if row else None

    def unit_history(
        self, experiment: ExperimentId, unit: str, history: HistoryDefinition, *, at: Time
    ) -> tuple[Seen, Sequence[PastDecision]]:
        """See LogReader."""
        rows = self._history_rows(unit_history.NOW, experiment, unit, history, at=at)
        return Seen(*rows[0][:3]), tuple(past_decisions(rows, self.version_at))

    def unit_history_at(
        self, experiment: ExperimentId, unit: str, history: HistoryDefinition, seen: Seen
    ) -> Sequence[PastDecision]:
        """See LogReader."""
        span = {"after": seen.after, "until": seen.until, "at": seen.time}
        rows = self._history_rows(unit_history.THEN, experiment, unit, history, **span)
        return tuple(past_decisions(rows, self.version_at))

    def _history_rows(
        self, sql: str, experiment: ExperimentId, unit: str, history: HistoryDefinition, **span: int
    ) -> list[Any]:
        asked = {"experiment": experiment, "unit": unit, "period": history.period, "most": history.most}
        return self._read(sql, PAST_DECISION, **asked, **span)

    def recall(self, decision: Position) -> Seen | None:
        """See LogReader."""
        row = self._one(unit_history.RECALL, decision=decision)
        return Seen(*row) if row else None

    def limit_counts(self, version: ExperimentVersion, unit: str, *, at: Time) -> Counts:
        """See LogReader."""
        with self._pool.connection() as connection:
            return units.limit_counts(connection, version, unit, at)

    def withheld(self, decision: Position) -> Mapping[ActionId, str]:
        """See LogReader."""
        row = self._one("select rules from withheld where decision = %(decision)s", decision=decision)
        found: Mapping[ActionId, str] = json.loads(row["rules"]) if row else {}
        return found

    def shown_decisions(self) -> Iterator[tuple[ShownDecision, FollowUp | None]]:
        """See LogReader."""
        for row in self._stream(queries.SHOWN):
            yield shown(row[:6], self.version_at), follow_up(row[0], *row[6:])

    def locate(self, decision_id: DecisionId) -> DecisionRef | None:
        """See LogReader."""
        return self.locate_all((decision_id,))[0]

    def locate_all(self, ids: Sequence[DecisionId]) -> list[DecisionRef | None]:
        """See LogReader."""
        places = {row.decision_id: DecisionRef(*row[1:]) for row in self._read(queries.PLACES, PLACE, ids=list(ids))}
        return list(map(places.get, ids))

    def find_reward(self, decision: Position, reward_id: str) -> RewardRef | None:
        """See LogReader."""
        row = self._one(queries.REWARD, decision=decision, id=reward_id)
        return RewardRef(*row) if row else None

    def units_of(self, unit: str) -> Sequence[str]:
        """See LogReader."""
        return sorted([row[0] for row in self._read(units.UNITS, unit=unit)])

    def persons(self) -> Mapping[str, str]:
        """See LogReader."""
        return units.persons(self._read)

    def find_unit_reward(self, unit: str, reward_id: str) -> UnitRewardRef | None:
        """See LogReader."""
        with self._pool.connection() as connection:
            return units.find_unit_reward(connection, unit, units.units_of(connection, unit), reward_id)

    def by_decision(self, unit: str, reward_id: str, experiment: ExperimentId | None) -> Sequence[DirectReward]:
        """See LogReader."""
        persons, at = self.units_of(unit), self.head().time
        with self._pool.connection() as connection:
            return units.by_decision(connection, persons, experiment, at, reward_id)

    def open_decisions(self, unit: str, experiment: ExperimentId | None) -> Sequence[OpenDecision]:
        """See LogReader."""
        persons, at = self.units_of(unit), self.head().time
        with self._pool.connection() as connection:
            return units.open_decisions(connection, self.version_at, persons, experiment, at)

    def credits(self, unit_reward: Position) -> Sequence[CreditedDecision]:
        """See LogReader."""
        return [
            CreditedDecision(row[0], DecisionRef(*row[1:5]), row[5])
            for row in self._read(units.CREDITS, unit_reward=unit_reward)
        ]

    def seals(self, decisions: Collection[Position], *, until: Position = END) -> Mapping[Position, Position]:
        """See LogReader."""
        return dict(self._read(queries.SEALS, decisions=list(decisions), until=until)) if decisions else {}

    def closed_decisions(self, version: Position, *, after: Time, until: Time) -> Sequence[ClosedDecision]:
        """See LogReader."""
        window = self.version_at(version).experiment.reward.window
        return [
            ClosedDecision(row[0], row[1], row[2], Reason(row[3]), row[4])
            for row in self._read(queries.CLOSED, version=version, after=after - window, until=until - window)
        ]

    def _to_logged_decision(self, row: Any) -> LoggedDecision:
        try:
            all_active = self.version_at(row.version).all_active
        except KeyError:  # in a damaged log
            all_active = ()
        return logged_decision(row, all_active)

    def decisions(self, version: Position) -> Iterator[LoggedDecision]:
        """See LogReader."""
        sql = f"{queries.DECISIONS} where version = %(version)s order by model, position"
        return map(self._to_logged_decision, self._stream(sql, DECISION, version=version))

    def newest_decisions(self, version: Position, *, most: int) -> Sequence[DecisionLine]:
        """See LogReader."""
        rows = self._read(queries.NEWEST_DECISIONS, version=version, most=most)
        return [DecisionLine(id_, time, action, Reason(reason)) for id_, time, action, reason in rows]

    def decisions_between(self, first: str, last: str) -> Iterator[LoggedDecision]:
        """See LogReader."""
        sql = f"{queries.DECISIONS} where decision_id >= %(first)s and decision_id < %(last)s order by position"
        return map(self._to_logged_decision, self._stream(sql, DECISION, first=first, last=last))

    def rewards_between(self, first: str, last: str) -> Iterator[LoggedReward]:
        """See LogReader."""
        for row in self._stream(queries.REWARDS_BETWEEN, first=first, last=last):
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
        return [NamedModel(*row) for row in self._read(queries.NAMED_MODELS, after=after)]

    def versions_with_decisions(self) -> Sequence[Position]:
        """See LogReader."""
        return [row[0] for row in self._read("select distinct version from decisions order by version")]

    def count_decisions(self, experiment: ExperimentId | None = None) -> int:
        """See LogReader."""
        return int(self._one(queries.COUNT, experiment=experiment)["count"])

    def count_decided(self, experiment: ExperimentId, *, after: Mark, until: Mark) -> int:
        """See LogReader."""
        rows = self._read(
            queries.DECIDED,
            experiment=experiment, after=after.time, until=until.time, first=after.position, last=until.position,
        )  # fmt: skip
        return sum(row["count"] for row in rows if self.version_at(row["version"]).experiment.learns)

    def count_learned(self, experiment: ExperimentId) -> int:
        """See LogReader."""
        return sum(
            row["count"]
            for row in self._read(queries.SEALED_ALIKE, experiment=experiment)
            if self.version_at(row["version"]).learns_from(
                row["reason"], activated=row["activated"], overridden=row["overridden"]
            )
        )

    def sealed_decisions(self, experiment: ExperimentId, *, after: Time, until: Time) -> Iterator[SealedDecision]:
        """See LogReader. In pages: see `sealed.py`."""
        return sealed_decisions(self._pool, self.version_at, experiment, after=after, until=until, late=None)

    def sealed_with_late(
        self, experiment: ExperimentId, *, after: Time, until: Time, late: Mark
    ) -> Iterator[SealedDecision]:
        """See LogReader."""
        return sealed_decisions(self._pool, self.version_at, experiment, after=after, until=until, late=late)

    def next_deadline(self, *, after: Time, experiment: ExperimentId | None = None) -> Time | None:
        """See LogReader."""
        rows = self._read(queries.FIRST_DEADLINES, after=after, experiment=experiment)
        return min((row["deadline"] for row in rows), default=None)

    def first_deadlines(self, *, after: Time) -> Mapping[ExperimentId, Time]:
        """See LogReader."""
        first: dict[ExperimentId, Time] = {}
        for id_, deadline in self._read(queries.FIRST_DEADLINES, after=after, experiment=None):
            first[id_] = min(first.get(id_, deadline), deadline)
        return first

    def arrow(self, experiment: ExperimentId, head: Head) -> ArrowBatches:
        """See LogReader."""
        from decider.log.postgres.arrow import arrow_batches

        return arrow_batches(self._pool, experiment, head)

    def totals(self, after: Mark, until: Mark) -> Totals:
        """See LogReader."""
        groups = self._groups.up_to(self._one("select coalesce(max(position), 0) from experiments")[0])
        with self._pool.snapshot() as connection:
            return count_totals(connection, self.version_at, groups, after=after, until=until)

    def totals_checkpoint(self, until: Mark | None = None) -> TotalsCheckpoint | None:
        """See LogReader."""
        with self._pool.snapshot() as connection:
            return newest_checkpoint(connection, self.name, until)

    def known_place(self, until: Position) -> Head:
        """See LogReader."""
        with self._pool.snapshot() as connection:
            return known_place(connection, until)

    def sizes(self) -> LogSizes:
        """See LogReader. The write-ahead log is PostgreSQL's own, and so is the disk."""
        row = self._one(queries.SIZES)
        return LogSizes(database=row["database"], wal=0, models=row["models"], free=None)

    def refused_rewards(self) -> Mapping[tuple[str, str], int]:
        """See LogReader."""
        rows = self._read("select name, outcome, count from refused_rewards")
        return {(row["name"], row["outcome"]): row["count"] for row in rows}

    def chain_start(self) -> Mark | None:
        """See LogReader."""
        row = self._one("select position, at from chain_start")
        return Mark(*row) if row else None

    def check(self, on_progress: OnProgress) -> Sequence[Damage]:
        """See LogReader."""
        with self._pool.snapshot() as connection:
            return check(connection, on_progress)

    def close(self) -> None:
        """Nobody may be reading."""
        self._pool.close()
