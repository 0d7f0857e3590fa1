"""What rewards by unit need: which units are one person, which of their decisions are open, what was credited.
Called by the writer inside of a commit, by the reader and by `forgetting.py`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence

from decider.experiment.attribution import OpenDecision, SameId
from decider.experiment.definition import ExperimentVersion
from decider.log.chain import REFUSED_BITS
from decider.log.commit_tables import CreditedReward
from decider.log.forgotten import MADE_UP
from decider.log.protocol import MOST_OPEN, MOST_UNITS, DecisionRef, DirectReward, UnitRewardRef
from decider.log.sqlite.archived import archived_sum
from decider.types import ExperimentId, Position, Time

AT_ONCE = 500
"""Rows that are deleted in one transaction, while writers wait."""

UNITS = """
select unit_id from persons where person = (select person from persons where unit_id = :unit) union select :unit
order by 1
"""
"""All units of the person that a unit is; itself where it was never linked."""

PERSONS = """
select unit_id, name from persons join (select person, min(unit_id) as name from persons group by person) using (person)
"""

_JOIN = """
insert into persons (unit_id, person) select value, :person from json_each(:units) where true
on conflict (unit_id) do update set person = excluded.person
"""

_LINKS = """
select position, unit_id, same_as from links where unit_id not glob :made_up and same_as not glob :made_up
order by position
"""

UNIT_REWARD = """
select position, name, last, experiment from unit_rewards
where unit_id in (select value from json_each(:units)) and reward_id = :id
order by unit_id = :unit desc, position desc limit 1
"""
"""That of the unit itself, where it has one: before two units were linked both may have used the same id."""

_CREDITED = """
select r.decision, r.position, r.name, r.weight from unit_rewards u
  join rewards r on r.position > u.position and r.position <= u.last
where u.position = ? order by r.position
"""

CREDITS = """
select d.decision_id, d.position, d.time, d.version, d.action, r.value * r.weight as worth from unit_rewards u
  join rewards r on r.position > u.position and r.position <= u.last join decisions d on d.position = r.decision
where u.position = ? order by r.position
"""

_OPEN = f"""
select d.position, d.version, a.position is not null as activated, a.action is not null as overridden
from creditable_decisions u join decisions d on d.position = u.decision and d.unit_id = u.unit_id
  left join activations a on a.decision = d.position
where u.unit_id in (select value from json_each(:units)) and u.until > :at
  and not exists (select 1 from seals s where s.decision = u.decision)
  and (:experiment is null or d.version in (select position from experiments where experiment = :experiment))
order by u.decision desc limit {MOST_OPEN}
"""  # noqa: S608 - a number

# Those that a final reward has closed, too.
_SAME_ID = f"""
select r.decision, e.experiment, r.name
from (select unit_id, decision from creditable_decisions
    where unit_id in (select value from json_each(:units)) and until > :at order by decision desc limit {MOST_OPEN}) u
  join decisions d on d.position = u.decision and d.unit_id = u.unit_id join experiments e on e.position = d.version
  join rewards r on r.decision = u.decision and r.reward_id = :id
where :experiment is null or e.experiment = :experiment
"""  # noqa: S608 - a number

# Those that named a decision: what is credited of a reward by unit of the person lies just behind it.
_BY_DECISION = f"""
select d.decision_id, d.position, d.time, d.version, d.action, r.position as reward, r.name, r.value, r.weight
from (select unit_id, decision from creditable_decisions
    where unit_id in (select value from json_each(:units)) and until > :at order by decision desc limit {MOST_OPEN}) u
  join decisions d on d.position = u.decision and d.unit_id = u.unit_id join experiments e on e.position = d.version
  join rewards r on r.decision = u.decision and r.reward_id = :id
where (:experiment is null or e.experiment = :experiment) and not exists (
  select 1 from unit_rewards s where s.reward_id = r.reward_id and r.position > s.position and r.position <= s.last)
order by d.position
"""  # noqa: S608 - a number

# As the trigger `counted_by_unit`.
_CREDITED_IN_EXPERIMENT = """
select u.position, u.name from decisions d join experiments e on e.position = d.version
  join unit_rewards u on u.reward_id = :id and (:name = '' or u.name in (:name, ''))
    and u.unit_id in (select d.unit_id union all select p.unit_id from persons p
      where p.person = (select person from persons where unit_id = d.unit_id))
where d.position = :decision and exists (
  select 1 from rewards r cross join decisions c on c.position = r.decision
    cross join experiments ce on ce.position = c.version
  where r.position > u.position and r.position <= u.last and ce.experiment = e.experiment)
order by u.unit_id = d.unit_id desc, u.position desc limit 1
"""

_DROP_OVER = f"""
delete from creditable_decisions where (unit_id, decision) in (
  select unit_id, decision from creditable_decisions where until <= ? order by until limit {AT_ONCE})
"""  # noqa: S608 - a number

_ROWS_OF_PERSONS = """
select unit_id, person from persons where unit_id in (select value from json_each(?)) order by unit_id
"""

_COUNT_SUM = f"update row_sums set sum = (sum + ?) & {REFUSED_BITS} where name = 'persons'"  # noqa: S608 - a number

_FORGET_PERSON = """
delete from persons where unit_id = :unit or (
  person = (select person from persons where unit_id = :unit)
  and (select count(*) from persons where person = (select person from persons where unit_id = :unit)) = 2)
returning unit_id, person
"""


def units_of(connection: sqlite3.Connection, unit: str) -> Sequence[str]:
    """All units of the person that a unit is."""
    return [row[0] for row in connection.execute(UNITS, {"unit": unit})]


def find_unit_reward(
    connection: sqlite3.Connection, unit: str, units: Sequence[str], reward_id: str
) -> UnitRewardRef | None:
    """The reward with this id by a unit, or by another one of its person's."""
    row = connection.execute(UNIT_REWARD, {"unit": unit, "units": json.dumps(units), "id": reward_id}).fetchone()
    return UnitRewardRef(*row) if row else None


def open_decisions(
    connection: sqlite3.Connection,
    version_at: Callable[[Position], ExperimentVersion],
    units: Sequence[str],
    experiment: ExperimentId | None,
    at: Time,
) -> Iterator[OpenDecision]:
    """The newest decisions of these units that a reward by unit may be credited to at a time."""
    parameters = {"units": json.dumps(units), "experiment": experiment, "at": at}
    for position, version, activated, overridden in connection.execute(_OPEN, parameters).fetchall():
        yield OpenDecision(position, version_at(version), bool(activated), bool(overridden))


def same_id(
    connection: sqlite3.Connection, units: Sequence[str], experiment: ExperimentId | None, at: Time, reward_id: str
) -> Sequence[SameId]:
    """The rewards with this id of these units' newest decisions, whose windows would be open at a time."""
    parameters = {"units": json.dumps(units), "experiment": experiment, "at": at, "id": reward_id}
    return [SameId(*row) for row in connection.execute(_SAME_ID, parameters)]


def by_decision(
    connection: sqlite3.Connection, units: Sequence[str], experiment: ExperimentId | None, at: Time, reward_id: str
) -> Sequence[DirectReward]:
    """The rewards with this id that named one of these units' newest decisions, whose windows would be open."""
    parameters = {"units": json.dumps(units), "experiment": experiment, "at": at, "id": reward_id}
    return [
        DirectReward(id_, DecisionRef(*place), *reward)
        for id_, *place, reward in (
            (row[0], row[1], row[2], row[3], row[4], row[5:])
            for row in connection.execute(_BY_DECISION, parameters).fetchall()
        )
    ]


def credited_in_experiment(
    connection: sqlite3.Connection, decision: Position, reward_id: str, name: str
) -> tuple[Position, str] | None:
    """The reward by unit, and its name, that the experiment of a decision has under this id."""
    parameters = {"decision": decision, "id": reward_id, "name": name}
    row: tuple[Position, str] | None = connection.execute(_CREDITED_IN_EXPERIMENT, parameters).fetchone()
    return row


def credited_rewards(connection: sqlite3.Connection, unit_reward: Position) -> Sequence[CreditedReward]:
    """What belongs to a reward by unit."""
    return [CreditedReward(*row) for row in connection.execute(_CREDITED, (unit_reward,))]


def join_persons(connection: sqlite3.Connection, unit: str, same_as: str, person: Position) -> bool:
    """Make them one person, where they are not and it does not get too many units; whether that was done."""
    ours, theirs = units_of(connection, unit), units_of(connection, same_as)
    if same_as in ours or len(ours) + len(theirs) > MOST_UNITS:
        return False
    units = json.dumps([*ours, *theirs])
    before = connection.execute(_ROWS_OF_PERSONS, (units,)).fetchall()
    connection.execute(_JOIN, {"units": units, "person": person})
    added = sum_of_persons((unit, person) for unit in (*ours, *theirs)) - sum_of_persons(before)
    connection.execute(_COUNT_SUM, (added & REFUSED_BITS,))
    return True


def join_all(connection: sqlite3.Connection) -> None:
    """Make the persons that the links of the log say. Links of forgotten units join nobody."""
    for position, unit, same_as in connection.execute(_LINKS, {"made_up": f"{MADE_UP}*"}).fetchall():
        join_persons(connection, unit, same_as, position)


def sum_of_persons(rows: Iterable[Sequence[str | int]]) -> int:
    """What rows of `persons` (unit, person) add to the checksum over all."""
    return sum(archived_sum(row) for row in rows) & REFUSED_BITS


def has_over(connection: sqlite3.Connection, at: Time) -> bool:
    """Whether the window of a decision of `creditable_decisions` is over."""
    return (
        connection.execute("select 1 from creditable_decisions where until <= ? limit 1", (at,)).fetchone() is not None
    )


def drop_over(connection: sqlite3.Connection, at: Time) -> None:
    """Delete some of those."""
    connection.execute(_DROP_OVER, (at,))


def forget_unit(connection: sqlite3.Connection, unit: str) -> Sequence[str]:
    """Nothing links a unit any more, and no reward reaches its decisions. Returns the others of its person."""
    others = [one for one in units_of(connection, unit) if one != unit]
    gone = connection.execute(_FORGET_PERSON, {"unit": unit}).fetchall()
    connection.execute(_COUNT_SUM, (-sum_of_persons(gone) & REFUSED_BITS,))
    connection.execute("delete from creditable_decisions where unit_id = ?", (unit,))
    return others
