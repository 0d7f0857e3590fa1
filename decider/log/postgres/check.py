"""Checks that a log holds what was acknowledged. Called by `reader.py` for `simulator verify`.

It computes the chain anew, and compares it at every mark and at the end. Not covered yet, other than in SQLite: what
follows from entries (persons, assignments, exposures), refused rewards, stored models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from decider.log import chain
from decider.log.commits import head_after, leaves_mark
from decider.log.postgres.commits import commits
from decider.log.postgres.connection import Connection, read, read_one
from decider.log.protocol import Damage, Head, OnProgress
from decider.log.tables import ENTRY_TABLES
from decider.types import START, Position, Time

PROGRESS_EVERY = 10_000
"""Entries."""


def check(connection: Connection, on_progress: OnProgress) -> Sequence[Damage]:
    """All damage of a log, from the snapshot of the caller's transaction."""
    end = Head(*read_one(connection, "select position, time, chain from head"))
    return [*_check_chain(connection, end, on_progress), *_check_nothing_behind(connection, end.position)]


def _check_chain(connection: Connection, end: Head, on_progress: OnProgress) -> Iterator[Damage]:
    marks = {row[0]: row[1] for row in read(connection, "select position, chain from marks")}
    place, sound, told = Head(START, Time(0), chain.EMPTY), START, 0
    for commit in commits(connection, until=end.position):
        if not commit.gapless or commit.first != place.position + 1:
            yield Damage(Position(place.position + 1), commit.last, "an entry is missing, or stands there twice")
        after = head_after(place, commit)
        if leaves_mark(place, after) and marks.get(place.position) != place.chain:
            yield Damage(Position(sound + 1), place.position, "were changed: the checksum is another one")
            place = place._replace(chain=marks.get(place.position, place.chain))
            after = head_after(place, commit)
        if leaves_mark(place, after):
            sound = place.position
        place = after
        if place.position // PROGRESS_EVERY > told:
            told = place.position // PROGRESS_EVERY
            on_progress(place.position)
    if place != end:
        yield Damage(Position(sound + 1), end.position, "were changed: the log does not end as it was acknowledged")


def _check_nothing_behind(connection: Connection, end: Position) -> Iterator[Damage]:
    for table in ENTRY_TABLES:
        sql = f"select min(position), max(position) from {table.name} where position > %(end)s"  # noqa: S608
        first, last = read_one(connection, sql, {"end": end})
        if first is not None:
            yield Damage(first, last, f"stand in {table.name}, behind the end of the log")
