"""What changed in an experiment: versions, and what its learning leaves out; when, by whom, why, in words. Called by
`page.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from decider.experiment.changes import MOST_CHANGES, changes
from decider.experiment.origin import FROM_PAGE, UNKNOWN, Origin
from decider.learn.guard import SOURCE as GUARD
from decider.learn.leave_out import not_taken_back
from decider.log.daily_totals import day_of
from decider.log.protocol import LeaveOut, LogReader
from decider.page.words import left_out, moment
from decider.types import START, ExperimentId, Position

NEWEST = 20
"""Changes that are told of."""

TITLES = {"command rollback": "Rollback", FROM_PAGE: "Rollback", GUARD: "Guard"}
"""Of what learning leaves out, by where it comes from."""

REMEMBERED = 2_000
"""Differences that are kept in memory, since a definition may be megabytes long."""


@dataclass(frozen=True, slots=True)
class Told:
    """What is said of one change. number: of a version; 0: it is none. more: changes that are not in `words`."""

    position: Position
    title: str
    number: int
    when: str
    day: int
    words: tuple[str, ...]
    more: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """A change with who made it."""

    told: Told
    origin: Origin


class History:
    """Reads versions and what is left out, never decisions."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._tell = lru_cache(REMEMBERED)(self._compare)

    def newest(self, experiment: ExperimentId) -> Sequence[Change]:
        """The newest first; at most NEWEST. Nothing where there is no such experiment."""
        both = [*self._versions(experiment), *self._left_out(experiment)]
        return sorted(both, key=lambda one: -one.told.position)[:NEWEST]

    def last(self, experiment: ExperimentId) -> Position:
        """Where the newest change is."""
        return max([START, *self._log.newest_versions(experiment, most=1), *self._left_out_at(experiment)])

    def _versions(self, experiment: ExperimentId) -> Sequence[Change]:
        positions = self._log.newest_versions(experiment, most=NEWEST + 1)
        shown = positions[:NEWEST]
        origins = self._log.origins(shown)
        before: list[Position | None] = [*positions[1:], None]
        return [
            Change(self._tell(one, earlier), origins.get(one, UNKNOWN))
            for one, earlier in zip(shown, before, strict=False)
        ]

    def _compare(self, position: Position, before: Position | None) -> Told:
        version = self._log.version_at(position)
        old = self._log.version_at(before).experiment if before is not None else None
        words = changes(old, version.experiment)
        more = max(0, len(words) - MOST_CHANGES)
        title, when = f"Version {version.number}", moment(version.time)
        return Told(position, title, version.number, when, day_of(version.time), words[:MOST_CHANGES], more)

    def _left_out_at(self, experiment: ExperimentId) -> Sequence[Position]:
        return [one.position for one in self._log.leave_outs(experiment)]

    def _left_out(self, experiment: ExperimentId) -> Sequence[Change]:
        entries = self._log.leave_outs(experiment)
        in_force = {one.position for one in not_taken_back(entries)}
        return [self._tell_left_out(one, in_force=one.position in in_force) for one in entries[-NEWEST:]]

    def _tell_left_out(self, one: LeaveOut, *, in_force: bool) -> Change:
        words = left_out(one, log=self._log.name, in_force=in_force)
        told = Told(
            one.position, TITLES.get(one.entry.origin.source, "Learning"), 0, moment(one.time), day_of(one.time), words
        )
        return Change(told, one.entry.origin)
