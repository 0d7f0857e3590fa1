"""Sealed decisions in the order in which they were sealed, in pages. Called by `reader.py`.

Between two pages nothing of the log is held: a reader that keeps the state of some minutes ago, as one that learns a
long log would, keeps the write-ahead log from being written back. It is exact all the same. What is sealed never
changes, and nothing is sealed before it any more. A page is read in one transaction, so a decision that is being
archived is in `decisions` or in `archived_decisions`. And each page asks again what has to be read from the archive.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from decider.experiment.aggregate import NamedReward
from decider.experiment.definition import ExperimentVersion
from decider.log.protocol import END, Mark, SealedDecision
from decider.log.rows import DECISION, SEALED_DECISION, damage_as_log_corrupt, decision, row_type
from decider.log.sqlite.archived import ArchivedSealed, archived_sealed, read_cut
from decider.log.sqlite.deadlines import FIRST_DEADLINES_OF, due_until
from decider.log.sqlite.merge import merge
from decider.log.sqlite.read_rows import read
from decider.types import START, Decision, ExperimentId, Position, Time

PAGE, PAGE_VALUES = 1_000, 100_000
"""Decisions that are read at once, at most; and values in them (features, places of pmfs), about: calls may have
thousands."""

SEALED_DECISIONS_OF_VERSION = f"""
select {SEALED_DECISION.columns} from decision_rewards
where version = :version and time > :after - window and time <= :until - window and position > :cut
  and seal is null
order by time, position, reward_position
"""  # noqa: S608 - constants

# `cross join`: from the seals to their decisions, in the order of the index; so nothing is sorted but rewards.
_FROM_CLOSED = """
from (select decision as closed, time as closed_at from seals
  where version = :version and time >= :after and time < :until and decision > :cut)
"""
CLOSED_DECISIONS_OF_VERSION = f"""
select {SEALED_DECISION.columns}
{_FROM_CLOSED} cross join decision_rewards on position = closed
order by closed_at, closed, reward_position
"""
"""Those that a final reward has closed; all others are in SEALED_DECISIONS_OF_VERSION."""

CAME_BEFORE = """(case when w.seal is null then {0}.time < w.deadline else {0}.position < w.seal end
  or (w.deadline <= :late_time and {0}.position <= :late))"""
"""In SQL: a reward, or a change of one, came in its decision's window; or late, and the window was over at `late`."""

_WITH_LATE = row_type(f"{DECISION.columns}, deadline, overridden, activated, shown, name, in_force, weight")

_SELECT_WITH_LATE = f"""
select {", ".join(f"w.{column}" for column in DECISION.columns.split(", "))}, w.deadline, w.overridden, w.activated,
  w.shown, r.name, case when c.position is null then r.value else c.value end as in_force, r.weight
"""
_JOIN_REWARDS = f"""
  left join rewards r on r.decision = w.position and {CAME_BEFORE.format("r")}
  left join reward_changes c on c.position = (select max(last.position) from reward_changes last
    where last.reward = r.position and {CAME_BEFORE.format("last")})
"""  # noqa: S608 - constants
SEALED_WITH_LATE_OF_VERSION = f"""
{_SELECT_WITH_LATE} from decision_windows w {_JOIN_REWARDS}
where w.version = :version and w.time > :after - w.window and w.time <= :until - w.window and w.position > :cut
  and w.seal is null
order by w.time, w.position, r.position
"""
CLOSED_WITH_LATE_OF_VERSION = f"""
{_SELECT_WITH_LATE} {_FROM_CLOSED} cross join decision_windows w on w.position = closed {_JOIN_REWARDS}
order by closed_at, closed, r.position
"""
"""As the view `decision_rewards`, but for what CAME_BEFORE says."""

_COMPLETE_AFTER = "select complete_after from archived_experiments where experiment = ?"


class Place(NamedTuple):
    """Of a decision in the order of sealing."""

    deadline: Time
    position: Position


Span = Mapping[str, int]
"""after, until: times in which windows ended; cut: decisions up to there are left out."""

Stream = Iterator[SealedDecision]


LAST_PLACE = Place(Time(2**63 - 1), END)


class Page(NamedTuple):
    """Sealed decisions in their order. is_last: the log has no more."""

    decisions: Sequence[SealedDecision]
    is_last: bool


def place_of(sealed: SealedDecision) -> Place:
    """Where a decision stands."""
    return Place(sealed.deadline, sealed.position)


class InTimeRows:
    """The rewards that came in the window."""

    def cut_to_read(self, connection: sqlite3.Connection, experiment: ExperimentId, after: Time) -> Position:
        """Up to where what is sealed after a time must be read from the archive; START: the log has all of it."""
        row = connection.execute(_COMPLETE_AFTER, (experiment,)).fetchone()
        return read_cut(connection).position if row is not None and after < row[0] else START

    def of_version(
        self, connection: sqlite3.Connection, version: ExperimentVersion, span: Span, *, closed: bool
    ) -> Stream:
        """Decisions of a version whose window ended in a span: those that a final reward has closed, or the others."""
        sql = CLOSED_DECISIONS_OF_VERSION if closed else SEALED_DECISIONS_OF_VERSION
        for group in _by_decision(read(connection, sql, {"version": version.position, **span}, SEALED_DECISION)):
            rewards = [row.reward for row in group if row.reward is not None]
            yield _sealed(group[0], version, tuple(rewards))

    def kept(self, archived: ArchivedSealed) -> SealedDecision:
        """An archived decision that the log has kept."""
        return archived.sealed


class WithLateRows:
    """Every reward up to a mark, where the window was over there."""

    def __init__(self, late: Mark) -> None:
        self._late = late

    def cut_to_read(self, connection: sqlite3.Connection, experiment: ExperimentId, after: Time) -> Position:
        """As of InTimeRows. Rewards that came late lie in the archive."""
        row = connection.execute(_COMPLETE_AFTER, (experiment,)).fetchone()
        return read_cut(connection).position if row is not None and after < max(row[0], self._late.time) else START

    def of_version(
        self, connection: sqlite3.Connection, version: ExperimentVersion, span: Span, *, closed: bool
    ) -> Stream:
        """As of InTimeRows."""
        sql = CLOSED_WITH_LATE_OF_VERSION if closed else SEALED_WITH_LATE_OF_VERSION
        late = {"late": self._late.position, "late_time": self._late.time}
        values = {"version": version.position, **span, **late}
        for group in _by_decision(read(connection, sql, values, _WITH_LATE)):
            counted = [row for row in group if row.in_force is not None]
            sealed = _sealed(group[0], version, tuple([row.in_force * row.weight for row in counted]))
            yield replace(sealed, named=tuple([NamedReward(row.name, row.in_force) for row in counted]))

    def kept(self, archived: ArchivedSealed) -> SealedDecision:
        """As of InTimeRows. It was sealed behind the mark, so its rewards are those in time."""
        return replace(archived.sealed, named=archived.named)


def sealed_page(
    connection: sqlite3.Connection,
    version_at: Callable[[Position], ExperimentVersion],
    experiment: ExperimentId,
    which: InTimeRows | WithLateRows,
    *,
    beyond: Place,
    until: Time,
    cut: Position,
) -> Page:
    """The next decisions that the log has. cut: what lies up to there is left out."""
    after = first_after(beyond)
    ends = list(read(connection, FIRST_DEADLINES_OF, {"after": after, "experiment": experiment}))
    due, closed = due_until(ends, until), {row["position"] for row in ends if (row["closed"] or END) <= until}
    span: Span = {"after": after, "until": until, "cut": cut}
    streams = [
        ((deadline, START), which.of_version(connection, version_at(version), span, closed=early))
        for version, deadline in due.items()
        for early in ((False, True) if version in closed else (False,))
    ]
    if cut == START:
        kept = archived_sealed(connection, version_at, experiment, after=after, until=until)
        streams.append(((after, START), map(which.kept, kept)))
    merged = merge(streams, key=attrgetter("deadline", "position"))
    with damage_as_log_corrupt(f"a sealed decision of {experiment} whose window ended after {after}"):
        return _page(sealed for sealed in merged if place_of(sealed) > beyond)


def _page(decisions: Iterator[SealedDecision]) -> Page:
    found: list[SealedDecision] = []
    values = 0
    for sealed in decisions:
        found.append(sealed)
        values += _values(sealed.decision)
        if len(found) == PAGE or values >= PAGE_VALUES:
            return Page(found, is_last=False)
    return Page(found, is_last=True)


def _values(decision: Decision) -> int:
    return len(decision.pmf) + len(decision.context.features) + sum(map(len, decision.action_features.values()))


def first_after(beyond: Place) -> Time:
    """The time after which all windows beyond a place end: others may end at its very time."""
    return beyond.deadline if beyond.position == END else Time(beyond.deadline - 1)


def _by_decision(rows: Iterator[Any]) -> Iterator[list[Any]]:
    """A decision's rows stand one after the other."""
    return (list(group) for _, group in groupby(rows, key=attrgetter("position")))


def _sealed(row: Any, version: ExperimentVersion, rewards: tuple[float, ...]) -> SealedDecision:
    return SealedDecision(
        position=row.position,
        time=row.time,
        deadline=row.deadline,
        decision=decision(row, version.all_active),
        rewards=rewards,
        overridden=bool(row.overridden),
        activated=bool(row.activated),
        shown=row.shown,
    )


class ArchiveStream:
    """Sealed decisions from the parts of an archive up to a cut, taken piece by piece."""

    def __init__(self, cut: Position, decisions: Iterator[SealedDecision]) -> None:
        self.cut = cut
        self._decisions = decisions
        self._next: SealedDecision | None = None

    def up_to(self, last: Place) -> Iterator[SealedDecision]:
        """The next ones, up to a place."""
        while True:
            if self._next is None:
                self._next = next(self._decisions, None)
            if self._next is None or place_of(self._next) > last:
                return
            found, self._next = self._next, None
            yield found
