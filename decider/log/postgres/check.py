"""Checks that a log holds what was acknowledged. Called by `reader.py` for `simulator verify`.

It computes the chain anew, and compares it at every mark and at the end. Not covered yet, other than in SQLite: what
follows from entries (persons, assignments, exposures), refused rewards, stored models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from decider.log.chain_check import ChainCheck
from decider.log.postgres.commits import begin_of_chain, commits, originals
from decider.log.postgres.connection import Connection, read, read_one
from decider.log.protocol import Damage, Head, OnProgress
from decider.log.tables import ENTRY_TABLES
from decider.types import Position


def check(connection: Connection, on_progress: OnProgress) -> Sequence[Damage]:
    """All damage of a log, from the snapshot of the caller's transaction."""
    end = Head(*read_one(connection, "select position, time, chain from head"))
    return [*_check_chain(connection, end, on_progress), *_check_nothing_behind(connection, end.position)]


def _check_chain(connection: Connection, end: Head, on_progress: OnProgress) -> Iterator[Damage]:
    marks = dict(read(connection, "select position, chain from marks"))
    following = ChainCheck(begin_of_chain(connection), end, marks, originals(connection))
    yield from following.follow(commits(connection, until=end.position), on_progress)


def _check_nothing_behind(connection: Connection, end: Position) -> Iterator[Damage]:
    for table in ENTRY_TABLES:
        sql = f"select min(position), max(position) from {table.name} where position > %(end)s"  # noqa: S608
        first, last = read_one(connection, sql, {"end": end})
        if first is not None:
            yield Damage(first, last, f"stand in {table.name}, behind the end of the log")
