"""Whether the files of an open log are still where they were opened. Called by the writer after every commit: nothing
is acknowledged into a file that is gone, since a log that is opened again would not have it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from decider.errors import LogError

SETTLED = 1_000_000_000
"""Nanoseconds after which a folder that changes again shows another time of change: file systems count in ticks."""


class FileGone(LogError):
    """A file of the log is not where it was opened. It may come back."""


class LogFiles:
    """The database, its write-ahead log and the index of that, as they are when this is made.

    A look at the folder is enough while nothing in it has come, gone or been renamed; three more files to look at
    would cost as much as a commit.
    """

    def __init__(self, path: Path) -> None:
        real = path.resolve()
        self._path = path
        self._folder = real.parent
        self._paths = [real.with_name(real.name + ending) for ending in ("", "-wal", "-shm")]
        self._is_link = path.is_symlink()
        if self._is_link:
            self._paths.append(path)  # it must go on leading here
        self._inodes = self._look()
        self._unchanged_since: tuple[int, int] | None = None

    def _look(self) -> list[tuple[int, int]]:
        """Raises OSError where one is missing."""
        return [(status.st_dev, status.st_ino) for status in map(os.stat, self._paths)]

    def gone(self) -> FileGone | None:
        """What is wrong, if one of the files is not the one that was opened."""
        try:
            folder = None if self._is_link else self._folder_state()
            if folder is not None and folder == self._unchanged_since:
                return None
            self._unchanged_since = None
            if self._look() == self._inodes:
                self._unchanged_since = folder
                return None
        except OSError:
            pass
        return FileGone(
            f"{self._path}: was moved, deleted or replaced under the server; put it back, or restart the server on "
            f"the right file"
        )

    def _folder_state(self) -> tuple[int, int] | None:
        """Inode and time of change; None while that is so young that a further change might not show."""
        status = self._folder.stat()
        if abs(time.time_ns() - status.st_mtime_ns) < SETTLED:
            return None
        return status.st_ino, status.st_mtime_ns
