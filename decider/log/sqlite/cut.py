"""A log that can be cut: `decider archive` chooses a cut, writes the part before it, and lets it count in one
transaction. See CuttableLog in `protocol.py`; made by `open.py`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from decider.errors import LogError, LogLocked
from decider.log.log_totals import LogTotals
from decider.log.protocol import Base, Head, Mark, ModelName, NewPart, OnProgress
from decider.log.rows import head_in
from decider.log.sqlite.archived import (
    KEPT,
    KEPT_POSITIONS,
    TIMES,
    digest_of_chosen_models,
    digest_of_cut,
    digest_of_entries,
    lines,
)
from decider.log.sqlite.connection import transaction
from decider.log.sqlite.models import PAUSE, PIECE_BYTES
from decider.log.sqlite.reader import NEWEST_MODELS
from decider.log.sqlite.trim import FIRST_LEFT
from decider.log.sqlite.writer import SqliteLog
from decider.log.tables import json_text
from decider.policy.saved import SavedModel
from decider.types import START, ExperimentId, Position, Time

SETTLED = 10_000_000
"""Microseconds of log time after which every process serves a published model, or a newer one."""

PATIENCE = 5.0
"""Seconds to wait for a server that deletes a piece; another run takes longer."""

CHECKPOINT_EVERY = 400
"""Pieces."""

TRIM_PAUSE = 0.002
"""Seconds between two pieces, for the commits of others."""

_FIRST_THAT_STAYS = """
select min((select d.position from decisions d
  where d.version = e.position and d.time >= min(:before, (select time from head) - e.window + 1)
  order by d.time, d.position limit 1)) as position
from experiments e
"""
_LAST_MARK = "select position, chain from marks where position <= ? order by position desc limit 1"

_COUNT_BY_EXPERIMENT = """
select experiment, sum(count) from (
  select e.experiment, count(*) as count from decisions d not indexed join experiments e on e.position = d.version
    where d.position > (select coalesce(max(position), 0) from cut) and d.position <= ? group by e.experiment
  union all select experiment, decisions from archived_experiments)
group by experiment
"""

_SETTLED = """
select model, time from published
where experiment = ? and signature = (select id from signatures where signature = ?) and model <= ? order by model desc
"""

_BETWEEN = """
select position, model from published
where experiment = ? and signature = (select id from signatures where signature = ?) and model >= ? and model <= ?
"""
_STORED = """
select distinct p.position, p.model from models m join signatures s on s.signature = m.signature
join published p on p.experiment = m.experiment and p.signature = s.id and p.model = m.position
where m.part = 0
"""
_NEW_MODELS = "select distinct model from published where position > ? and model <= ?"

_TIMES_AT = """
select position, time from entries where position in (select value from json_each(?1))
union all select position, time from archived_times where position in (select value from json_each(?1))
"""

# One statement each: a statement for every row takes several times as long, and everybody waits.
_INSERT_KEPT = "insert into kept_models (position) select value from json_each(?)"
_INSERT_TIMES = "insert into archived_times (position, time) select cast(key as integer), value from json_each(?)"

_INSERT_PIECE = "insert into base_pieces (experiment, signature, position, part, data) values (?, ?, ?, ?, ?)"
_DELETE_PIECES = "delete from base_pieces where experiment = ? and signature = ? and position = ?"
_UNNAMED_PIECES = """
select distinct p.experiment, p.signature, p.position from base_pieces p where not exists (
  select 1 from bases b where (b.experiment, b.signature, b.position) = (p.experiment, p.signature, p.position))
"""
LAST = 2**62


@dataclass(frozen=True)
class _Stays:
    """What stays of the entries up to a cut, read before its transaction. Models may be many: their rows and what the
    digest covers of them are ready to be written.

    planned: the log's end then. times: lines of the digest, by position.
    """

    planned: Position
    kept_text: str
    kept_lines: bytes
    times: Mapping[int, bytes]
    times_text: str
    entries: str
    models: str

    def lines_of_times(self, more: Mapping[int, int]) -> bytes:
        """What the digest covers of `archived_times`. more: times of other positions."""
        every = {**self.times, **_lines_by_position(more)}
        return b"".join([every[position] for position in sorted(every)])


class SqliteCuttableLog(SqliteLog):
    """See CuttableLog."""

    @contextmanager
    def archiving(self) -> Iterator[None]:
        """See CuttableLog."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with self._file.try_to_archive() as mine:
                if mine:
                    yield
                    return
            if time.monotonic() >= deadline:
                raise LogLocked(f"{self.name}: another process archives this log; try again once it has ended")
            time.sleep(PAUSE)

    def choose_cut(self, before: Time) -> Head | None:
        """See CuttableLog."""
        with self._snapshot() as connection:
            head = head_in(connection.execute("select position, time, chain from head").fetchone())
            (stays,) = connection.execute(_FIRST_THAT_STAYS, {"before": before}).fetchone()
            cut = head if stays is None else self._last_mark(connection, Position(stays - 1))
        last = self.cut().position
        if cut is None or cut.position <= last or not self.count(last, cut.position)[0]:
            return None
        return cut

    def _last_mark(self, connection: sqlite3.Connection, end: Position) -> Head | None:
        row = connection.execute(_LAST_MARK, (end,)).fetchone()
        return Head(row[0], self.time_at(row[0]), row[1]) if row else None

    def last_cut(self) -> Head:
        """See CuttableLog."""
        from decider.log.archive.write import start_of

        row = self._one("select position, time, chain from cut")
        return head_in(row) if row else start_of(self.path)

    def count(self, after: Position, until: Position) -> tuple[int, int]:
        """See CuttableLog."""
        decisions, rewards = (
            self._one(f"select count(*) as count from {name} where position > ? and position <= ?", (after, until))  # noqa: S608
            for name in ("decisions", "rewards")
        )
        return decisions["count"], rewards["count"]

    def count_archived(self, until: Position) -> Mapping[ExperimentId, int]:
        """See CuttableLog."""
        with self._connection() as connection:
            return dict(connection.execute(_COUNT_BY_EXPERIMENT, (until,)).fetchall())

    def settled_model(self, experiment: ExperimentId, signature: str, at_most: Position | None) -> Mark:
        """See CuttableLog."""
        limit = self.head().time - SETTLED
        rows = self._read(_SETTLED, (experiment, signature, LAST if at_most is None else at_most))
        with closing(rows):
            for row in rows:
                if row["time"] <= limit:
                    return Mark(row["model"], self.time_at(row["model"]))
        return Mark(START, Time(0))

    def store_base(self, name: ModelName, saved: SavedModel) -> None:
        """See CuttableLog."""
        key = (name.experiment, name.signature, name.position)
        self._write_alone(_DELETE_PIECES, key)
        for part, first in enumerate(range(0, len(saved.data), PIECE_BYTES)):
            self._write_alone(_INSERT_PIECE, (*key, part, saved.data[first : first + PIECE_BYTES]))

    def _write_alone(self, sql: str, row: Sequence[Any]) -> None:
        with self._exclusive():
            self._writer.execute(sql, row)
        time.sleep(PAUSE)

    def cut_off(self, part: NewPart) -> None:
        """See CuttableLog. What changes no more is read before the transaction: nobody waits for that."""
        last = part.until.position
        with self._connection() as connection:
            stays = self._what_stays(connection, part)
        counts = self.count_archived(last)
        with self._exclusive(), transaction(self._writer) as writer:
            before = self._cut_before(writer, part)
            new_models = {model for (model,) in writer.execute(_NEW_MODELS, (stays.planned, last))}
            new_times = _times_at(writer, new_models - stays.times.keys())
            self._replace_experiments(writer, counts, part.bases)
            for table in ("archived_times", "kept_models", "bases", "cut"):
                writer.execute(f"delete from {table}")  # noqa: S608 - our names
            writer.execute(_INSERT_KEPT, (stays.kept_text,))
            writer.execute(_INSERT_TIMES, (stays.times_text,))
            writer.execute(_INSERT_TIMES, (json_text(new_times),))
            writer.executemany(
                "insert into bases (experiment, signature, position, time, checksum) values (?, ?, ?, ?, ?)",
                [_base_row(base) for base in part.bases],
            )
            writer.execute(
                "insert into archives (last, first, time, path, digest) values (?, ?, ?, ?, ?)",
                (last, part.first, part.until.time, part.path, part.digest),
            )
            writer.execute(
                "insert into cut (position, time, chain, counted, sealed, remember, digest, archived) "
                "select ?, ?, ?, position, time, ?, '', ? from head",
                (*part.until, part.remember, before),
            )
            known = {KEPT_POSITIONS: stays.kept_lines, TIMES: stays.lines_of_times(new_times)}
            digest = digest_of_cut(writer, entries=stays.entries, models=stays.models, known=known)
            writer.execute("update cut set digest = ?", (digest,))

    def _what_stays(self, connection: sqlite3.Connection, part: NewPart) -> _Stays:
        planned = self.head().position
        kept, named = self._models_that_stay(connection, part)
        times = _times_at(connection, named)
        return _Stays(
            planned=planned,
            kept_text=json_text(sorted(kept)),
            kept_lines=lines((position,) for position in sorted(kept)),
            times=_lines_by_position(times),
            times_text=json_text(times),
            entries=digest_of_entries(connection, KEPT, part.until.position),
            models=digest_of_chosen_models(connection, kept),
        )

    def _cut_before(self, writer: sqlite3.Connection, part: NewPart) -> int:
        """The checksum over the archived decisions that are there. Raises LogError where the part does not fit."""
        position, archived = writer.execute("select position, archived from cut").fetchone() or (START, 0)
        if position + 1 != part.first:
            raise LogError(f"{self.name}: another run has archived up to position {position} meanwhile; start again")
        return int(archived)

    def _models_that_stay(self, connection: sqlite3.Connection, part: NewPart) -> tuple[set[int], set[int]]:
        """Rows of `published` up to the cut that stay, and positions up to it that a model is named by."""
        last = part.until.position
        found: list[tuple[int, int]] = [*connection.execute(_STORED)]
        found += [(row[0], row[2]) for row in connection.execute(NEWEST_MODELS, (START, LAST))]
        for base in part.bases:
            name = base.name
            found += connection.execute(_BETWEEN, (name.experiment, name.signature, name.position, last))
        kept = {position for position, _ in found if position <= last}
        return kept, {model for _, model in found if model <= last} | {last}

    def _replace_experiments(
        self, writer: sqlite3.Connection, counts: Mapping[ExperimentId, int], bases: Sequence[Base]
    ) -> None:
        (now,) = writer.execute("select time from head").fetchone()
        before = dict(writer.execute("select experiment, complete_after from archived_experiments").fetchall())
        times: dict[str, int] = {}
        for base in bases:
            times[base.name.experiment] = min(base.time, times.get(base.name.experiment, base.time))
        rows = [
            (experiment, count, max(before.get(experiment, 0), times.get(experiment, now)))
            for experiment, count in sorted(counts.items())
        ]
        writer.execute("delete from archived_experiments")
        writer.executemany(
            "insert into archived_experiments (experiment, decisions, complete_after) values (?, ?, ?)", rows
        )

    def _count_up_to_cut(self) -> None:
        """Store the totals, without which nothing may be deleted; a server that leads the log may have done it."""
        row = self._one("select counted from cut")
        stored = self.totals_checkpoint()
        if row is not None and (stored is None or stored.mark.position < row["counted"]):
            totals = LogTotals(self)
            totals.catch_up()
            self.store_totals(totals.checkpoint())

    def finish_cut(self, on_progress: OnProgress) -> None:
        """See CuttableLog."""
        self._count_up_to_cut()
        pieces, is_left = 0, self._is_left()
        if self._has_to_trim():
            self._last_part.make_safe(self.cut().position)
        while self.cut().position != self._trimmed and (reached := self._trim()) is not None:
            if is_left:
                on_progress(reached)
            pieces += 1
            if not pieces % CHECKPOINT_EVERY:
                self._write_ahead.write_back()
            time.sleep(TRIM_PAUSE)
        while self._trimmer.sweep():
            time.sleep(TRIM_PAUSE)
        for row in list(self._read(_UNNAMED_PIECES)):
            self._write_alone(_DELETE_PIECES, tuple(row))

    def _is_left(self) -> bool:
        """Whether something that is archived is still to be deleted."""
        return self._one(FIRST_LEFT, {"cut": self.cut().position, "clean": START})["position"] is not None


def _times_at(connection: sqlite3.Connection, positions: Collection[int]) -> dict[int, int]:
    """The times of entries, in order of position; 0 before the first."""
    found = connection.execute(_TIMES_AT, (json_text(sorted(positions)),))
    return dict.fromkeys(sorted(positions), 0) | dict(found.fetchall())


def _lines_by_position(times: Mapping[int, int]) -> dict[int, bytes]:
    return {position: lines([(position, time)]) for position, time in times.items()}


def _base_row(base: Base) -> tuple[Any, ...]:
    name = base.name
    return name.experiment, name.signature, name.position, base.time, base.checksum
