"""Makes sure that the last part of the archive is there before its entries are deleted. Called by the log's writer.

The entries may be nowhere else: a part whose folder was unmounted, moved or emptied must not be taken for written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from decider.errors import LogError
from decider.log.archive.find import found_parts, parts_of
from decider.log.archive.part import check_sizes, finish_part
from decider.types import START, Position

logger = logging.getLogger(__name__)

LOOK_INTERVAL = 10.0
"""Seconds between two looks for a part that is not there."""


class LastPart:
    """Looked for once per process and cut: where it was written, and in the folders."""

    def __init__(self, log: Path, folders: Sequence[Path]) -> None:
        self._log = log
        self._folders = folders
        self._safe = START
        self._look_at = 0.0
        self._problem = ""

    def make_safe(self, last: Position) -> None:
        """Find the part that ends there by its digest, with files as long as they were written, and give it its own
        name. Raises ArchiveMissing, ArchiveDamaged, LogError; then nothing of it may be deleted."""
        if last == self._safe:
            return
        try:
            named = [one for one in parts_of(self._log, self._folders) if one.last == last]
            (part,) = found_parts(named, self._folders)
            check_sizes(part)
            finish_part(part)
        except OSError as error:
            raise LogError(f"the last part of the archive of {self._log} cannot be looked for ({error})") from error
        self._safe, self._problem = last, ""

    def is_safe(self, last: Position) -> bool:
        """The same; a problem is told once and looked into now and then, since the log goes on without."""
        if last != self._safe and time.monotonic() >= self._look_at:
            try:
                self.make_safe(last)
            except LogError as error:
                self._look_at = time.monotonic() + LOOK_INTERVAL
                self._tell(str(error))
        return last == self._safe

    def _tell(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            logger.warning("%s", *self.warnings)

    @property
    def warnings(self) -> Sequence[str]:
        """A line while the part is not safe; from any thread."""
        problem = self._problem
        return [f"{self._log}: archived entries are not deleted yet: {problem}"] if problem else []
