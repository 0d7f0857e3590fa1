"""Counts the totals of a log between two marks. Called by `reader.py`.

Decisions as they were made are counted in SQL, as in sqlite/totals.py. What became of them is counted one by one as it
is read, by the plain meaning of the totals: slower than SQLite's counting in SQL (see decider/README.md); what is
counted once is stored with the totals.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from decider.experiment.definition import ExperimentVersion
from decider.experiment.strata import HOLDOUT_REASONS, Stratum, measures_of_all, strata_of_all
from decider.log.cell_totals import LEAST_SLOTS, Cell, cell_of
from decider.log.count_entries import count_change, count_ended, count_reward
from decider.log.daily_totals import DAY, DayCell
from decider.log.exact_sum import ZERO, ExactSum
from decider.log.postgres.connection import Connection, Parameters, stream
from decider.log.postgres.sealed import ENDED_TO_COUNT, NOTHING_LATE, sealed_in
from decider.log.protocol import Mark, NewRewardChange
from decider.log.totals import CALLED, POLICY_DRAWS, SLOTS, ActionNames, Totals, names_of
from decider.types import START, Position, Reason, RewardOutcome

_DRAW_REASONS = str(tuple(map(str, POLICY_DRAWS)))
_HOLDOUT = str(tuple(map(str, HOLDOUT_REASONS)))

# Propensities that are equal come together: each is added as often as it came, without rounding.
_DECISIONS = f"""
select version, action, reason, time / {DAY} as day, propensity, count(*) as count
from decisions where position > %(after)s and position <= %(until)s
group by version, action, reason, time / {DAY}, propensity
"""  # noqa: S608 - a constant
_DAYS = f"""
select version, time / {DAY} as day, coalesce(segment, '') as segment, action, count(*) as count
from decisions where position > %(after)s and position <= %(until)s and reason not in {_HOLDOUT}
group by version, time / {DAY}, coalesce(segment, ''), action
"""  # noqa: S608 - constants
# What is the same is taken apart once: most contexts come many times while a model serves.
_POSSIBLE = f"""
select version, eligible, p.key - 1 as key, day, segment, sum(count)::bigint as count,
  sum(count * p.value)::bigint as slots,
  sum(count * ((p.value * ({SLOTS} - p.value) + 999) / 1000))::bigint as variance,
  sum(count * (p.value >= {LEAST_SLOTS})::int)::bigint as probable,
  sum(count * case when p.value >= {LEAST_SLOTS} then 1000000000000 / p.value else 0 end)::bigint as inverse
from (
  select version, eligible, pmf, time / {DAY} as day, coalesce(segment, '') as segment, count(*) as count
  from decisions where position > %(after)s and position <= %(until)s and reason in {_DRAW_REASONS}
  group by version, eligible, pmf, time / {DAY}, coalesce(segment, '')) d
cross join lateral unnest(string_to_array(btrim(pmf, '[]'), ',')::bigint[]) with ordinality as p (value, key)
where p.value > 0 group by version, eligible, p.key, day, segment
"""  # noqa: S608 - constants
_REWARDS = """
select version, name, value, outcome, reward_time - decided as delay from (
  select j.*, j.time as reward_time, d.time as decided from joined_rewards j join decisions d on d.position = j.decision
  where j.position > %(after)s and j.position <= %(until)s) r
order by position
"""
_CHANGES = """
select version, name, value, outcome from joined_changes where position > %(after)s and position <= %(until)s
order by position
"""


class KnownGroups:
    """Strata and measures of all versions; made anew where there is a new version. versions: reads them all."""

    def __init__(self, versions: Callable[[], Sequence[ExperimentVersion]]) -> None:
        self._versions = versions
        self._last = START
        self._known: tuple[Mapping[Position, Stratum], Mapping[Position, Stratum]] = ({}, {})

    def up_to(self, last: Position) -> tuple[Mapping[Position, Stratum], Mapping[Position, Stratum]]:
        """Those of the versions up to the newest one, which is at `last`."""
        if last != self._last:
            versions = self._versions()
            self._known, self._last = (strata_of_all(versions), measures_of_all(versions)), last
        return self._known


def count_totals(
    connection: Connection,
    version_at: Callable[[Position], ExperimentVersion],
    groups: tuple[Mapping[Position, Stratum], Mapping[Position, Stratum]],
    *,
    after: Mark,
    until: Mark,
) -> Totals:
    """Everything in (after, until], in the caller's transaction. groups: strata and measures by version."""
    totals, (strata, measures) = Totals(), groups
    span = {"after": after.position, "until": until.position}
    names = cache(lambda position: names_of(version_at(position)))
    _count_decisions(totals, connection, span, names)
    _count_possible(totals, connection, span, names, measures)
    for row in stream(connection, _REWARDS, span):
        outcome = RewardOutcome(row["outcome"])
        count_reward(totals, row["version"], row["name"], row["value"], outcome, row["delay"])
    for row in stream(connection, _CHANGES, span):
        change = NewRewardChange(START, "", row["value"], row["name"])
        count_change(totals, change, row["name"], row["version"], in_time=row["outcome"] != RewardOutcome.LATE)
    ended = {"after": after.time, "until": until.time, "late": NOTHING_LATE.position, "late_time": NOTHING_LATE.time}
    sql, row_type = ENDED_TO_COUNT
    for sealed in sealed_in(stream(connection, sql, ended, row_type), version_at):
        position = sealed.decision.version
        count_ended(totals, sealed, version_at(position), strata.get(position), measures[position])
    return totals


_Names = Callable[[Position], ActionNames]


def _count_decisions(totals: Totals, connection: Connection, span: Parameters, names: _Names) -> None:
    for version, action, reason_text, day, propensity, count in stream(connection, _DECISIONS, span):
        reason, counted = Reason(reason_text), names(version).counted_as(action)
        totals.decisions[version, counted, reason] += count
        if reason in POLICY_DRAWS:
            key = (version, counted)
            more = ExactSum.of(1 / propensity, count)
            totals.inverse_propensity[key] = totals.inverse_propensity.get(key, ZERO) + more
            totals.excess[*key, day] += SLOTS * count
    for version, day, segment, action, count in stream(connection, _DAYS, span):
        totals.days[DayCell(version, day, segment, names(version).counted_as(action))] += count


def _count_possible(
    totals: Totals, connection: Connection, span: Parameters, names: _Names, measures: Mapping[Position, Stratum]
) -> None:
    for row in stream(connection, _POSSIBLE, span):
        version = row["version"]
        eligible = json.loads(row["eligible"]) if row["eligible"] else names(version).active
        key = (version, names(version).counted_as(eligible[row["key"]]))
        totals.possible[key] += row["count"]
        totals.excess[*key, row["day"]] -= row["slots"]
        totals.variance[*key, row["day"]] += row["variance"]
        if key[1] != CALLED:
            cell = Cell(measures[version].first, row["segment"], key[1])
            cell_of(totals.cells, cell).add_eligible(row["count"], row["probable"], row["inverse"])
