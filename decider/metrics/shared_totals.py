"""The totals of a log, counted by scrapes and by the leader, who stores them in the log now and then.

Storing is left to the leader's thread, since one process alone leads a log: a scrape writes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from decider.errors import LogError
from decider.log.log_totals import LogTotals
from decider.log.protocol import EventLog

STORE_EVERY = 20_000
"""New entries after which the totals are stored: a start counts at most so many, and a killed one's successor too."""

BYTES_PER_ENTRY = 16
"""Totals with many labels are stored more rarely: so many bytes for each new entry, at most."""

RETRY_AFTER = 60.0
"""Seconds until storing is tried again where it failed, as on a full disk."""


class SharedTotals:
    """See above; from any thread. stopping: whether the server stops; a scrape that has much to count ends then."""

    def __init__(self, log: EventLog, *, stopping: Callable[[], bool] = lambda: False) -> None:
        self._log = log
        self._stopping = stopping
        self._totals = LogTotals(log)
        self._lock = threading.Lock()
        self._stored = self._totals.mark.position
        self._due_after = STORE_EVERY
        self._pause_until = 0.0

    @contextmanager
    def read(self) -> Iterator[LogTotals]:
        """The totals up to the log's end, which stay as they are meanwhile. Raises LogError."""
        while not self._advance():  # slice by slice: others who count wait for one at most
            if self._stopping():
                raise LogError("the server stops; the log is counted on after its next start")
        with self._lock:
            yield self._totals

    @contextmanager
    def glance(self) -> Iterator[LogTotals]:
        """The totals as far as they are counted, at most one slice further than before: in bounded time, also where the
        log was never counted. They stay as they are meanwhile. Raises LogError."""
        self._advance()
        with self._lock:
            yield self._totals

    def _advance(self) -> bool:
        with self._lock:
            return self._totals.advance()

    def store_if_due(self) -> bool:
        """Count a slice if nobody else has counted for long; store if there is enough that is new. Returns whether
        there is another slice to count. Raises LogError."""
        if self._log.head().position - self._totals.mark.position >= STORE_EVERY:
            self._advance()
        if self._totals.mark.position - self._stored >= self._due_after and time.monotonic() >= self._pause_until:
            self._pause_until = time.monotonic() + RETRY_AFTER
            self.store()
            self._pause_until = 0.0
        return self._log.head().position - self._totals.mark.position >= STORE_EVERY

    def finish(self, deadline: float) -> None:
        """At the end: count until the monotonic clock reads `deadline`, and store. Raises LogError."""
        while not self._advance() and time.monotonic() < deadline:
            pass
        if self._totals.mark.position > self._stored:
            self.store()

    def store(self) -> None:
        """Store what is counted. Raises LogError."""
        with self._lock:
            checkpoint = self._totals.checkpoint()
        self._log.store_totals(checkpoint)
        self._stored = checkpoint.mark.position
        self._due_after = max(STORE_EVERY, len(checkpoint.content) // BYTES_PER_ENTRY)
