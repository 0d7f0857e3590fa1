"""Deletes what a counted part of the archive holds, piece by piece, so that no commit waits for long. Called by the
writer: in the leader's housekeeping, and by `decider archive`.

It can be killed at any moment: what is left to do follows from `cut` and from what is still there. In the transaction
that deletes a decision, a copy goes to `archived_decisions` if it is still needed: for learning, which counts all of a
version that learns, whether it learns from them or not; or for a retry.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from typing import Any, NamedTuple

from decider.experiment.definition import ExperimentVersion
from decider.log.chain import REFUSED_BITS
from decider.log.rows import DECISION, row_type
from decider.log.sqlite.action_counts import take_out
from decider.log.sqlite.archived import ARCHIVED_DECISION, archived_sum
from decider.log.sqlite.checkpoints import keep_checkpoint
from decider.log.sqlite.connection import transaction
from decider.log.sqlite.read_rows import read
from decider.types import START, ExperimentId, Position, Time

PIECE = 250
"""Positions that are deleted in one transaction, at most."""

PIECE_REWARDS = 1_000
"""Rewards of the decisions among them, unless one alone has more."""

REST = 3600.0
"""Seconds between two looks at all archived decisions for those that nobody needs any more."""

LATEST = 2**63 - 1
"""The last time that a column can hold."""

_CUT = row_type("position, counted, remember")

DELETED = (
    *("decisions", "rewards", "reward_changes", "seals", "unit_rewards", "links", "activations", "withheld"),
    *("recalls", "ticks"),
)
"""Of which nothing stays."""

FIRST_LEFT = f"""
with other as (select min(position) as position from (
  {
    " union all ".join(
        f"select * from (select position from {name} where position <= :cut order by position limit 1)"
        for name in DELETED
    )
}
  union all select * from (select position from marks where position < :cut order by position limit 1)))
select coalesce(
  (select p.position from published p where p.position > :clean
    and p.position <= coalesce((select position from other), :cut)
    and p.position not in (select k.position from kept_models k) order by p.position limit 1),
  (select position from other)) as position
"""  # noqa: S608 - our names
"""The first entry or mark up to :cut that is still to be deleted; no model up to :clean is. Of the models only those
before the other entries are looked at: 100,000 may stay."""

_NEEDED = row_type(f"{DECISION.columns}, experiment, deadline, overridden, activated, shown")
_MAYBE = "position >= :first and position <= :last and (time > :remembered or deadline > :complete_after)"
_MAYBE_NEEDED = f"select {_NEEDED.columns} from decision_windows where {_MAYBE} order by position"  # noqa: S608

# Apart from the decisions: a decision's columns may be large, and it may have many rewards.
_REWARDS = f"""
select position, name, in_force, weight from decision_rewards
where {_MAYBE} and reward is not null order by position, reward_position
"""  # noqa: S608 - a constant
_COUNT_REWARDS = """
select position, (select count(*) from rewards r where r.decision = d.position) from decisions d
where position >= ? and position <= ? order by position
"""

# Before the decisions themselves.
_DELETE_OF_UNITS = """
delete from unit_decisions where (experiment, unit_id, decision) in (
  select e.experiment, d.unit_id, d.position from recalls r join decisions d on d.position = r.decision
    join experiments e on e.position = d.version
  where r.decision >= :first and r.decision <= :last)
"""

_DELETE = (
    _DELETE_OF_UNITS,
    *(f"delete from {name} where position >= :first and position <= :last" for name in DELETED),  # noqa: S608
    "delete from published where position >= :first and position <= :last "
    "and position not in (select k.position from kept_models k)",
    "delete from marks where position >= :first and position <= :last and position < :cut",
)

_INSERT = (
    f"insert into archived_decisions ({ARCHIVED_DECISION.columns}) "  # noqa: S608 - constants
    f"values ({', '.join('?' * len(ARCHIVED_DECISION.columns.split(', ')))})"
)
_COUNT = f"update cut set archived = (archived + ?) & {REFUSED_BITS}"  # noqa: S608 - a number

_SWEPT = row_type("position, experiment, deadline, input, remember_until")
_NEXT_ARCHIVED = f"select {_SWEPT.columns} from archived_decisions where position > ? order by position limit {PIECE}"  # noqa: S608
_ARCHIVED_AT = f"select {ARCHIVED_DECISION.columns} from archived_decisions where position = ?"  # noqa: S608

NO_PIECES = "delete from base_pieces where position not in (select b.position from bases b)"


class _Cut(NamedTuple):
    position: Position
    counted: Position
    remember: int
    complete_after: Mapping[str, Time]
    """By experiment; others have nothing archived."""
    head_time: Time


class Trimmer:
    """See above.

    connection: the writer's. exclusive: the right to write alone, taken for one piece at a time. version_at: see
    LogReader.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        exclusive: Callable[[], AbstractContextManager[None]],
        version_at: Callable[[Position], ExperimentVersion],
    ) -> None:
        self._connection = connection
        self._exclusive = exclusive
        self._version_at = version_at
        self._clean = (START, START)
        self._swept = START
        self._rest_until = 0.0

    def trim(self) -> Position | None:
        """Delete one piece. Returns the position up to which nothing is left; None where nothing was ever archived, or
        the totals have to be stored first."""
        with self._exclusive():
            cut = self._cut()
            if cut is None:
                return None
            first = self._first_left(cut)
            if first is None:
                return cut.position
            last = self._end_of_piece(first, Position(min(first + PIECE - 1, cut.position)))
            with transaction(self._connection):
                # Without totals that count them, the metrics would forget the entries.
                if not keep_checkpoint(self._connection, cut.counted):
                    return None
                self._trim(cut, first, last)
            self._clean = (cut.position, last)
            return last

    def has_work(self) -> bool:
        """Whether anything is left that lies in the archive."""
        cut = self._cut()
        return cut is not None and self._first_left(cut) is not None

    def _first_left(self, cut: _Cut) -> Position | None:
        # Another cut lets go of models that had stayed.
        clean = self._clean[1] if self._clean[0] == cut.position else START
        (first,) = self._connection.execute(FIRST_LEFT, {"cut": cut.position, "clean": clean}).fetchone()
        self._clean = (cut.position, cut.position if first is None else Position(first - 1))
        return None if first is None else Position(first)

    def _end_of_piece(self, first: Position, last: Position) -> Position:
        """At most `last`; before the decision with which the rewards are too many for one transaction."""
        total = 0
        with closing(self._connection.execute(_COUNT_REWARDS, (first, last))) as counts:
            for position, count in counts:
                total += count
                if total > PIECE_REWARDS and position > first:
                    return Position(position - 1)
        return last

    def sweep(self) -> bool:
        """Drop archived decisions that nobody needs any more, among the next few. Returns whether there are more."""
        with self._exclusive():
            cut = self._cut()
            rows = list(read(self._connection, _NEXT_ARCHIVED, (self._swept,), _SWEPT)) if cut else []
            unneeded = [row.position for row in rows if cut and not _is_needed(row, cut)]
            if unneeded:
                with transaction(self._connection):
                    self._drop(unneeded)
        self._swept = rows[-1].position if rows else START
        return bool(rows)

    def sweep_now_and_then(self) -> None:
        """`sweep`; after the last decision not again for REST."""
        if time.monotonic() >= self._rest_until and not self.sweep():
            self._rest_until = time.monotonic() + REST

    def _cut(self) -> _Cut | None:
        row = self._connection.execute(f"select {_CUT.columns} from cut").fetchone()  # noqa: S608 - a constant
        if row is None:
            return None
        (head_time,) = self._connection.execute("select time from head").fetchone()
        rows = self._connection.execute("select experiment, complete_after from archived_experiments")
        position, counted, remember = row
        return _Cut(position, counted, remember, dict(rows.fetchall()), head_time)

    def _trim(self, cut: _Cut, first: Position, last: Position) -> None:
        span = {"first": first, "last": last, "cut": cut.position}
        rows = [row for row in self._archived_rows(cut, first, last) if _is_needed(row, cut)]
        self._connection.executemany(_INSERT, rows)
        if rows:
            self._connection.execute(_COUNT, (sum(map(archived_sum, rows)) & REFUSED_BITS,))
        take_out(self._connection, first=first, last=last)
        for sql in _DELETE:
            self._connection.execute(sql, {name: span[name] for name in span if f":{name}" in sql})

    def _archived_rows(self, cut: _Cut, first: Position, last: Position) -> Iterator[Any]:
        """Rows of archived_decisions for the decisions that may be needed."""
        limits = {
            "first": first,
            "last": last,
            "remembered": cut.head_time - cut.remember,
            "complete_after": min(cut.complete_after.values(), default=Time(0)),
        }
        rewards = defaultdict[int, list[Any]](list)
        for position, *reward in self._connection.execute(_REWARDS, limits):
            rewards[position].append(reward)
        for row in list(read(self._connection, _MAYBE_NEEDED, limits, _NEEDED)):
            is_input = self._version_at(row.version).experiment.learns
            yield ARCHIVED_DECISION.make(
                (*row, json.dumps(rewards[row.position]), int(is_input), min(row.time + cut.remember, LATEST))
            )

    def _drop(self, positions: list[Position]) -> None:
        rows = [self._connection.execute(_ARCHIVED_AT, (position,)).fetchone() for position in positions]
        self._connection.execute(_COUNT, (-sum(map(archived_sum, rows)) & REFUSED_BITS,))
        self._connection.executemany("delete from archived_decisions where position = ?", [(p,) for p in positions])


def _is_needed(row: Any, cut: _Cut) -> bool:
    """Of a row with the columns of `_SWEPT`."""
    experiment: ExperimentId = row.experiment
    is_input = row.input and row.deadline > cut.complete_after.get(experiment, Time(0))
    return bool(is_input or row.remember_until > cut.head_time)
