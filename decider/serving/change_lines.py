"""One line in the server's output for each new version and for all that is left out of learning, whichever process
wrote it: what is another one, by whom.

Called by the follower with what it reads, and once at the start, for the versions that the server's own files made.
"""

from __future__ import annotations

import logging

from decider.errors import DeciderError
from decider.experiment.changes import changes, in_one_line
from decider.experiment.definition import Experiment
from decider.experiment.origin import UNKNOWN
from decider.log.protocol import LogReader, ServingChanges, VersionName
from decider.types import START, ExperimentId, Position

logger = logging.getLogger(__name__)


class ChangeLines:
    """Tells of the versions that come after it was made."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._told = START
        self._newest: dict[ExperimentId, Position] = {}
        versions, _ = self._take(log.follow(START))
        for name, _ in versions:
            self._newest[name.experiment] = name.position

    def look(self) -> None:
        """Tell of what has come. Raises LogError."""
        self.tell(self._log.follow(self._told))

    def tell(self, news: ServingChanges) -> None:
        """A line for each of these entries of which none was written yet."""
        versions, left_out = self._take(news)
        for position, id_ in left_out:
            for entry in [one.entry for one in self._log.leave_outs(id_) if one.position == position]:
                logger.info("experiment %s %s; %s", id_, entry, entry.origin)
        for name, waits in versions:
            before = self._newest.get(name.experiment)
            self._newest[name.experiment] = name.position
            try:
                logger.info("%s", self._line(name, before, waits=waits))
            except DeciderError as error:  # a line in the output must not hold up what serves
                logger.warning("experiment %s has a new version, which cannot be read: %s", name.experiment, error)

    def _take(self, news: ServingChanges) -> tuple[list[tuple[VersionName, bool]], list[tuple[Position, ExperimentId]]]:
        """New versions, and what is newly left out."""
        versions = [one for one in news.versions if one[0].position > self._told]
        left_out = [one for one in news.leave_outs if one[0] > self._told]
        self._told = max(self._told, news.head)
        return versions, left_out

    def _line(self, name: VersionName, before: Position | None, *, waits: bool) -> str:
        version = self._log.version_at(name.position)
        old = self._log.version_at(before).experiment if before is not None else None
        words = in_one_line(changes(old, version.experiment))
        origin = self._log.origins([name.position]).get(name.position, UNKNOWN)
        later = ", serves once its policy has learned the log" if waits else ""
        state = _state(version.experiment)
        return f"experiment {name.experiment}, new version {version.number}{state}{later}: {words}; {origin}"


def _state(experiment: Experiment) -> str:
    return ", ended" if experiment.ended else ", paused" if experiment.paused else ""
