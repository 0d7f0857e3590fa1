"""Keeps the write-ahead log short: copies it into the database, and tells of a reader that holds it back.

SQLite may not write back what a transaction that still reads would then see. Called by the writer's `maintain`.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from decider.log.sqlite.errors import sqlite_errors

logger = logging.getLogger(__name__)

LARGE_PAGES = 4_000
"""Beyond this its end is written back while writers wait, so that it begins anew and cannot grow for ever. All commits
wait 4 to 50 ms for that and for the next commit's `fsync`. As many pages as the first part of SQLite's index of the
file names (4,062), so that looking for a page takes as long as in a shorter file."""

LARGE_BYTES = LARGE_PAGES * 4096
"""What the file keeps when it begins anew: making it again costs more than writing over it."""

PATIENCE = 50
"""Milliseconds that commits wait at most until it begins anew: its readers end within some of them."""

HELD_AFTER = 10.0
"""Seconds without progress after which a reader is told of: a scrape and a slice of learning take less."""


class _Stop(NamedTuple):
    """The page at which writing back stands, since when (monotonic clock), and that as a time of day."""

    page: int
    since: float
    at: str


def _new_stop(page: int, since: float) -> _Stop:
    return _Stop(page, since, datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"))


class WriteAheadLog:
    """exclusive: no commit meanwhile, of any process."""

    def __init__(self, database: Path, exclusive: Callable[[], AbstractContextManager[None]]) -> None:
        self._database = database
        real = database.resolve()
        self._file = real.with_name(f"{real.name}-wal")
        self._exclusive = exclusive
        self._stop: _Stop | None = None
        self._told = False

    def write_back(self) -> None:
        """Copy it into the database while others write; once it is large, its end while they wait. Raises LogError."""
        # mode=rw never makes the file: beside a new, empty database SQLite would throw away the write-ahead log.
        uri = f"{self._database.absolute().as_uri()}?mode=rw"
        with sqlite_errors(self._database), closing(sqlite3.connect(uri, uri=True, timeout=0)) as beside:
            _, pages, written = beside.execute("pragma wal_checkpoint(passive)").fetchone()
            self._watch(pages, written)
            if not self._told and (pages > LARGE_PAGES or self._bytes() > 2 * LARGE_BYTES):
                self._begin_anew(beside)

    def _begin_anew(self, beside: sqlite3.Connection) -> None:
        """The next commit writes at the beginning; a file that has become large is cut."""
        mode = "truncate" if self._bytes() > 2 * LARGE_BYTES else "restart"
        beside.execute(f"pragma busy_timeout = {PATIENCE}")  # for readers: there is one at any moment of a busy server
        with self._exclusive():
            beside.execute(f"pragma wal_checkpoint({mode})").fetchone()

    def _bytes(self) -> int:
        return self._file.stat().st_size if self._file.exists() else 0

    def _watch(self, pages: int, written: int) -> None:
        """Readers that come and go stop it at another page each time; one that stays, at the same."""
        now = time.monotonic()
        if written >= pages or pages <= LARGE_PAGES:
            self._go_on(now)
        elif self._stop is None or self._stop.page != written:
            self._go_on(now)  # it has moved: who stayed has left, and others read now
            self._stop = _new_stop(written, now)
        elif not self._told and now - self._stop.since >= HELD_AFTER:
            self._told = True
            logger.warning("%s", *self.warnings)

    def _go_on(self, now: float) -> None:
        if self._told and self._stop is not None:
            logger.warning("%s is written back again, after %.0f s", self._file, now - self._stop.since)
        self._stop, self._told = None, False

    @property
    def warnings(self) -> Sequence[str]:
        """A line while a reader holds it back; from any thread."""
        stop = self._stop
        if stop is None or not self._told:
            return ()
        return (
            f"{self._file} has {self._bytes() / 1e6:.0f} MB and grows: since {stop.at} somebody reads the log in a "
            f"transaction that does not end; end it (`fuser -v {self._database}` names who has the log open)",
        )
