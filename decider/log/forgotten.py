"""What `decider forget` has removed from a log, as the log's own entries say it. Written by `sqlite/forget.py`; read by
the check of the chain and by `simulator verify`.

Each removal is an entry among the builds, so that the chain covers it. It names the decisions, and for each commit that
it changed the digest of its rows before and after: the chain goes on with the one before. Whoever changes a row and
adds such an entry is not refused, but `verify` lists every removal: compare them with those that you know of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from decider.types import Position

KEY = "forgotten"
"""Of a build that is none, but a removal."""

MADE_UP = "forgotten-"
"""Begins every id that stands in place of a removed one."""


class ChangedCommit(NamedTuple):
    """A commit of which rows were changed, with the digests of its rows."""

    first: Position
    last: Position
    before: bytes
    after: bytes


@dataclass(frozen=True, slots=True)
class Removal:
    """What one entry removed. context: whether features and context fields went, too."""

    decisions: tuple[Position, ...]
    context: bool
    commits: tuple[ChangedCommit, ...]

    def to_build(self) -> Mapping[str, Any]:
        """The content of the entry."""
        commits = [[one.first, one.last, one.before.hex(), one.after.hex()] for one in self.commits]
        return {KEY: {"decisions": self.decisions, "context": self.context, "commits": commits}}


def removals(builds: Iterable[Mapping[str, Any]]) -> list[Removal]:
    """The removals among the builds, in their order. Raises ValueError for a damaged one."""
    return [_from_content(build[KEY]) for build in builds if KEY in build]


def _from_content(content: Any) -> Removal:
    try:
        return Removal(
            tuple(map(Position, content["decisions"])),
            bool(content["context"]),
            tuple(
                ChangedCommit(Position(first), Position(last), bytes.fromhex(before), bytes.fromhex(after))
                for first, last, before, after in content["commits"]
            ),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"an entry of what was forgotten is damaged: {error!r}") from error


class Originals:
    """The digests that changed commits had when they were acknowledged."""

    def __init__(self, made: Iterable[Removal]) -> None:
        self._before = {(one.first, one.last, one.after): one.before for removal in made for one in removal.commits}

    def digest(self, first: Position, last: Position, now: bytes) -> bytes:
        """What the digest of a commit's rows was; the one of today where nothing of it was removed."""
        seen: set[bytes] = set()
        while now not in seen and (before := self._before.get((first, last, now))):  # forged entries may form a circle
            seen.add(now)
            now = before
        return now
