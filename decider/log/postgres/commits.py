"""Reads a log in PostgreSQL back commit by commit. Called by `check.py` and `checkpoints.py`."""

from __future__ import annotations

from collections.abc import Iterator

from decider.log.commits import Commit, commits_of, entries
from decider.log.postgres.connection import Connection, stream
from decider.log.postgres.statements import select
from decider.log.tables import ENTRY_TABLES
from decider.types import START, Position

_MARKS = "select position from marks where position > %(after)s and position <= %(until)s order by 1"


def commits(connection: Connection, *, after: Position = START, until: Position) -> Iterator[Commit]:
    """All commits in (after, until], in the caller's transaction; memory does not grow with their number."""
    span = {"after": after, "until": until}
    marks = (row[0] for row in stream(connection, _MARKS, span))
    streams = [entries(table, stream(connection, select(table), span)) for table in ENTRY_TABLES]
    yield from commits_of(streams, marks)
