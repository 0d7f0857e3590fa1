"""A log in PostgreSQL out of which units are removed. See ForgettingLog in `protocol.py`; made by `open.py`.

Each piece is one transaction with the entry that names it, while writers wait: a killed run leaves every decision as it
was or forgotten, and the next one goes on, since what is left of a unit is looked for, not remembered. It needs the
rights of the tables' owner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from itertools import islice

from decider.log import chain
from decider.log.commits import Commit
from decider.log.entry_writer import OpenCommit
from decider.log.forgotten import ChangedCommit, Removal, made_up_id
from decider.log.postgres.checkpoints import known_place
from decider.log.postgres.commits import commits
from decider.log.postgres.connection import Connection, connect, execute, postgres_errors, read, read_one
from decider.log.postgres.units import units_of
from decider.log.postgres.writer import PostgresLog
from decider.log.protocol import Forgotten, Head, NewBuild
from decider.types import ExperimentId, Position, Time

AT_ONCE = 100
"""Decisions of one transaction."""

REACH = 2_048
"""Positions behind one that are looked at, at first, for the end of its commit."""

_TAKE = "select position, time, chain from head for update"
_MOVE = "update head set position = %(position)s, time = %(time)s, chain = %(chain)s"

_OF_UNIT = "select position from decisions where unit_id = %(unit)s order by position"
_STILL_OF_UNIT = "select position from decisions where position = any(%(decisions)s::bigint[]) and unit_id = %(unit)s"
_NAMES_UNIT = f"""
select position from unit_rewards where unit_id = %(unit)s
union all select position from links where %(unit)s in (unit_id, same_as) order by position limit {AT_ONCE}
"""  # noqa: S608 - a number
_REWARDS = """
select position from rewards where decision = any(%(decisions)s::bigint[]) and reward_id is not null order by position
"""
_SEALED = """
select experiment, min(deadline) as deadline from decision_windows where position = any(%(decisions)s::bigint[])
group by experiment
"""
_HISTORY = """
delete from unit_decisions u using decisions d join experiments e on e.position = d.version
where d.position = any(%(decisions)s::bigint[])
  and (u.experiment, u.unit_id, u.decision) = (e.experiment, d.unit_id, d.position)
"""
_DECISION = "update decisions set unit_id = %(unit)s, decision_id = %(id)s where position = %(decision)s"
_EXPOSURE = "update exposures set unit_id = %(unit)s where decision = %(decision)s"
_REWARD = "update rewards set reward_id = %(id)s where position = %(reward)s"
_CONTEXT = """
update decisions set segment = null, device = null, channel = null, location = null, intent_stage = null,
  features = null, action_features = null where position = any(%(decisions)s::bigint[])
"""
_UNIT_REWARD = """
update unit_rewards set unit_id = %(made_up)s, reward_id = case when reward_id is not null then %(id)s end
where position = %(position)s
"""
_LINK = [
    f"update links set {column} = %(made_up)s where position = %(position)s and {column} = %(unit)s"  # noqa: S608
    for column in ("unit_id", "same_as")
]
_BESIDE = (
    "delete from assignments where unit_id = %(unit)s",
    """delete from persons where unit_id = %(unit)s or (
      person = (select person from persons where unit_id = %(unit)s)
      and (select count(*) from persons where person = (select person from persons where unit_id = %(unit)s)) = 2)""",
    "delete from creditable_decisions where unit_id = %(unit)s",
)
_NO_UNIT = "update exposures set unit_id = '' where unit_id = %(unit)s"

_CHANGED_TABLES = (
    "decisions, rewards, unit_rewards, links, assignments, persons, creditable_decisions, exposures, unit_decisions"
)

Change = Callable[[Connection], Removal]


class PostgresForgettingLog(PostgresLog):
    """See ForgettingLog."""

    def forget(self, unit: str, *, pseudonym: bool, context: bool, rebuild: bool) -> Forgotten:
        """See ForgettingLog. What PostgreSQL keeps besides (its write-ahead log, standbys, dumps) is not changed."""
        made_up, found = made_up_id() if pseudonym else None, set[Position]()
        linked = self._forget_beside(unit)
        while self._one(_NAMES_UNIT, unit=unit):
            self._remove(partial(_forget_naming, unit=unit))
        while decisions := [row[0] for row in self._read(_OF_UNIT, unit=unit)]:
            rest = iter(decisions)
            while some := list(islice(rest, AT_ONCE)):
                change = partial(_forget_decisions, unit=unit, decisions=some, pseudonym=made_up, context=context)
                found.update(self._remove(change).decisions)
        with postgres_errors(self.name), closing(connect(self._url)) as connection:  # it may take longer than a commit
            execute(connection, _NO_UNIT, {"unit": unit})
            execute(connection, f"vacuum {'(full)' if rebuild else ''} {_CHANGED_TABLES}")
        return Forgotten(len(found), made_up, cleared=True, parts=[], left=[], linked=linked)

    def _forget_beside(self, unit: str) -> Sequence[str]:
        """Nothing links the unit any more, and no reward reaches its decisions. Returns the others of its person."""
        with self._group.lock, postgres_errors(self.name), self._writer.transaction():
            read_one(self._writer, _TAKE)
            others = [one for one in units_of(self._writer, unit) if one != unit]
            for sql in _BESIDE:
                execute(self._writer, sql, {"unit": unit})
        return others

    def _remove(self, change: Change) -> Removal:
        """Change rows and append the entry that names them, in one transaction."""
        with self._group.lock, postgres_errors(self.name), self._writer.transaction():
            head = Head(*read_one(self._writer, _TAKE))
            removal = change(self._writer)
            commit = OpenCommit(head, Time(max(self._clock(), head.time)))
            self._entries.write(commit, [NewBuild(removal.to_build())])
            execute(self._writer, _MOVE, commit.end()._asdict())
        return removal


def _forget_decisions(
    connection: Connection, *, unit: str, decisions: Sequence[Position], pseudonym: str | None, context: bool
) -> Removal:
    """Change the decisions' rows and those of their rewards. pseudonym: the unit's; None: each decision gets one of its
    own."""
    some = {"decisions": list(decisions)}
    mine = [row[0] for row in read(connection, _STILL_OF_UNIT, {**some, "unit": unit})]
    some = {"decisions": mine}
    rewards = [row[0] for row in read(connection, _REWARDS, some)]
    before = _commits_with(connection, sorted([*mine, *rewards]))
    sealed = (
        {ExperimentId(row[0]): Time(row[1]) for row in read(connection, _SEALED, some)} if context else {}
    )  # fmt: skip
    execute(connection, _HISTORY, some)
    for decision in mine:
        names = {"unit": pseudonym or made_up_id(), "id": made_up_id(), "decision": decision}
        execute(connection, _DECISION, names)
        execute(connection, _EXPOSURE, names)
    for reward in rewards:
        execute(connection, _REWARD, {"id": made_up_id(), "reward": reward})
    if context:
        execute(connection, _CONTEXT, some)
    return Removal(tuple(mine), sealed, _changed(connection, before))


def _forget_naming(connection: Connection, *, unit: str) -> Removal:
    """Put made-up ids in some rewards by unit and links that name a unit. Each gets one of its own: with the same one
    in several links the unit's person could still be put together."""
    positions = [Position(row[0]) for row in read(connection, _NAMES_UNIT, {"unit": unit})]
    before = _commits_with(connection, positions)
    for position in positions:
        execute(connection, _UNIT_REWARD, {"made_up": made_up_id(), "id": made_up_id(), "position": position})
        for sql in _LINK:
            execute(connection, sql, {"made_up": made_up_id(), "position": position, "unit": unit})
    return Removal((), {}, _changed(connection, before))


def _commits_with(connection: Connection, positions: Sequence[Position]) -> Sequence[Commit]:
    """The commits of these positions, which rise."""
    found: list[Commit] = []
    for position in positions:
        if not found or position > found[-1].last:
            found.append(_commit_with(connection, position))
    return found


def _commit_with(connection: Connection, position: Position) -> Commit:
    after, reach = known_place(connection, Position(position - 1)).position, REACH
    while True:
        until = Position(position + reach)
        with closing(commits(connection, after=after, until=until)) as following:
            found = next(commit for commit in following if commit.last >= position)
        if found.last < until:  # else more of it may lie behind
            return found
        reach *= 2


def _changed(connection: Connection, before: Sequence[Commit]) -> tuple[ChangedCommit, ...]:
    """Those of these commits that are not what they were."""
    changed = []
    for old in before:
        (new,) = commits(connection, after=Position(old.first - 1), until=old.last)
        digests = chain.digest(old.kinds, old.rows), chain.digest(new.kinds, new.rows)
        if digests[0] != digests[1]:
            changed.append(ChangedCommit(old.first, old.last, *digests))
    return tuple(changed)
