"""What `decider forget` has removed from a log, as the log's own entries say it. Written by `sqlite/forget.py` and
`postgres/forgetting.py`; read by the check of the chain and by `simulator verify`.

Each removal is an entry among the builds, so that the chain covers it. It names the decisions, and for each commit that
it changed the digest of its rows before and after: the chain goes on with the one before. Whoever changes a row and
adds such an entry is not refused, but `verify` lists every removal: compare them with those that you know of.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from decider.errors import LogCorrupt
from decider.types import ExperimentId, Position, Time

KEY = "forgotten"
"""Of a build that is none, but a removal."""

MADE_UP = "forgotten-"
"""Begins every id that stands in place of a removed one."""


def made_up_id() -> str:
    """An id that says nothing."""
    return f"{MADE_UP}{secrets.token_hex(8)}"


class ChangedCommit(NamedTuple):
    """A commit of which rows were changed, with the digests of its rows."""

    first: Position
    last: Position
    before: bytes
    after: bytes

    def to_json(self) -> list[int | str]:
        """As it is written in entries and parts of an archive."""
        return [self.first, self.last, self.before.hex(), self.after.hex()]

    @classmethod
    def from_json(cls, content: Sequence[Any]) -> ChangedCommit:
        """What `to_json` gave. Raises ValueError or TypeError where it did not."""
        first, last, before, after = content
        return cls(Position(int(first)), Position(int(last)), bytes.fromhex(before), bytes.fromhex(after))


@dataclass(frozen=True, slots=True)
class Removal:
    """What one entry removed. sealed: by experiment, when the first window was over of a decision whose features and
    context fields went, too; what was learned from then on cannot be recomputed."""

    decisions: tuple[Position, ...]
    sealed: Mapping[ExperimentId, Time]
    commits: tuple[ChangedCommit, ...]

    def to_build(self) -> Mapping[str, Any]:
        """The content of the entry."""
        commits = [one.to_json() for one in self.commits]
        return {KEY: {"decisions": self.decisions, "sealed": self.sealed, "commits": commits}}


def removals(builds: Iterable[Mapping[str, Any]]) -> list[Removal]:
    """The removals among the builds, in their order. Raises LogCorrupt for a damaged one."""
    return [_from_content(build[KEY]) for build in builds if KEY in build]


def _from_content(content: Any) -> Removal:
    try:
        return Removal(
            tuple(map(Position, content["decisions"])),
            {ExperimentId(id_): Time(int(time)) for id_, time in content["sealed"].items()},
            tuple(map(ChangedCommit.from_json, content["commits"])),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LogCorrupt(f"an entry of what was forgotten is damaged: {error!r}") from error


def changed_commits(builds: Iterable[Mapping[str, Any]]) -> list[ChangedCommit]:
    """Of all removals among the builds. Raises LogCorrupt."""
    return [one for removal in removals(builds) for one in removal.commits]


class Originals:
    """The digests that changed commits had when they were acknowledged. are_known: there are some."""

    def __init__(self, changed: Iterable[ChangedCommit]) -> None:
        self._changed = tuple(changed)
        self.are_known = bool(self._changed)
        self._before = {(one.first, one.last, one.after): one.before for one in self._changed}

    def with_more(self, changed: Iterable[ChangedCommit]) -> Originals:
        """These, and others."""
        return Originals((*self._changed, *changed))

    def between(self, after: Position, last: Position) -> tuple[ChangedCommit, ...]:
        """The changed commits in (after, last]."""
        return tuple(one for one in self._changed if after < one.first and one.last <= last)

    def digest(self, first: Position, last: Position, now: bytes) -> bytes:
        """What the digest of a commit's rows was; the one of today where nothing of it was removed."""
        seen: set[bytes] = set()
        while now not in seen and (before := self._before.get((first, last, now))):  # forged entries may form a circle
            seen.add(now)
            now = before
        return now
