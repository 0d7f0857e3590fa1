"""Counts the totals of a log between two marks, in SQL. Called by `reader.py`.

`not indexed` makes SQLite use the primary key, the position: with `json_each` it would otherwise read all decisions in
the order of the group.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from decider.experiment.strata import HOLDOUT_REASONS, Stratum, bucket_of, measures_of_all, strata_of_all
from decider.log.cell_totals import LEAST, LEAST_SLOTS, Cell, Cells, Weighted, cell_of, weighted_columns
from decider.log.daily_totals import DAY, DayCell, DayGroup, Earned
from decider.log.exact_sum import ZERO
from decider.log.lift_totals import LEARNED, PlaceSums, StratumTotals, place_of
from decider.log.protocol import Mark
from decider.log.rows import experiment_version
from decider.log.sqlite.exact_sums import exact_sum, sum_columns
from decider.log.sqlite.read_rows import read
from decider.log.totals import (
    ALL,
    CALLED,
    CHANNEL,
    DELAY_BUCKETS,
    HOLDOUT,
    POLICY,
    POLICY_DRAWS,
    SLOTS,
    ActionNames,
    FieldCell,
    LabelTotals,
    NamedTotals,
    RewardTotals,
    SealedTotals,
    Totals,
    names_of,
)
from decider.types import ActionId, Context, Position, Reason, RewardOutcome, Time

_DRAW_REASONS = str(tuple(map(str, POLICY_DRAWS)))

_INVERSE = sum_columns(f"(case when reason in {_DRAW_REASONS} then 1.0 / propensity end)", "inverse")

_DECISIONS = f"""
select version, action, reason, time / {DAY} as day, count(*) as count, {_INVERSE}
from decisions where position > :after and position <= :until group by version, action, reason, day, inverse_odd
"""  # noqa: S608 - a constant
_POSSIBLE = f"""
select version, eligible, key, time / {DAY} as day, coalesce(segment, '') as segment, count(*) as count,
  sum(value) as slots, sum((value * ({SLOTS} - value) + 999) / 1000) as variance,
  sum(value >= {LEAST_SLOTS}) as probable,
  sum(case when value >= {LEAST_SLOTS} then 1000000000000 / value else 0 end) as inverse
from decisions not indexed, json_each(pmf)
where decisions.position > :after and decisions.position <= :until and reason in {_DRAW_REASONS} and value > 0
group by version, eligible, key, day, segment
"""  # noqa: S608 - a constant
_REWARDS = f"""
select version, name, outcome, count(*) as count, {sum_columns("value", "value")},
  {sum_columns("(value * value)", "squared")}
from joined_rewards where position > :after and position <= :until
group by version, name, outcome, value_odd, squared_odd order by min(position)
"""  # noqa: S608 - constants
_CHANGES = """
select version, name, outcome, count(*) as count from joined_changes where position > :after and position <= :until
group by version, name, outcome order by min(position)
"""
_DELAYS = f"""
select version, case
    {" ".join(f"when delay_seconds <= {seconds} then {i}" for i, seconds in enumerate(DELAY_BUCKETS))}
    else {len(DELAY_BUCKETS)} end as bucket,
  count(*) as count, sum(cast(round(delay_seconds * 1e6) as integer)) as delay
from joined_rewards where position > :after and position <= :until group by version, bucket
"""  # noqa: S608 - a constant
_HOLDOUT = f"reason in {tuple(map(str, HOLDOUT_REASONS))}"

_DAYS = f"""
select version, time / {DAY} as day, coalesce(segment, '') as segment, action, count(*) as count
from decisions where position > :after and position <= :until and not {_HOLDOUT} group by version, day, segment, action
"""  # noqa: S608 - constants
STATEMENTS = (_DECISIONS, _POSSIBLE, _REWARDS, _CHANGES, _DELAYS, _DAYS)
"""Of entries by position."""


def _sealed_where(condition: str) -> str:
    return f"""
select version, {_HOLDOUT} as holdout, time / {DAY} as day, segment, device, channel, sum(not left_out) as count,
  sum(rewards = 0 and not left_out) as defaulted,
  sum(overridden and not left_out) as overridden, sum(activated and not left_out) as activated,
  sum(left_out) as not_activated,
  {sum_columns("(case when not left_out then reward end)", "reward")},
  {sum_columns("(case when not left_out then reward * reward end)", "squared")}
from sealed_decisions where {condition}
group by version, holdout, day, segment, device, channel, reward_odd, squared_odd
"""  # noqa: S608 - our names


def _rewarded_where(condition: str) -> str:
    return f"""
with rewarded as materialized (
  select version, name, {_HOLDOUT} as holdout, time / {DAY} as day, coalesce(channel, '') as at, sum(in_force) as value
  from decision_rewards where {condition} and reward is not null and not left_out group by position, name)
select version, name, holdout, day, at, count(*) as count, {sum_columns("value", "value")},
  {sum_columns("(value * value)", "squared")}
from rewarded group by version, name, holdout, day, at, value_odd, squared_odd
"""  # noqa: S608 - our names


def _named_where(condition: str) -> str:
    return f"""
select version, name, {_HOLDOUT} as holdout, unit_id, count(*) as count, {sum_columns("in_force", "value")}
from decision_rewards where {condition} and reward is not null and not left_out
group by version, name, holdout, unit_id, value_odd
"""  # noqa: S608 - our names


# Only where a pmf's maximum is at most a half may several actions share it; only where the propensity is that of an
# even draw may the pmf be flat. So hardly any pmf is read place by place.
_MOST = """case when propensity > 0.5 then 1 else (select count(*) from json_each(pmf)
  where value = (select max(value) from json_each(pmf))) end"""
_IS_FLAT = """abs(propensity * json_array_length(pmf) - 1.0) <= json_array_length(pmf) * 0.000002
  and (select max(value) <= min(value) + 1 from json_each(pmf))"""


def _units_where(condition: str) -> str:
    """By unit: decisions and their rewards; draws, what exploration cost (`exploration_cost`), their weights and
    weighted rewards. All in one, since most of the time goes into reading the decisions."""
    return f"""
with sealed as materialized (
  select version, {_HOLDOUT} as holdout, left_out, unit_id, coalesce(segment, '') as segment, action, propensity,
    reason, reward,
    case when reason in {_DRAW_REASONS} and not left_out
      then (select d.pmf from decisions d where d.position = s.position) end as pmf
  from sealed_decisions s where {condition}),
costs as materialized (
  select version, holdout, left_out, unit_id, segment, action, reward,
    case when pmf is not null and propensity >= {LEAST}
      then 1000000000000 / cast(round(propensity * 1e6) as integer) end as weight,
    case when pmf is not null and propensity >= {LEAST} then reward / propensity end as weighted,
    case when pmf is not null then reward
    * (case when reason = '{Reason.EXPLOIT}' then 1.0 / (propensity * {_MOST}) when {_IS_FLAT} then 1.0 else 0.0 end
      - 1.0) end as cost
  from sealed)
select version, holdout, left_out, unit_id, segment, action, count(*) as count, count(cost) as draws,
  count(weight) as probable, {sum_columns("reward", "value")}, {sum_columns("cost", "cost")},
  sum(weight) as weight, {weighted_columns("weighted")}
from costs group by version, holdout, left_out, unit_id, segment, action, value_odd, cost_odd, weighted_odd
"""  # noqa: S608 - our names


_WINDOWS = """
select position, window from experiments where position in (select value from json_each(?)) order by window, position
"""

AT_ONCE = 500
"""Versions that one statement counts: so the number of statements does not grow with them."""


class Grouped(NamedTuple):
    """Of a version. strata: for the lift; None where it has no holdout. measures: for the cost of exploration."""

    strata: Callable[[Position], Stratum | None]
    measures: Callable[[Position], Stratum]


def count_totals(
    connection: sqlite3.Connection,
    names: Callable[[Position], ActionNames],
    due: Iterable[Position],
    *,
    grouped: Grouped,
    after: Mark,
    until: Mark,
) -> Totals:
    """Everything in (after, until]. names: of a version's actions. due: the versions with decisions whose window, as
    their version declares it, ends between."""
    totals = Totals()
    span = {"after": after.position, "until": until.position}
    known = _KnownNames(names)
    _count_decisions(totals, connection, span, known)
    _count_possible(totals, connection, span, known, grouped.measures)
    _count_rewards(totals, connection, span)
    _count_days(totals, connection, span, known)
    sealed = _Sealed(totals, connection, grouped, known)
    versions = list(due)
    for first in range(0, len(versions), AT_ONCE):
        sealed.count(versions[first : first + AT_ONCE], after=after.time, until=until.time)
    return totals


class _KnownNames(dict[Position, ActionNames]):
    """Of each version, asked for once."""

    def __init__(self, names: Callable[[Position], ActionNames]) -> None:
        super().__init__()
        self._names = names

    def __missing__(self, version: Position) -> ActionNames:
        known = self[version] = self._names(version)
        return known


def _count_decisions(
    totals: Totals, connection: sqlite3.Connection, span: Mapping[str, Position], names: _KnownNames
) -> None:
    for row in read(connection, _DECISIONS, span):
        reason, version = Reason(row["reason"]), row["version"]
        action = names[version].counted_as(row["action"])
        totals.decisions[version, action, reason] += row["count"]
        if reason in POLICY_DRAWS:
            key = (version, action)
            totals.inverse_propensity[key] = totals.inverse_propensity.get(key, ZERO) + exact_sum(row, "inverse")
            totals.excess[*key, row["day"]] += SLOTS * row["count"]


def _count_possible(
    totals: Totals,
    connection: sqlite3.Connection,
    span: Mapping[str, Position],
    names: _KnownNames,
    measures: Callable[[Position], Stratum],
) -> None:
    for row in read(connection, _POSSIBLE, span):
        version = row["version"]
        eligible = json.loads(row["eligible"]) if row["eligible"] else names[version].active
        key = (version, names[version].counted_as(eligible[row["key"]]))
        totals.possible[key] += row["count"]
        totals.excess[*key, row["day"]] -= row["slots"]
        totals.variance[*key, row["day"]] += row["variance"]
        if key[1] != CALLED:
            cell = Cell(measures(version).first, row["segment"], key[1])
            cell_of(totals.cells, cell).add_eligible(row["count"], row["probable"], row["inverse"])


def _count_days(
    totals: Totals, connection: sqlite3.Connection, span: Mapping[str, Position], names: _KnownNames
) -> None:
    for row in read(connection, _DAYS, span):
        version = row["version"]
        action = names[version].counted_as(row["action"])
        totals.days[DayCell(version, row["day"], row["segment"], action)] += row["count"]


def _count_rewards(totals: Totals, connection: sqlite3.Connection, span: Mapping[str, Position]) -> None:
    for row in read(connection, _REWARDS, span):
        _add_rewards(totals, row, RewardTotals(row["count"], exact_sum(row, "value"), exact_sum(row, "squared")))
    for row in read(connection, _CHANGES, span):
        _add_rewards(totals, row, RewardTotals(row["count"]))
    for row in read(connection, _DELAYS, span):
        totals.delays[row["version"], row["bucket"]] += row["count"]
        totals.delay[row["version"]] += row["delay"]


def _add_rewards(totals: Totals, row: sqlite3.Row, more: RewardTotals) -> None:
    key = (Position(row["version"]), row["name"], RewardOutcome(row["outcome"]))
    totals.rewards[key] = totals.rewards.get(key, RewardTotals()) + more


class _Sealed:
    """Counts sealed decisions into totals, of many versions at once."""

    def __init__(
        self, totals: Totals, connection: sqlite3.Connection, grouped: Grouped, names: Mapping[Position, ActionNames]
    ) -> None:
        self._totals, self._names = totals, names
        self._connection = connection
        self._stratum, self._measure = cache(grouped.strata), grouped.measures

    def count(self, versions: Sequence[Position], *, after: Time, until: Time) -> None:
        """Those whose declared window ended in (after, until]: all decisions of a time together, also those that a
        final reward has sealed before. By their seals the rewarded ones would come first, and for a while alone."""
        windows = self._connection.execute(_WINDOWS, (json.dumps(versions),))
        self._add_all(*_by_window(windows, after=after, until=until))

    def _add_all(self, condition: str, values: Sequence[int]) -> None:
        """condition: of which decisions, in SQL."""
        _add_sealed(self._totals, read(self._connection, _sealed_where(condition), values))
        for row in read(self._connection, _rewarded_where(condition), values):
            _add_rewarded(self._totals, row)
        units = map(_UnitRow._make, self._connection.execute(_units_where(condition), values))
        for version, of_version in groupby(units, key=itemgetter(0)):
            self._add_units(version, list(of_version))
        for version, rows in groupby(self._connection.execute(_named_where(condition), values), key=itemgetter(0)):
            stratum = self._stratum(version)
            if stratum is not None:
                _add_named(self._totals.lift[stratum], rows)

    def _add_units(self, version: Position, rows: Sequence[_UnitRow]) -> None:
        draws = [row for row in rows if row.draws]
        if draws:
            measure = self._measure(version)
            _add_draws(self._totals.exploration.setdefault(measure, StratumTotals()), draws)
            _add_cells(self._totals.cells, draws, measure, self._names[version])
        stratum = self._stratum(version)
        if stratum is not None:
            _add_units(self._totals.lift.setdefault(stratum, StratumTotals()), rows)


def _by_window(windows: Iterable[tuple[int, int]], *, after: Time, until: Time) -> tuple[str, list[int]]:
    """A condition with its values: decisions of versions, given with the length of their windows in rising order.

    Times of decisions, as numbers: with a query in their place SQLite would first group all decisions of the version.
    """
    ranges, values = [], list[int]()
    for window, some in groupby(windows, key=itemgetter(1)):
        is_one, versions = _is_one_of("version", [version for version, _ in some])
        ranges.append(f"{is_one} and time > ? and time <= ?")
        values += [*versions, after - window, until - window]
    return f"({' or '.join(ranges)})" if ranges else "0", values


def _is_one_of(column: str, numbers: Sequence[int]) -> tuple[str, list[int]]:
    """The same. A list, not a query; of few lengths, since SQLite takes a millisecond to understand a new statement."""
    length = 1 << (len(numbers) - 1).bit_length()
    return f"{column} in ({','.join('?' * length)})", [*numbers, *[numbers[-1]] * (length - len(numbers))]


def _add_rewarded(totals: Totals, row: sqlite3.Row) -> None:
    version, name, group = row["version"], row["name"], HOLDOUT if row["holdout"] else POLICY
    totals.rewarded[version, name, group, row["day"]] += row["count"]
    totals.by_field[FieldCell(version, CHANNEL, row["at"], name, group, row["day"])] += row["count"]
    more = NamedTotals(exact_sum(row, "value"), exact_sum(row, "squared"))
    totals.named[version, name, group] = totals.named.get((version, name, group), NamedTotals()) + more


class _UnitRow(NamedTuple):
    """Of `_units_where`."""

    version: int
    holdout: int
    left_out: int
    unit: str
    segment: str
    action: ActionId
    decisions: int
    draws: int
    probable: int
    upper: int
    lower: int
    rest: int
    odd: float | None
    cost_upper: int
    cost_lower: int
    cost_rest: int
    cost_odd: float | None
    weight: int
    weighted_upper: int | None
    weighted_lower: int | None
    weighted_odd: float | None


def _add_units(lift: StratumTotals, rows: Iterable[_UnitRow]) -> None:
    learned = lift.of(LEARNED)
    for row in rows:
        place = place_of(bucket_of(row.unit), holdout=bool(row.holdout))
        if row.left_out:
            lift.left_out[place] += row.decisions
        else:
            lift.decisions[place] += row.decisions
            _add_value(learned, place, (row.upper, row.lower, row.rest), row.odd, row.decisions)


def _add_draws(exploration: StratumTotals, rows: Iterable[_UnitRow]) -> None:
    costs = exploration.of(LEARNED)
    for row in rows:
        place = place_of(bucket_of(row.unit), holdout=False)
        exploration.decisions[place] += row.draws
        _add_value(costs, place, (row.cost_upper, row.cost_lower, row.cost_rest), row.cost_odd, row.draws)


def _add_cells(cells: Cells, rows: Iterable[_UnitRow], measure: Stratum, names: ActionNames) -> None:
    for row in rows:
        action = names.counted_as(row.action)
        if action == CALLED or not row.probable:
            continue
        weighted = Weighted(row.weighted_upper or 0, row.weighted_lower or 0, row.weighted_odd)
        sums = cell_of(cells, Cell(measure.first, row.segment, action))
        sums.add_draws(bucket_of(row.unit), row.probable, row.weight, weighted)


def _add_named(lift: StratumTotals, rows: Iterable[tuple[Any, ...]]) -> None:
    for _, name, holdout, unit, count, *digits, odd in rows:
        _add_value(lift.of(name), place_of(bucket_of(unit), holdout=holdout), digits, odd, count)


def _add_value(sums: PlaceSums, place: int, digits: Sequence[int], odd: float | None, count: int) -> None:
    if odd is None:
        sums.add(place, digits)
    else:
        sums.add_odd(place, odd, count)


_SEALED_COUNTS = ("count", "defaulted", "overridden", "activated", "not_activated")
_SEALED_SUMS = (
    *_SEALED_COUNTS,
    *(f"{name}_{digit}" for name in ("reward", "squared") for digit in ("upper", "lower", "rest")),
)


def _add_sealed(totals: Totals, rows: Iterable[sqlite3.Row]) -> None:
    merged: dict[tuple[Position, int, int, float | None, float | None], list[int]] = {}
    for row in rows:  # one for each kind of context: of those there may be as many as decisions
        key = (row["version"], row["holdout"], row["day"], row["reward_odd"], row["squared_odd"])
        sums = merged.setdefault(key, [0] * len(_SEALED_SUMS))
        for place, name in enumerate(_SEALED_SUMS):
            sums[place] += row[name] or 0
        _add_fields(totals, row)
    for (version, holdout, day, reward_odd, squared_odd), sums in merged.items():
        counts = dict(zip(_SEALED_SUMS, sums, strict=True))
        values = {**counts, "reward_odd": reward_odd, "squared_odd": squared_odd}
        more = SealedTotals(
            **{name: counts[name] for name in _SEALED_COUNTS},
            reward=exact_sum(values, "reward"),
            squared=exact_sum(values, "squared"),
        )
        _add_group(totals, version, HOLDOUT if holdout else POLICY, day, more)


def _add_fields(totals: Totals, row: sqlite3.Row) -> None:
    count: int = row["count"]
    if count:
        context = Context(row["segment"] or "", row["device"] or "", row["channel"] or "")
        group = HOLDOUT if row["holdout"] else POLICY
        totals.count_fields(row["version"], context, group, row["day"], count=count, rewarded=count - row["defaulted"])


def _add_group(totals: Totals, version: Position, group: str, day: int, more: SealedTotals) -> None:
    totals.sealed[version, group] = totals.sealed.get((version, group), SealedTotals()) + more
    if more.count:
        totals.rewarded[version, ALL, group, day] += more.count
        cell = DayGroup(version, day, group)
        totals.earned[cell] = totals.earned.get(cell, Earned()).plus(Earned(more.count, more.reward))


def add_totals(totals: LabelTotals, connection: sqlite3.Connection, *, after: Mark, until: Mark) -> None:
    """Add everything in (after, until] to totals by labels, from one connection: for a check, which has no reader."""
    rows = read(connection, "select position, time, number, definition from experiments")
    versions = {row["position"]: experiment_version(row) for row in rows}
    grouped = Grouped(strata_of_all(versions.values()).get, measures_of_all(versions.values()).__getitem__)
    counted = count_totals(
        connection, lambda at: names_of(versions[at]), versions, grouped=grouped, after=after, until=until
    )
    totals.add(counted, {position: version.experiment.id for position, version in versions.items()})
