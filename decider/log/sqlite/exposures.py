"""What counts for caps and budgets, in tables beside the entries; `log/exposures.py` says what counts.

Called by `reader.py`, `commit_tables.py`, `writer.py`, `check.py`, `forgetting.py` and `archive/restore.py`.

Written in the transaction of the decision or activation from which it follows. Only experiments with limits have rows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

from decider.experiment.definition import ExperimentVersion
from decider.experiment.limits import LONGEST_DAY, Counts, Day
from decider.log.exposures import (
    Exposure,
    FollowUp,
    ShownDecision,
    follow_up,
    settled_exposure,
)
from decider.types import ActionId, Position, Time

VersionAt = Callable[[Position], ExperimentVersion]

AT_ONCE = 500
"""Rows that are deleted in one transaction, while writers wait."""

_INSERT = """
insert into exposures (decision, experiment, unit_id, action, kind, time, until, reserved_until, day_begin, day_end)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SPEND = """
insert into daily_counts (experiment, day_end, day_begin, action, count) values (?, ?, ?, ?, ?)
on conflict (experiment, day_end, day_begin, action) do update set count = count + excluded.count
"""
_OF_CAP = """(select count(*) from (select 1 from exposures
  where unit_id = :unit and experiment = :experiment and {of} = :of_{index} and time > :since_{index}
    and until > :at and (reserved_until is null or reserved_until > :at) limit :most_{index}))"""
# A day of another zone, which the experiment had before, counts as a whole: a budget is never exceeded. Reservations
# that have ended are taken out by `drop_over`, some time later.
_SPENT = """
select action, sum(count) from (
  select action, count from daily_counts
  where experiment = :experiment and day_end > :day_begin and day_begin < :day_end
  union all
  select action, -1 from exposures
  where reserved_until <= :at and experiment = :experiment and day_end > :day_begin and day_begin < :day_end)
group by action
"""
_DELETE = "delete from exposures where decision = ? returning experiment, action, day_begin, day_end"
_ENDED = f"select decision from exposures where reserved_until <= ? order by reserved_until limit {AT_ONCE}"  # noqa: S608
_OVER = f"""
delete from exposures where decision in (
  select decision from exposures where until <= ? and reserved_until is null order by until limit {AT_ONCE})
"""  # noqa: S608 - a number
_HAS_OVER = """
select 1 where exists (select 1 from exposures where reserved_until <= :at)
  or exists (select 1 from exposures where until <= :at) or exists (select 1 from daily_counts where day_end <= :over)
"""
_LIMITED = """
select position from experiments where definition like '%"caps"%' or definition like '%"daily_budget"%'
"""
_OPEN_DECISION = """
select position, time, version, unit_id, action, action_features from decisions
where position = :decision and not exists (select 1 from seals where decision = :decision)
"""
_ALL = """
select d.position, d.time, d.version, d.unit_id, d.action, d.action_features,
  a.position, a.time, a.action, s.position, s.time
from decisions d left join seals s on s.decision = d.position
  left join activations a on a.decision = d.position and (s.position is null or a.position < s.position)
where d.version in (select value from json_each(?)) order by d.position
"""


def counts(connection: sqlite3.Connection, version: ExperimentVersion, unit: str, at: Time) -> Counts:
    """What counts for a decision at a time, which is written next."""
    limits = version.limits
    assert limits is not None, "only called for versions with limits"
    day = limits.day(at)
    asked: dict[str, int | str | None] = {
        "experiment": version.experiment.id, "unit": unit, "at": at, "day_begin": day.begin, "day_end": day.end,
    }  # fmt: skip
    spent = dict(connection.execute(_SPENT, asked).fetchall()) if limits.budgets else {}
    for index, cap in enumerate(limits.caps):
        asked |= {f"of_{index}": cap.action or cap.kind, f"since_{index}": at - cap.per, f"most_{index}": cap.most}
    sql = _of_caps(tuple([cap.kind is None for cap in limits.caps]))
    return limits.counts(connection.execute(sql, asked).fetchone() if limits.caps else (), spent)


@lru_cache
def _of_caps(of_actions: tuple[bool, ...]) -> str:
    """One statement for all caps: each statement releases the interpreter lock and has to win it back. of_actions: of
    each, whether it is of an action; else it is of a kind."""
    counts = [
        _OF_CAP.format(of="action" if of_action else "kind", index=index) for index, of_action in enumerate(of_actions)
    ]
    return f"select {', '.join(counts)}"


def put(connection: sqlite3.Connection, one: Exposure | None) -> None:
    """Count an exposure; None: there is none."""
    if one is None:
        return
    connection.execute(_INSERT, (*one[:-1], *(one.day or (None, None))))
    _spend(connection, one.experiment, one.action, one.day, 1)


def take_out(connection: sqlite3.Connection, decision: Position) -> None:
    """Count a decision no more."""
    for experiment, action, begin, end in connection.execute(_DELETE, (decision,)).fetchall():
        _spend(connection, experiment, action, None if begin is None else Day(begin, end), -1)


def _spend(connection: sqlite3.Connection, experiment: str, action: str, day: Day | None, count: int) -> None:
    if day is not None:
        connection.execute(_SPEND, (experiment, day.end, day.begin, action, count))


def open_decision(connection: sqlite3.Connection, decision: Position, version_at: VersionAt) -> ShownDecision | None:
    """The part of the decision there that limits need; None where no limit counts, or a final reward has closed it."""
    row = connection.execute(_OPEN_DECISION, {"decision": decision}).fetchone()
    return None if row is None or version_at(row[2]).limits is None else _shown(row, version_at)


def _shown(row: tuple[int, int, int, str, str, str | None], version_at: VersionAt) -> ShownDecision:
    position, time, version, unit, action, features = row
    return ShownDecision(
        Position(position),
        Time(time),
        version_at(Position(version)),
        unit,
        ActionId(action),
        json.loads(features or "{}"),
    )


def limited_versions(connection: sqlite3.Connection) -> list[Position]:
    """The versions that may have limits."""
    return [Position(position) for (position,) in connection.execute(_LIMITED)]


def all_shown(
    connection: sqlite3.Connection, limited: Iterable[Position], version_at: VersionAt
) -> Iterator[tuple[ShownDecision, FollowUp | None]]:
    """The decisions of some versions, in order of position, with what followed."""
    for row in connection.execute(_ALL, (json.dumps(list(limited)),)):
        yield _shown(row[:6], version_at), follow_up(row[0], *row[6:])


def recount(connection: sqlite3.Connection, version_at: VersionAt, at: Time) -> None:
    """Count everything again, in a log that was put together of its entries."""
    for one in counted(connection, version_at):
        if one.reserved_until is not None and one.reserved_until <= at:
            continue
        if one.until > at:
            put(connection, one)
        else:  # its day may not be over
            _spend(connection, one.experiment, one.action, one.day, 1)


def counted(connection: sqlite3.Connection, version_at: VersionAt) -> Iterator[Exposure]:
    """The exposures of all decisions of a log, whether they still count or not."""
    for shown, said in all_shown(connection, limited_versions(connection), version_at):
        one = settled_exposure(shown, said)
        if one is not None:
            yield one


def has_over(connection: sqlite3.Connection, at: Time) -> bool:
    """Whether something counts no longer."""
    return connection.execute(_HAS_OVER, {"at": at, "over": at - LONGEST_DAY}).fetchone() is not None


def drop_over(connection: sqlite3.Connection, at: Time) -> None:
    """Delete some of what counts no longer."""
    for (decision,) in connection.execute(_ENDED, (at,)).fetchall():
        take_out(connection, Position(decision))
    connection.execute(_OVER, (at,))
    connection.execute("delete from daily_counts where day_end <= ?", (at - LONGEST_DAY,))


def forget_exposures(connection: sqlite3.Connection, unit: str) -> None:
    """They count for budgets as before, and for no unit."""
    connection.execute("update exposures set unit_id = '' where unit_id = ?", (unit,))
