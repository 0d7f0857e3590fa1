"""Counts the totals of a log between two marks, in SQL. Called by `reader.py`.

`not indexed` makes SQLite use the primary key, the position: with `json_each` it would otherwise read all decisions in
the order of the group.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping

from decider.log.protocol import Mark
from decider.log.sqlite.read_rows import read
from decider.log.totals import DELAY_BUCKETS, RewardTotals, SealedTotals, Totals
from decider.types import ActionId, Position, Reason

_DRAW_REASONS = f"('{Reason.EXPLOIT}', '{Reason.EXPLORE}')"

_DECISIONS = f"""
select version, action, reason, count(*) as count,
  sum(case when reason in {_DRAW_REASONS} then 1.0 / propensity end) as inverse_propensity
from decisions where position > :after and position <= :until group by version, action, reason
"""  # noqa: S608 - a constant
_POSSIBLE = f"""
select version, eligible, key, count(*) as count from decisions not indexed, json_each(pmf)
where decisions.position > :after and decisions.position <= :until and reason in {_DRAW_REASONS} and value > 0
group by version, eligible, key
"""  # noqa: S608 - a constant
_REWARDS = """
select version, name, joined, count(*) as count, sum(value) as value, sum(value * value) as squared
from joined_rewards where position > :after and position <= :until
group by version, name, joined order by min(position)
"""
_DELAYS = f"""
select version, case
    {" ".join(f"when delay_seconds <= {seconds} then {i}" for i, seconds in enumerate(DELAY_BUCKETS))}
    else {len(DELAY_BUCKETS)} end as bucket,
  count(*) as count, sum(delay_seconds) as seconds
from joined_rewards where position > :after and position <= :until group by version, bucket
"""  # noqa: S608 - a constant
STATEMENTS = (_DECISIONS, _POSSIBLE, _REWARDS, _DELAYS)
"""Of entries by position."""

_SEALED_TOTALS = """
select count(*) as count, coalesce(sum(rewards = 0), 0) as defaulted, coalesce(sum(overridden), 0) as overridden,
  coalesce(sum(reward), 0.0) as reward, coalesce(sum(reward * reward), 0.0) as squared
from sealed_decisions where version = :version
  and time > :after - (select window from experiments where position = :version)
  and time <= :until - (select window from experiments where position = :version)
"""


def count_totals(
    connection: sqlite3.Connection,
    all_active: Callable[[Position], tuple[ActionId, ...]],
    due: Iterable[Position],
    *,
    after: Mark,
    until: Mark,
) -> Totals:
    """Everything in (after, until]. all_active: the active actions of a version. due: the versions with decisions that
    were sealed between."""
    totals = Totals()
    span = {"after": after.position, "until": until.position}
    _count_decisions(totals, connection, span)
    _count_possible(totals, connection, span, all_active)
    _count_rewards(totals, connection, span)
    for version in due:
        part = {"version": version, "after": after.time, "until": until.time}
        for row in read(connection, _SEALED_TOTALS, part):
            totals.sealed[version] = SealedTotals(**row)
    return totals


def _count_decisions(totals: Totals, connection: sqlite3.Connection, span: Mapping[str, Position]) -> None:
    for row in read(connection, _DECISIONS, span):
        totals.decisions[row["version"], row["action"], Reason(row["reason"])] += row["count"]
        if row["inverse_propensity"] is not None:
            totals.inverse_propensity[row["version"], row["action"]] += row["inverse_propensity"]


def _count_possible(
    totals: Totals,
    connection: sqlite3.Connection,
    span: Mapping[str, Position],
    all_active: Callable[[Position], tuple[ActionId, ...]],
) -> None:
    for row in read(connection, _POSSIBLE, span):
        version = row["version"]
        eligible = json.loads(row["eligible"]) if row["eligible"] else all_active(version)
        totals.possible[version, eligible[row["key"]]] += row["count"]


def _count_rewards(totals: Totals, connection: sqlite3.Connection, span: Mapping[str, Position]) -> None:
    for row in read(connection, _REWARDS, span):
        key = (row["version"], row["name"], bool(row["joined"]))
        totals.rewards[key] = RewardTotals(row["count"], row["value"], row["squared"])
    for row in read(connection, _DELAYS, span):
        totals.delays[row["version"], row["bucket"]] += row["count"]
        totals.delay_seconds[row["version"]] += row["seconds"]
