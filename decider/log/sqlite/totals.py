"""Counts the totals of a log between two marks, in SQL. Called by `reader.py`.

`not indexed` makes SQLite use the primary key, the position: with `json_each` it would otherwise read all decisions in
the order of the group.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping

from decider.log.exact_sum import ZERO
from decider.log.protocol import Mark
from decider.log.sqlite.exact_sums import exact_sum, sum_columns
from decider.log.sqlite.read_rows import experiment_version, read
from decider.log.totals import DELAY_BUCKETS, POLICY_DRAWS, LabelTotals, RewardTotals, SealedTotals, Totals
from decider.types import ActionId, Position, Reason, Time

_DRAW_REASONS = str(tuple(map(str, POLICY_DRAWS)))

_INVERSE = sum_columns(f"(case when reason in {_DRAW_REASONS} then 1.0 / propensity end)", "inverse")

_DECISIONS = f"""
select version, action, reason, count(*) as count, {_INVERSE}
from decisions where position > :after and position <= :until group by version, action, reason, inverse_odd
"""  # noqa: S608 - a constant
_POSSIBLE = f"""
select version, eligible, key, count(*) as count from decisions not indexed, json_each(pmf)
where decisions.position > :after and decisions.position <= :until and reason in {_DRAW_REASONS} and value > 0
group by version, eligible, key
"""  # noqa: S608 - a constant
_REWARDS = f"""
select version, name, joined, count(*) as count, {sum_columns("value", "value")},
  {sum_columns("(value * value)", "squared")}
from joined_rewards where position > :after and position <= :until
group by version, name, joined, value_odd, squared_odd order by min(position)
"""  # noqa: S608 - constants
_DELAYS = f"""
select version, case
    {" ".join(f"when delay_seconds <= {seconds} then {i}" for i, seconds in enumerate(DELAY_BUCKETS))}
    else {len(DELAY_BUCKETS)} end as bucket,
  count(*) as count, sum(cast(round(delay_seconds * 1e6) as integer)) as delay
from joined_rewards where position > :after and position <= :until group by version, bucket
"""  # noqa: S608 - a constant
STATEMENTS = (_DECISIONS, _POSSIBLE, _REWARDS, _DELAYS)
"""Of entries by position."""

_SEALED_TOTALS = f"""
select count(*) as count, coalesce(sum(rewards = 0), 0) as defaulted, coalesce(sum(overridden), 0) as overridden,
  {sum_columns("reward", "reward")}, {sum_columns("(reward * reward)", "squared")}
from sealed_decisions where version = :version and time > :after and time <= :until
group by reward_odd, squared_odd
"""  # noqa: S608 - constants
_WINDOW = "select window from experiments where position = ?"


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
        _count_sealed(totals, connection, version, after=after.time, until=until.time)
    return totals


def _count_decisions(totals: Totals, connection: sqlite3.Connection, span: Mapping[str, Position]) -> None:
    for row in read(connection, _DECISIONS, span):
        reason = Reason(row["reason"])
        totals.decisions[row["version"], row["action"], reason] += row["count"]
        if reason in POLICY_DRAWS:
            key = (row["version"], row["action"])
            totals.inverse_propensity[key] = totals.inverse_propensity.get(key, ZERO) + exact_sum(row, "inverse")


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
        more = RewardTotals(row["count"], exact_sum(row, "value"), exact_sum(row, "squared"))
        totals.rewards[key] = totals.rewards.get(key, RewardTotals()) + more
    for row in read(connection, _DELAYS, span):
        totals.delays[row["version"], row["bucket"]] += row["count"]
        totals.delay[row["version"]] += row["delay"]


def _count_sealed(
    totals: Totals, connection: sqlite3.Connection, version: Position, *, after: Time, until: Time
) -> None:
    # Times of decisions, as numbers: with a query in their place SQLite would first group all decisions of the version.
    (window,) = connection.execute(_WINDOW, (version,)).fetchone()
    part = {"version": version, "after": after - window, "until": until - window}
    for row in read(connection, _SEALED_TOTALS, part):
        more = SealedTotals(
            row["count"], row["defaulted"], row["overridden"], exact_sum(row, "reward"), exact_sum(row, "squared")
        )
        totals.sealed[version] = totals.sealed.get(version, SealedTotals()) + more


def add_totals(totals: LabelTotals, connection: sqlite3.Connection, *, after: Mark, until: Mark) -> None:
    """Add everything in (after, until] to totals by labels, from one connection: for a check, which has no reader."""
    rows = read(connection, "select position, time, number, definition from experiments")
    versions = {row["position"]: experiment_version(row) for row in rows}
    counted = count_totals(connection, lambda at: versions[at].all_active, versions, after=after, until=until)
    totals.add(counted, {position: version.experiment.id for position, version in versions.items()})
