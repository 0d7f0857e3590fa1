"""Removes a unit's ids from a log, and its contexts if asked for; called by `forgetting.py` for `decider forget`.

Each piece is one transaction with the entry that names it, so that a killed run leaves every decision either as it was
or forgotten, and no commit of a server waits for long.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from heapq import merge
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from decider.log import chain
from decider.log.chain import REFUSED_BITS
from decider.log.forgotten import ChangedCommit, Removal, made_up_id
from decider.log.sqlite.archived import ARCHIVED_DECISION, archived_sum
from decider.log.tables import ENTRY_TABLES
from decider.types import ExperimentId, Position, Time

FORGET_AT_ONCE = 100
"""Decisions of one transaction."""

WAIT = 10_000
"""Milliseconds for which the end waits for other processes that read the log."""

DECISIONS_OF_UNIT = """
select position from decisions where unit_id = ?1 union all select position from archived_decisions where unit_id = ?1
order by position
"""
"""Reads all decisions: there is no index on units, since nothing else looks for one."""

IS_OF_UNIT = """
select position from decisions where position = ?1 and unit_id = ?2
union all select position from archived_decisions where position = ?1 and unit_id = ?2
"""
"""An archived one can be in both tables for no moment: it is moved in one transaction."""

NAMES_UNIT = f"""
select position from unit_rewards where unit_id = :unit
union all select position from links where :unit in (unit_id, same_as)
order by position limit {FORGET_AT_ONCE}
"""  # noqa: S608 - a number
"""Rewards by unit and links."""

_FORGET_UNIT_REWARD = """
update unit_rewards set unit_id = ?, reward_id = case when reward_id is not null then ? end where position = ?
"""
_FORGET_LINK = [
    f"update links set {column} = ? where position = ? and {column} = ?"  # noqa: S608 - our names
    for column in ("unit_id", "same_as")
]

_REWARDS = "select position from rewards where decision = ?"
_TABLES = ("decisions", "archived_decisions")
_FORGET_DECISION = [f"update {table} set unit_id = ?, decision_id = ? where position = ?" for table in _TABLES]  # noqa: S608 - our names
_FORGET_CONTEXT = [
    f"""update {table} set segment = null, device = null, channel = null, location = null, intent_stage = null,
    features = null, action_features = null where position = ?"""  # noqa: S608 - our names
    for table in _TABLES
]
_FORGET_HISTORY = """
delete from unit_decisions where (experiment, unit_id, decision) = (
  select e.experiment, d.unit_id, d.position from decisions d join experiments e on e.position = d.version
  where d.position = ?)
"""
_DEADLINE = """
select experiment, deadline from decision_windows where position = ?1
union all select experiment, deadline from archived_decisions where position = ?1
"""
_ARCHIVED = f"select {ARCHIVED_DECISION.columns} from archived_decisions where position = ?"  # noqa: S608 - a constant
_COUNT = f"update cut set archived = (archived + ?) & {REFUSED_BITS}"  # noqa: S608 - a number
_FORGET_EXPOSURE = "update exposures set unit_id = ? where decision = ?"
_FORGET_REWARD = "update rewards set reward_id = ? where position = ? and reward_id is not null"

_TIME_AT = " union all ".join(f"select time from {table.name} where position = :position" for table in ENTRY_TABLES)  # noqa: S608 - our names


class Span(NamedTuple):
    """First and last position of a commit."""

    first: Position
    last: Position


def forget_decisions(
    connection: sqlite3.Connection, decisions: Sequence[Position], *, pseudonym: str | None, context: bool
) -> Removal:
    """Change the decisions' rows and those of their rewards, in the open transaction. pseudonym: the unit's; None: each
    decision gets one of its own."""
    rewards = [row[0] for decision in decisions for row in connection.execute(_REWARDS, (decision,))]
    there = [one for one in (*decisions, *rewards) if _time_at(connection, one) is not None]
    spans = _spans(connection, there)
    before, archived = [_digest(connection, span) for span in spans], _archived_sum(connection, decisions)
    sealed = _first_seals(connection, decisions) if context else {}
    connection.executemany(_FORGET_HISTORY, [(decision,) for decision in decisions])
    for decision in decisions:
        unit, id_ = pseudonym or made_up_id(), made_up_id()
        for sql in _FORGET_DECISION:
            connection.execute(sql, (unit, id_, decision))
        connection.execute(_FORGET_EXPOSURE, (unit, decision))
        for sql in _FORGET_CONTEXT if context else ():
            connection.execute(sql, (decision,))
    connection.executemany(_FORGET_REWARD, [(made_up_id(), reward) for reward in rewards])
    connection.execute(_COUNT, (_archived_sum(connection, decisions) - archived,))
    return Removal(tuple(decisions), sealed, _changed(connection, spans, before))


def forget_naming(connection: sqlite3.Connection, *, unit: str) -> Removal:
    """Put made-up ids in some rewards by unit and links that name a unit, in the open transaction. Each gets one of its
    own: with the same one in several links the unit's person could still be put together."""
    positions = [Position(row[0]) for row in connection.execute(NAMES_UNIT, {"unit": unit})]
    spans = _spans(connection, positions)
    before = [_digest(connection, span) for span in spans]
    for position in positions:
        connection.execute(_FORGET_UNIT_REWARD, (made_up_id(), made_up_id(), position))
        for sql in _FORGET_LINK:
            connection.execute(sql, (made_up_id(), position, unit))
    return Removal((), {}, _changed(connection, spans, before))


def _spans(connection: sqlite3.Connection, positions: Sequence[Position]) -> list[Span]:
    """Of the commits with these positions."""
    return sorted({_span(connection, Position(position)) for position in positions})


def _changed(
    connection: sqlite3.Connection, spans: Sequence[Span], before: Sequence[bytes]
) -> tuple[ChangedCommit, ...]:
    """Those of these commits that are not what they were."""
    after = [ChangedCommit(*span, old, _digest(connection, span)) for span, old in zip(spans, before, strict=True)]
    return tuple(one for one in after if one.before != one.after)


def _archived_sum(connection: sqlite3.Connection, decisions: Sequence[Position]) -> int:
    """What those of them that are archived add to the checksum over all."""
    rows = [row for one in decisions for row in connection.execute(_ARCHIVED, (one,))]
    return sum(map(archived_sum, rows)) & REFUSED_BITS


def _first_seals(connection: sqlite3.Connection, decisions: Sequence[Position]) -> dict[ExperimentId, Time]:
    """By experiment, the end of the first of their windows."""
    seals: dict[ExperimentId, Time] = {}
    for decision in decisions:
        for id_, deadline in connection.execute(_DEADLINE, (decision,)):
            seals[id_] = min(seals.get(id_, deadline), deadline)
    return seals


def _span(connection: sqlite3.Connection, position: Position) -> Span:
    """Of the commit with this position: as `commits.py` reads it, it ends where the time changes or a mark stands."""
    time, first, last = _time_at(connection, position), position, position
    while not _is_marked(connection, first - 1) and _time_at(connection, first - 1) == time:
        first = Position(first - 1)
    while not _is_marked(connection, last) and _time_at(connection, last + 1) == time:
        last = Position(last + 1)
    return Span(first, last)


def _time_at(connection: sqlite3.Connection, position: int) -> int | None:
    row = connection.execute(_TIME_AT, {"position": position}).fetchone()
    return row[0] if row else None


def _is_marked(connection: sqlite3.Connection, position: int) -> bool:
    return connection.execute("select 1 from marks where position = ?", (position,)).fetchone() is not None


def _digest(connection: sqlite3.Connection, span: Span) -> bytes:
    """Of a commit's rows, as the chain has it."""
    between = (span.first - 1, span.last)
    streams = [
        [(row[0], table.kind, row[2:]) for row in connection.execute(table.select, between)] for table in ENTRY_TABLES
    ]
    entries = list(merge(*streams, key=itemgetter(0)))
    return chain.digest([kind for _, kind, _ in entries], [row for _, _, row in entries])


def clear_unused(path: Path, *, rebuild: bool) -> bool:
    """Empty the write-ahead log, which holds old pages. Returns whether other processes allowed it. rebuild: write the
    file anew as well, since SQLite leaves old copies of rows in places that it does not use."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None)) as connection:
        connection.execute(f"pragma busy_timeout = {WAIT}")
        if rebuild:
            connection.execute("vacuum")
        (busy, _, _) = connection.execute("pragma wal_checkpoint(truncate)").fetchone()
    return not busy
