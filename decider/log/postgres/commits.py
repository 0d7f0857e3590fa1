"""Reads a log in PostgreSQL back commit by commit. Called by `check.py`, `checkpoints.py` and `forgetting.py`."""

from __future__ import annotations

from collections.abc import Generator

from decider.log import chain
from decider.log.commits import Commit, build_of, commits_of, entries
from decider.log.forgotten import KEY, Originals, changed_commits
from decider.log.postgres.connection import Connection, read, read_one, stream
from decider.log.postgres.statements import select
from decider.log.protocol import Head
from decider.log.tables import ENTRY_TABLES
from decider.types import START, Position, Time

_MARKS = "select position from marks where position > %(after)s and position <= %(until)s order by 1"


_REMOVALS = "select position, build from builds where build like %(key)s order by position"


def originals(connection: Connection) -> Originals:
    """The digests that a log's commits had before something was removed from them. Raises LogCorrupt where an entry
    that says so is damaged."""
    builds = read(connection, _REMOVALS, {"key": f"%{KEY}%"})
    return Originals(changed_commits([build_of(*row) for row in builds]))


def begin_of_chain(connection: Connection) -> Head:
    """Before the first entry."""
    start = read_one(connection, "select position, at from chain_start")
    return Head(START, Time(0), chain.start(*start) if start else chain.EMPTY)


def commits(connection: Connection, *, after: Position = START, until: Position) -> Generator[Commit, None, None]:
    """All commits in (after, until], in the caller's transaction; memory does not grow with their number."""
    span = {"after": after, "until": until}
    marks = (row[0] for row in stream(connection, _MARKS, span))
    streams = [entries(table, stream(connection, select(table), span)) for table in ENTRY_TABLES]
    yield from commits_of(streams, marks)
