"""Reads a log back commit by commit, in order of position, as the chain covers it. Called by migrations and `check.py`.

A commit ends where the time changes or where a mark stands.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from heapq import merge
from operator import itemgetter
from typing import Any, NamedTuple

from decider.log import chain
from decider.log.forgotten import Originals
from decider.log.protocol import Head
from decider.log.sqlite.tables import EntryTable
from decider.types import START, Position, Time


class Commit(NamedTuple):
    """The entries of a commit: first and last position, their time, and each one's kind and columns.
    gapless: each position from the first to the last is there once."""

    first: Position
    last: Position
    time: Time
    kinds: Sequence[str]
    rows: Sequence[chain.EntryRow]
    gapless: bool = True


NOTHING_REMOVED = Originals(())


def head_after(head: Head, commit: Commit, originals: Originals = NOTHING_REMOVED) -> Head:
    """The end of a log after a commit. originals: of commits out of which something was removed."""
    digest = originals.digest(commit.first, commit.last, chain.digest(commit.kinds, commit.rows))
    return Head(commit.last, commit.time, chain.link(head.chain, commit.first, commit.time, digest))


def leaves_mark(head: Head, after: Head) -> bool:
    """Whether a commit leaves a mark at the old head; the trigger `leave_mark` in schema.sql has the same rule."""
    return head.position > 0 and (head.time == after.time or head.position // 1024 < after.position // 1024)


_Entry = tuple[int, int, str, tuple[Any, ...]]


def _entries(connection: sqlite3.Connection, table: EntryTable, until: Position) -> Iterator[_Entry]:
    for position, time, *row in connection.execute(table.select, (START, until)):
        yield position, time, table.kind, row


def commits(
    connection: sqlite3.Connection, tables: Sequence[EntryTable], *, until: Position, longest: int | None = None
) -> Iterator[Commit]:
    """All commits up to a position; memory does not grow with their number. longest: most entries of one."""
    marks = connection.execute("select position from marks where position <= ? order by position", (until,))
    mark = next(marks, None)
    entries: list[_Entry] = []
    for entry in merge(*[_entries(connection, table, until) for table in tables], key=itemgetter(0)):
        marked = False
        while mark is not None and mark[0] < entry[0]:
            marked = True
            mark = next(marks, None)
        if entries and (marked or entry[1] != entries[-1][1] or len(entries) == longest):
            yield _commit(entries)
            entries = []
        entries.append(entry)
    if entries:
        yield _commit(entries)


def _commit(entries: list[_Entry]) -> Commit:
    return Commit(
        Position(entries[0][0]),
        Position(entries[-1][0]),
        Time(entries[0][1]),
        [kind for _, _, kind, _ in entries],
        [row for _, _, _, row in entries],
        gapless=all(entry[0] == position for position, entry in enumerate(entries, entries[0][0])),
    )
