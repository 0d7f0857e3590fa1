"""Reads a log in an SQLite file back commit by commit. Called by migrations, `check.py` and `archive/`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace

from decider.log.commits import Commit, build_of, commits_of, entries
from decider.log.forgotten import KEY, Originals, Removal, changed_commits, removals
from decider.log.tables import EntryTable
from decider.types import START, Position


def originals(connection: sqlite3.Connection) -> Originals:
    """The digests that a log's commits had before something was removed from them. Raises LogCorrupt where an entry
    that says so is damaged."""
    builds = connection.execute(
        "select position, build from builds where build like ? order by position", (f"%{KEY}%",)
    )
    return Originals(changed_commits([build_of(*row) for row in builds]))


def removals_behind(connection: sqlite3.Connection, after: Position, last: Position) -> tuple[Removal, ...]:
    """What entries behind `last` say to have removed in (after, last]; without its commits. Raises LogCorrupt."""
    builds = connection.execute(
        "select position, build from builds where build like ? and position > ? order by position", (f"%{KEY}%", last)
    )
    return tuple(
        replace(one, commits=())
        for one in removals([build_of(*row) for row in builds])
        if any(after < changed.first <= last for changed in one.commits)
    )


def commits(
    connection: sqlite3.Connection,
    tables: Sequence[EntryTable],
    *,
    after: Position = START,
    until: Position,
    longest: int | None = None,
) -> Iterator[Commit]:
    """All commits in (after, until]; memory does not grow with their number. longest: most entries of one."""
    span = (after, until)
    marks = connection.execute("select position from marks where position > ? and position <= ? order by 1", span)
    streams = [entries(table, connection.execute(table.select, span)) for table in tables]
    yield from commits_of(streams, (position for (position,) in marks), longest=longest)
