"""A log commit by commit, in order of position, as the chain covers it, out of streams of entries. Called by everybody
who checks or copies a log.

A commit ends where the time changes or where a mark stands.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import merge
from operator import itemgetter
from typing import Any, NamedTuple

from decider.errors import LogCorrupt
from decider.log import chain
from decider.log.forgotten import Originals
from decider.log.protocol import Head
from decider.log.tables import EntryTable
from decider.types import Position, Time


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


def build_of(position: Position, text: str) -> Mapping[str, Any]:
    """The build in a row. Raises LogCorrupt."""
    try:
        build: Mapping[str, Any] = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise LogCorrupt(f"the build at position {position} is damaged: {error}") from error
    if not isinstance(build, dict):
        raise LogCorrupt(f"the build at position {position} is damaged: it is no object")
    return build


def leaves_mark(head: Head, after: Head) -> bool:
    """Whether a commit leaves a mark at the old head; the trigger `leave_mark` in schema.sql has the same rule."""
    return head.position > 0 and (head.time == after.time or head.position // 1024 < after.position // 1024)


_Entry = tuple[int, int, str, Sequence[Any]]


def entries(table: EntryTable, rows: Iterable[Sequence[Any]]) -> Iterator[_Entry]:
    """The entries in rows that hold position, time, then the table's columns."""
    for position, time, *row in rows:
        yield position, time, table.kind, row


def commits_of(
    streams: Sequence[Iterator[_Entry]], marks: Iterator[int], *, longest: int | None = None
) -> Iterator[Commit]:
    """All commits in streams of entries, each in order of position. marks: positions, rising."""
    mark = next(marks, None)
    commit: list[_Entry] = []
    for entry in merge(*streams, key=itemgetter(0)):
        marked = False
        while mark is not None and mark < entry[0]:
            marked = True
            mark = next(marks, None)
        if commit and (marked or entry[1] != commit[-1][1] or len(commit) == longest):
            yield _commit(commit)
            commit = []
        commit.append(entry)
    if commit:
        yield _commit(commit)


def _commit(entries: list[_Entry]) -> Commit:
    return Commit(
        Position(entries[0][0]),
        Position(entries[-1][0]),
        Time(entries[0][1]),
        [kind for _, _, kind, _ in entries],
        [row for _, _, _, row in entries],
        gapless=all(entry[0] == position for position, entry in enumerate(entries, entries[0][0])),
    )
