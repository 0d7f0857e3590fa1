"""Follows the chain of a log, to find what is not as it was acknowledged. Called by the checks of every database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from decider.log.commits import Commit, head_after, leaves_mark
from decider.log.forgotten import Originals
from decider.log.protocol import Damage, Head, OnProgress
from decider.types import Position

PROGRESS_EVERY = 10_000
"""Entries."""


class ChainCheck:
    """Follows the chain, commit by commit, and compares it with every mark and with the head.

    begin, end: where it begins, and the head. marks: chain by position, from the begin on. originals: of commits out of
    which something was removed.
    """

    def __init__(self, begin: Head, end: Head, marks: Mapping[int, bytes], originals: Originals) -> None:
        self._end = end
        self._marks = dict(marks)
        self._originals = originals
        self._seen = begin
        self._compared = begin.position

    def follow(self, commits: Iterable[Commit], on_progress: OnProgress) -> Iterator[Damage]:
        """What is wrong with all commits from begin to end."""
        told = 0
        for commit in commits:
            yield from self._go_on(commit)
            if commit.last // PROGRESS_EVERY > told:
                told = commit.last // PROGRESS_EVERY
                on_progress(commit.last)
        yield from self._stop()

    def _go_on(self, commit: Commit) -> Iterator[Damage]:
        """What is wrong with the next commit, and with the mark before it."""
        marked = self._marks.pop(self._seen.position, None)
        if marked is not None:
            yield from self._compare(marked)
        elif leaves_mark(self._seen, Head(commit.last, commit.time, b"")):
            yield Damage(self._seen.position, self._seen.position, "the mark that must stand here is missing")
        if commit.first != self._seen.position + 1 or not commit.gapless:
            yield Damage(Position(self._seen.position + 1), commit.last, "a position is missing or taken twice")
        if not isinstance(commit.time, int):  # SQLite stores anything in any column, and a flipped bit makes it so
            yield Damage(commit.first, commit.last, f"the time is {commit.time!r:.40}, which is no whole number")
            commit = commit._replace(time=self._seen.time)
        if commit.time < self._seen.time:
            yield Damage(commit.first, commit.last, "time goes back")
        self._seen = head_after(self._seen, commit, self._originals)

    def _stop(self) -> Iterator[Damage]:
        """What is wrong at the end."""
        if self._seen.position < self._end.position:
            yield Damage(Position(self._seen.position + 1), self._end.position, "entries are missing")
        if self._seen.time != self._end.time:
            yield Damage(self._end.position, self._end.position, "the last entry has another time than the head")
        yield from self._compare(self._end.chain)
        for position in self._marks:
            yield Damage(Position(position), Position(position), "a mark stands where no commit ends")

    def _compare(self, written: bytes) -> Iterator[Damage]:
        """Compare with the chain written here, and go on from the written one, so that damage is reported once."""
        if written != self._seen.chain:
            first = Position(self._compared + 1)
            yield Damage(first, self._seen.position, "an entry was changed, added or taken away")
        self._compared = self._seen.position
        if isinstance(written, bytes):
            self._seen = self._seen._replace(chain=written)
