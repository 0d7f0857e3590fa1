"""What rewards by unit need, and what of a unit counts for limits. Called by the reader, and by the writer inside of a
commit. The same questions as in sqlite/units.py and sqlite/exposures.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from decider.experiment.attribution import OpenDecision
from decider.experiment.definition import ExperimentVersion
from decider.experiment.limits import Counts
from decider.log.postgres.connection import Connection, read, read_one
from decider.log.protocol import MOST_OPEN, DecisionRef, DirectReward, UnitRewardRef
from decider.types import ExperimentId, Position, Time

VersionAt = Callable[[Position], ExperimentVersion]

UNITS = """
select unit_id from persons where person = (select person from persons where unit_id = %(unit)s)
union select %(unit)s::text
"""

_PERSONS = "select person, unit_id from persons"

_UNIT_REWARD = """
select position, name, last, experiment from unit_rewards
where unit_id = any(%(units)s::text[]) and reward_id = %(id)s
order by unit_id = %(unit)s desc, position desc limit 1
"""

CREDITS = """
select d.decision_id, d.position, d.time, d.version, d.action, r.value * r.weight as worth from unit_rewards u
  join rewards r on r.position > u.position and r.position <= u.last join decisions d on d.position = r.decision
where u.position = %(unit_reward)s order by r.position
"""

_OPEN = f"""
select d.position, d.version, a.position is not null as activated, a.action is not null as overridden
from creditable_decisions u join decisions d on d.position = u.decision and d.unit_id = u.unit_id
  left join activations a on a.decision = d.position
where u.unit_id = any(%(units)s::text[]) and u.until > %(at)s
  and not exists (select 1 from seals s where s.decision = u.decision)
  and (%(experiment)s::text is null
    or d.version in (select position from experiments where experiment = %(experiment)s))
order by u.decision desc limit {MOST_OPEN}
"""  # noqa: S608 - a number

# Rewards with an id of the newest decisions whose windows would be open, if no final reward had closed them.
REWARDS_WITH_ID = f"""
from (select unit_id, decision from creditable_decisions
    where unit_id = any(%(units)s::text[]) and until > %(at)s order by decision desc limit {MOST_OPEN}) u
  join decisions d on d.position = u.decision and d.unit_id = u.unit_id join experiments e on e.position = d.version
  join rewards r on r.decision = u.decision and r.reward_id = %(id)s
where (%(experiment)s::text is null or e.experiment = %(experiment)s)
"""  # noqa: S608 - our names

_BY_DECISION = f"""
select d.decision_id, d.position, d.time, d.version, d.action, r.position as reward, r.name, r.value, r.weight
{REWARDS_WITH_ID} and not exists (
  select 1 from unit_rewards s where s.reward_id = r.reward_id and r.position > s.position and r.position <= s.last)
order by d.position
"""  # noqa: S608 - our names

_OF_CAP = """(select count(*) from (select 1 from exposures
  where unit_id = %(unit)s and experiment = %(experiment)s and {of} = %(of_{index})s and time > %(since_{index})s
    and until > %(at)s and (reserved_until is null or reserved_until > %(at)s) limit %(most_{index})s) c)"""

_SPENT = """
select action, sum(count)::bigint as count from (
  select action, count from daily_counts
  where experiment = %(experiment)s and day_end > %(day_begin)s and day_begin < %(day_end)s
  union all
  select action, -1 from exposures
  where reserved_until <= %(at)s and experiment = %(experiment)s and day_end > %(day_begin)s
    and day_begin < %(day_end)s) c
group by action
"""


def persons(read_rows: Callable[[str], Sequence[Any]]) -> Mapping[str, str]:
    """Each unit of a person of several, and the first one of them. As Python sorts them: stored, U+0000 comes later."""
    units: dict[Position, list[str]] = {}
    for person, unit in read_rows(_PERSONS):
        units.setdefault(person, []).append(unit)
    return {unit: min(of_it) for of_it in units.values() for unit in of_it}


def units_of(connection: Connection, unit: str) -> Sequence[str]:
    """All units of the person that a unit is, sorted."""
    return sorted([row[0] for row in read(connection, UNITS, {"unit": unit})])


def find_unit_reward(connection: Connection, unit: str, persons: Sequence[str], reward_id: str) -> UnitRewardRef | None:
    """The reward with this id by a unit, or by another one of its person's."""
    row = read_one(connection, _UNIT_REWARD, {"unit": unit, "units": list(persons), "id": reward_id})
    return UnitRewardRef(*row) if row else None


def open_decisions(
    connection: Connection,
    version_at: VersionAt,
    persons: Sequence[str],
    experiment: ExperimentId | None,
    at: Time,
) -> Sequence[OpenDecision]:
    """The newest decisions of these units that a reward by unit may be credited to at a time."""
    rows = read(connection, _OPEN, {"units": list(persons), "experiment": experiment, "at": at})
    return [OpenDecision(row[0], version_at(row[1]), row[2], row[3]) for row in rows]


def by_decision(
    connection: Connection, persons: Sequence[str], experiment: ExperimentId | None, at: Time, reward_id: str
) -> Sequence[DirectReward]:
    """The rewards with this id that named one of these units' newest decisions, whose windows would be open."""
    values = {"units": list(persons), "experiment": experiment, "at": at, "id": reward_id}
    return [DirectReward(row[0], DecisionRef(*row[1:5]), *row[5:]) for row in read(connection, _BY_DECISION, values)]


def limit_counts(connection: Connection, version: ExperimentVersion, unit: str, at: Time) -> Counts:
    """What counts for a decision at a time, which is written next."""
    limits = version.limits
    assert limits is not None, "only called for versions with limits"
    day = limits.day(at)
    asked: dict[str, Any] = {
        "experiment": version.experiment.id, "unit": unit, "at": at, "day_begin": day.begin, "day_end": day.end,
    }  # fmt: skip
    spent: Mapping[Any, Any] = dict(read(connection, _SPENT, asked)) if limits.budgets else {}
    for index, cap in enumerate(limits.caps):
        asked |= {f"of_{index}": cap.action or cap.kind, f"since_{index}": at - cap.per, f"most_{index}": cap.most}
    sql = _of_caps(tuple([cap.kind is None for cap in limits.caps]))
    return limits.counts(read_one(connection, sql, asked) if limits.caps else (), spent)


@lru_cache
def _of_caps(of_actions: tuple[bool, ...]) -> str:
    """One statement for all caps. of_actions: of each, whether it is of an action; else it is of a kind."""
    counts = [
        _OF_CAP.format(of="action" if of_action else "kind", index=index) for index, of_action in enumerate(of_actions)
    ]
    return f"select {', '.join(counts)}"
