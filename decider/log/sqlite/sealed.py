"""Sealed decisions in the order in which they were sealed, in pages. Called by `reader.py`.

Between two pages nothing of the log is held: a reader that keeps the state of some minutes ago, as one that learns a
long log would, keeps the write-ahead log from being written back. It is exact all the same. What is sealed never
changes, and nothing is sealed before it any more. A page is read in one transaction, so a decision that is being
archived is in `decisions` or in `archived_decisions`. And each page asks again what has to be read from the archive.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from decider.experiment.definition import ExperimentVersion
from decider.log.protocol import SealedDecision
from decider.log.sqlite.archived import archived_sealed, read_cut
from decider.log.sqlite.deadlines import FIRST_DEADLINES_OF, due_until
from decider.log.sqlite.merge import merge
from decider.log.sqlite.read_rows import SEALED_DECISION, decision, read
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
CLOSED_DECISIONS_OF_VERSION = f"""
select {SEALED_DECISION.columns}
from (select decision as closed, time as closed_at from seals
  where version = :version and time >= :after and time < :until and decision > :cut)
  cross join decision_rewards on position = closed
order by closed_at, closed, reward_position
"""  # noqa: S608 - constants
"""Those that a final reward has closed; all others are in SEALED_DECISIONS_OF_VERSION."""

_COMPLETE_AFTER = "select complete_after from archived_experiments where experiment = ?"


class Place(NamedTuple):
    """Of a decision in the order of sealing."""

    deadline: Time
    position: Position


LAST = Position(2**63 - 1)
END = Place(Time(2**63 - 1), LAST)


class Page(NamedTuple):
    """Sealed decisions in their order. is_last: the log has no more."""

    decisions: Sequence[SealedDecision]
    is_last: bool


def place_of(sealed: SealedDecision) -> Place:
    """Where a decision stands."""
    return Place(sealed.deadline, sealed.position)


def cut_to_read(connection: sqlite3.Connection, experiment: ExperimentId, after: Time) -> Position:
    """Up to where what is sealed after a time must be read from the archive; START: the log has all of it."""
    row = connection.execute(_COMPLETE_AFTER, (experiment,)).fetchone()
    return read_cut(connection).position if row is not None and after < row[0] else START


def sealed_page(
    connection: sqlite3.Connection,
    version_at: Callable[[Position], ExperimentVersion],
    experiment: ExperimentId,
    *,
    beyond: Place,
    until: Time,
    cut: Position,
) -> Page:
    """The next decisions that the log has. cut: what lies up to there is left out."""
    after = first_after(beyond)
    due = due_until(read(connection, FIRST_DEADLINES_OF, {"after": after, "experiment": experiment}), until)
    streams = [
        ((deadline, START), _of_version(connection, sql, version_at(version), after=after, until=until, cut=cut))
        for version, deadline in due.items()
        for sql in (SEALED_DECISIONS_OF_VERSION, CLOSED_DECISIONS_OF_VERSION)
    ]
    if cut == START:
        kept = archived_sealed(connection, version_at, experiment, after=after, until=until)
        streams.append(((after, START), kept))
    merged = merge(streams, key=attrgetter("deadline", "position"))
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
    return beyond.deadline if beyond.position == LAST else Time(beyond.deadline - 1)


def _of_version(
    connection: sqlite3.Connection, sql: str, version: ExperimentVersion, *, after: Time, until: Time, cut: Position
) -> Iterator[SealedDecision]:
    parameters = {"version": version.position, "after": after, "until": until, "cut": cut}
    rows = read(connection, sql, parameters, SEALED_DECISION)
    for _, group in groupby(rows, key=attrgetter("position")):
        joined = list(group)
        first = joined[0]
        yield SealedDecision(
            position=first.position,
            deadline=first.deadline,
            decision=decision(first, version.all_active),
            rewards=tuple([row.reward for row in joined if row.reward is not None]),
            overridden=bool(first.overridden),
            activated=bool(first.activated),
            shown=first.shown,
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
