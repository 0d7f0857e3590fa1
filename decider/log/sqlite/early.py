"""Activations that came before their decision: no entries yet, but rows of their own for a while. Called by the writer
and by `check.py`.

Everything happens in the open transaction of a commit. So either an activation is remembered and its decision is not
there, or the decision is there with its activation: no kill comes in between.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256

from decider.log.protocol import EARLY_MICROSECONDS, MOST_EARLY, EarlyActivation
from decider.log.sqlite.read_rows import row_type
from decider.log.sqlite.tables import json_text
from decider.types import ActionId, Position, Time

_ROW = row_type("id, decision_id, action, time, checksum")
_INSERT = f"""
insert into early_activations ({_ROW.columns}) values (?, ?, ?, ?, ?) on conflict (decision_id) do nothing
"""  # noqa: S608 - a constant
_TAKE = """
delete from early_activations where decision_id in (select value from json_each(?)) returning decision_id, action, time
"""
# Times rise with the ids, so that only the rows that are deleted are read.
_DROP = """
delete from early_activations where id <= ? or id < coalesce(
  (select id from early_activations where time > ? order by id limit 1), (select max(id) + 1 from early_activations))
"""
_PLACES = "select decision_id, position, action from decisions where decision_id in (select value from json_each(?))"

_LEFT = "select e.decision_id from early_activations e join decisions d on d.decision_id = e.decision_id"

Place = tuple[Position, ActionId]
"""Of a decision, with the action drawn."""


def remember(connection: sqlite3.Connection, activation: EarlyActivation, at: Time) -> bool:
    """Whether it is the first one for its decision. Those that are too old or too many are dropped."""
    drop_old(connection, at)
    (last,) = connection.execute("select coalesce(max(id), 0) from early_activations").fetchone()
    row = (last + 1, activation.decision_id, activation.action, at)
    return connection.execute(_INSERT, (*row, checksum(*row))).rowcount == 1


def drop_old(connection: sqlite3.Connection, at: Time) -> None:
    """Drop what is remembered no longer."""
    (last,) = connection.execute("select coalesce(max(id), 0) from early_activations").fetchone()
    if last:
        connection.execute(_DROP, (last - MOST_EARLY + 1, at - EARLY_MICROSECONDS))


def take(connection: sqlite3.Connection, decision_ids: Sequence[str], at: Time) -> Mapping[str, ActionId | None] | None:
    """What was said to be shown for these decisions; it is not remembered any more afterwards. None where there was
    nothing, not even something too old."""
    rows = connection.execute(_TAKE, (json.dumps(decision_ids),)).fetchall()
    return {id_: action for id_, action, time in rows if time > at - EARLY_MICROSECONDS} if rows else None


def places(connection: sqlite3.Connection, activations: Sequence[EarlyActivation]) -> Mapping[str, Place]:
    """Those of the decisions that are there after all."""
    ids = json.dumps([activation.decision_id for activation in activations])
    return {
        id_: (Position(position), ActionId(action)) for id_, position, action in connection.execute(_PLACES, (ids,))
    }


def problems(connection: sqlite3.Connection) -> Iterator[str]:
    """What is wrong with the rows: one that was changed, or whose decision is there already."""
    for *row, written in connection.execute(f"select {_ROW.columns} from early_activations"):  # noqa: S608 - a constant
        if checksum(*row) != written:
            yield f"the activation remembered for {row[1]!r} was changed"
    for (id_,) in connection.execute(_LEFT):
        yield f"the activation remembered for {id_!r} should have been written with its decision"


def checksum(id_: int, decision_id: str, action: str | None, time: int) -> str:
    """Of a row."""
    return sha256(json_text([id_, decision_id, action, time]).encode("utf-8", "surrogateescape")).hexdigest()
