"""The newest versions of an experiment: when, by whom, why, and what is another one in words. Called by `page.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from decider.experiment.changes import MOST_CHANGES, changes
from decider.experiment.origin import UNKNOWN, Origin
from decider.log.daily_totals import day_of
from decider.log.protocol import LogReader
from decider.page.words import moment
from decider.types import ExperimentId, Position

NEWEST = 20
"""Versions that are told of."""

REMEMBERED = 2_000
"""Differences that are kept in memory, since a definition may be megabytes long."""


@dataclass(frozen=True, slots=True)
class Told:
    """What is said of one version. more: changes that are not in `words`."""

    number: int
    when: str
    day: int
    words: tuple[str, ...]
    more: int


@dataclass(frozen=True, slots=True)
class Change:
    """A version with who made it."""

    told: Told
    origin: Origin


class History:
    """Reads versions, never decisions."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._tell = lru_cache(REMEMBERED)(self._compare)

    def newest(self, experiment: ExperimentId) -> Sequence[Change]:
        """The newest first; at most NEWEST."""
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
        return Told(version.number, moment(version.time), day_of(version.time), words[:MOST_CHANGES], more)
