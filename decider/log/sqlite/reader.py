"""Reads a log in an SQLite file, without the right to write: the simulator and people's tools use it on a live log."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from decider.errors import LogCorrupt, LogError
from decider.experiment.definition import ExperimentVersion
from decider.log.protocol import LoggedDecision, Mark, Place, PublishedModel, SealedDecision
from decider.log.sqlite.errors import log_error, sqlite_errors
from decider.log.sqlite.rows import DECISION_COLUMNS, Row, experiment_version, logged_decision
from decider.policy.make import SavedModel
from decider.types import START, DecisionId, ExperimentId, Position, Time

_SEALED = f"""
select {DECISION_COLUMNS}, r.value * r.weight, a.decision is not null
from decisions d
left join activations a on a.decision = d.position and a.action is not null and a.time < d.time + :window
left join rewards r on r.decision = d.position and r.time < d.time + :window
where d.version = :version and d.time > :after and d.time <= :until
order by d.time, d.position, r.position
"""  # noqa: S608 - a constant


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


def _open_to_read(path: Path) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=5, check_same_thread=False)
