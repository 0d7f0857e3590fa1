"""The decisions that units keep, so that a page that is loaded again shows the same. Called by `reader.py`, `writer.py`
and `forgetting.py`.
"""

from __future__ import annotations

import sqlite3

from decider.log.rows import DECISION
from decider.types import ExperimentId, Position, Time

AT_ONCE = 500
"""Assignments that are deleted in one transaction, while writers wait."""

_KEPT = "select decision from assignments where experiment = :experiment and unit_id = :unit and until > :at"


def _assigned(columns: str) -> str:
    """An assignment to a decision that was archived and is needed no longer, or forgotten, counts for nothing."""
    return " union all ".join(
        f"select {columns} from {table} where position = ({_KEPT}) and unit_id = :unit"  # noqa: S608 - constants
        for table in ("decisions", "archived_decisions")
    )


ASSIGNED = _assigned(DECISION.columns)
_POSITION = _assigned("position")

_ASSIGN = """
insert into assignments (experiment, unit_id, until, decision) values (?, ?, ?, ?)
on conflict (experiment, unit_id) do update set until = excluded.until, decision = excluded.decision
"""
_COUNT_NEW = """
update row_sums set sum = sum + :decision - coalesce(
  (select decision from assignments where experiment = :experiment and unit_id = :unit), 0)
where name = 'assignments'
"""
_COUNT_GONE = "update row_sums set sum = sum - ? where name = 'assignments'"
_DROP_OVER = f"""
delete from assignments where (experiment, unit_id) in (
  select experiment, unit_id from assignments where until <= ? order by until limit {AT_ONCE})
returning decision
"""  # noqa: S608 - a number
_FORGET = "delete from assignments where unit_id = ? returning decision"
_OF_DECISION = """
delete from assignments where decision = :decision and (experiment, unit_id) = (
  select e.experiment, d.unit_id from decisions d join experiments e on e.position = d.version
  where d.position = :decision)
returning decision
"""


def kept_decision(connection: sqlite3.Connection, experiment: ExperimentId, unit: str, at: Time) -> Position | None:
    """The position of the decision that a unit keeps at a time."""
    row = connection.execute(_POSITION, {"experiment": experiment, "unit": unit, "at": at}).fetchone()
    return Position(row[0]) if row else None


def assign(
    connection: sqlite3.Connection, experiment: ExperimentId, unit: str, *, until: Time, decision: Position
) -> None:
    """The unit keeps this decision from now on, in the open transaction."""
    connection.execute(_COUNT_NEW, {"experiment": experiment, "unit": unit, "decision": decision})
    connection.execute(_ASSIGN, (experiment, unit, until, decision))


def has_over(connection: sqlite3.Connection, at: Time) -> bool:
    """Whether an assignment counts no longer."""
    return connection.execute("select 1 from assignments where until <= ? limit 1", (at,)).fetchone() is not None


def drop_over(connection: sqlite3.Connection, at: Time) -> None:
    """Delete some that count no longer."""
    _delete(connection, _DROP_OVER, at)


def forget_assignments(connection: sqlite3.Connection, unit: str) -> None:
    """Delete those of a unit."""
    _delete(connection, _FORGET, unit)


def end_assignment(connection: sqlite3.Connection, decision: Position) -> None:
    """Delete the one to this decision, if its unit still keeps it."""
    if connection.execute(_OF_DECISION, {"decision": decision}).fetchall():
        connection.execute(_COUNT_GONE, (decision,))


def _delete(connection: sqlite3.Connection, sql: str, parameter: Time | str) -> None:
    gone = [decision for (decision,) in connection.execute(sql, (parameter,)).fetchall()]
    connection.execute(_COUNT_GONE, (sum(gone),))
