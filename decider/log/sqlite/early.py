"""Activations that came before their decision: no entries yet, but rows of their own for a while. Called by the writer
and by `check.py`.

Everything happens in the open transaction of a commit. So either an activation is remembered and its decision is not
there, or the decision is there with its activation: no kill comes in between.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from decider.log import chain
from decider.log.commit_tables import Place
from decider.log.protocol import EARLY_MICROSECONDS, MOST_EARLY, EarlyActivation
from decider.log.rows import row_type, whole_number
from decider.log.sqlite.archived import archived_sum
from decider.log.sqlite.migrations import COUNT_REFUSED_SUM
from decider.types import ActionId, Position, Time

_ROW = row_type("id, decision_id, action, time")
_ROWS = f"select {_ROW.columns} from early_activations"  # noqa: S608 - a constant
_INSERT = f"""
insert into early_activations ({_ROW.columns}) values (?, ?, ?, ?) on conflict (decision_id) do nothing
"""  # noqa: S608 - a constant
_TAKE = f"""
delete from early_activations where decision_id in (select value from json_each(?)) returning {_ROW.columns}
"""  # noqa: S608 - a constant
# Times rise with the ids, so that only the rows that are deleted are read.
_DROP = f"""
delete from early_activations where id <= ? or id < coalesce(
  (select id from early_activations where time > ? order by id limit 1), (select max(id) + 1 from early_activations))
returning {_ROW.columns}
"""  # noqa: S608 - a constant
_PLACES = "select decision_id, position, action from decisions where decision_id in (select value from json_each(?))"

# An archived decision of that id is older, where a copy of the whole log has it: the id was free again.
_LEFT = """
select e.decision_id from early_activations e join decisions d on d.decision_id = e.decision_id and d.time >= e.time
"""


def remember(connection: sqlite3.Connection, activation: EarlyActivation, at: Time) -> bool:
    """Whether it is the first one for its decision. Those that are too old or too many are dropped."""
    drop_old(connection, at)
    row = (_last(connection) + 1, activation.decision_id, activation.action, at)
    is_first = connection.execute(_INSERT, row).rowcount == 1
    if is_first:
        connection.execute(COUNT_REFUSED_SUM, (sum_of([row]),))
    return is_first


def drop_old(connection: sqlite3.Connection, at: Time) -> None:
    """Drop what is remembered no longer."""
    last = _last(connection)
    if last:
        _delete(connection, _DROP, (last - MOST_EARLY + 1, at - EARLY_MICROSECONDS))


def take(connection: sqlite3.Connection, decision_ids: Sequence[str], at: Time) -> Mapping[str, ActionId | None] | None:
    """What was said to be shown for these decisions; it is not remembered any more afterwards. None where there was
    nothing, not even something too old."""
    rows = _delete(connection, _TAKE, (json.dumps(decision_ids),))
    return {id_: action for _, id_, action, time in rows if time > at - EARLY_MICROSECONDS} if rows else None


def _last(connection: sqlite3.Connection) -> int:
    (last,) = connection.execute("select coalesce(max(id), 0) from early_activations").fetchone()
    return int(last)


def _delete(connection: sqlite3.Connection, sql: str, parameters: tuple[Any, ...]) -> list[Any]:
    rows = connection.execute(sql, parameters).fetchall()
    if rows:
        connection.execute(COUNT_REFUSED_SUM, (-sum_of(rows) & chain.REFUSED_BITS,))
    return rows


def places(connection: sqlite3.Connection, activations: Sequence[EarlyActivation]) -> Mapping[str, Place]:
    """Those of the decisions that are there after all."""
    ids = json.dumps([activation.decision_id for activation in activations])
    return {
        id_: (Position(position), ActionId(action)) for id_, position, action in connection.execute(_PLACES, (ids,))
    }


def sum_of_refused(connection: sqlite3.Connection) -> int:
    """The checksum in `head`: over all rows, and over the counts of refused rewards."""
    rows = connection.execute("select name, outcome, count from refused_rewards")
    refused = sum(chain.refused_sum(name, outcome) * whole_number(count, "a count") for name, outcome, count in rows)
    return (refused + sum_of(connection.execute(_ROWS))) & chain.REFUSED_BITS


def sum_of(rows: Iterable[Sequence[Any]]) -> int:
    """What rows add to it."""
    return sum(archived_sum(row) for row in rows) & chain.REFUSED_BITS


def problems(connection: sqlite3.Connection) -> Iterator[str]:
    """Rows whose decision is there already."""
    for (id_,) in connection.execute(_LEFT):
        yield f"the activation remembered for {id_!r} should have been written with its decision"
