"""Runs `decider archive` once a day, where --archive is set. Called by `leading.py`, whose leader's thread looks.

In a process of its own, with low priority: writing Parquet and learning the models at the cut would hold the
interpreter for long. When the last run succeeded is a file in the archive, so that a restart does not run it again.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from decider.errors import LogError
from decider.log.open import LogUrl, identity_of
from decider.server.settings import Settings

logger = logging.getLogger(__name__)

DAY = 86_400.0
"""Seconds between two runs that succeed."""

RETRY_AFTER = 600.0
"""Seconds after a run that failed; and after a start, which has other work."""

NICENESS = 10
"""Not the lowest: it deletes in small pieces, for which commits wait."""


def _success_file(folder: Path, db: Path) -> Path:
    """Of that log: others that are archived there may have files of the same name. Raises LogError."""
    return folder / f".last-run-{identity_of(db)}"


def remember_success(folder: Path, db: Path) -> None:
    """A run on a log has ended well, now."""
    if folder.is_dir():  # there may have been nothing to archive yet
        _success_file(folder, db).touch()


def _unwritable(folder: Path) -> str:
    """What to tell of a folder that this process may not write; one that is not there yet is made in its parent."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.access(path, os.F_OK))
    if os.access(nearest, os.W_OK | os.X_OK):
        return ""
    way_out = "give this user the right to (under systemd ReadWritePaths=, too)"
    return f"archive: {nearest} cannot be written, so old decisions stay in the log; {way_out}"


class DailyArchive:
    """See ArchiveRuns in `metrics/archive.py`. problem: what keeps decisions from being archived, or nothing."""

    def __init__(self, settings: Settings, *, start_after: float = RETRY_AFTER) -> None:
        self._folder = settings.archive
        self._db = settings.db
        self._after = settings.archive_after
        self._due = time.monotonic() + start_after
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None
        self.failures = 0
        self.problem = "" if settings.archive is None else _unwritable(settings.archive)

    @property
    def last_success(self) -> float:
        """See ArchiveRuns."""
        if self._folder is None or isinstance(self._db, LogUrl):
            return 0.0
        try:
            return _success_file(self._folder, self._db).stat().st_mtime
        except (OSError, LogError):
            return 0.0

    @property
    def running(self) -> bool:
        """Whether a run is under way, or has ended and was not looked at."""
        return self._process is not None

    def look(self) -> None:
        """Start a run where one is due; tell how the last one ended. Never waits."""
        if self._folder is None:
            return
        if self._process is not None:
            if self._process.poll() is not None:
                self._end(self._process.returncode)
        elif time.monotonic() >= self._due:
            waited = time.time() - self.last_success
            if 0 <= waited < DAY:
                self._due = time.monotonic() + DAY - waited
            else:
                self._start(self._folder)

    def _start(self, folder: Path) -> None:
        command = [sys.executable, "-m", "decider.cli", "archive", "--db", str(self._db)]
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `_end`
        self._process = subprocess.Popen(
            [*command, "--before", self._after, "--archive", str(folder), str(folder)],
            stdout=self._output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            os.setpriority(os.PRIO_PROCESS, self._process.pid, NICENESS)
        except OSError:
            logger.info("the archive run keeps its priority")

    def _end(self, code: int) -> None:
        last = self._last_line()
        self._process = None
        self.problem = f"archive: the last run failed, and old decisions stay in the log: {last}" if code else ""
        if code:
            self.failures += 1
            self._due = time.monotonic() + RETRY_AFTER
            logger.warning("the archive run failed, and is tried again in %.0f minutes: %s", RETRY_AFTER / 60, last)
        else:
            self._due = time.monotonic() + DAY
            logger.info("archive: %s", last)

    def _last_line(self) -> str:
        if self._output is None:
            return ""
        with self._output as output:
            output.seek(0)
            lines = output.read().decode("utf-8", "replace").strip().splitlines()
        self._output = None
        return lines[-1] if lines else "it said nothing"

    def stop(self) -> None:
        """End a run that is under way; the next one goes on."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._output is not None:
            self._output.close()
