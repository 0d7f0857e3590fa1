"""Experiment versions that were read, by position: those in use, and the last others, bounded in bytes.

A log may have thousands of versions, of which a few serve. Called by `reader.py` from any thread.
"""

from __future__ import annotations

import threading
from weakref import WeakValueDictionary

from decider.experiment.definition import ExperimentVersion
from decider.types import Position

CACHE_BYTES = 16_000_000
"""Of the versions that nobody else uses, estimated."""

BYTES_PER_CHARACTER = 10
"""Memory of a version for each character of its definition."""


class VersionCache:
    """See above. A version is the same object as long as somebody keeps it: caches compare its parts by identity."""

    def __init__(self) -> None:
        self._used: WeakValueDictionary[Position, ExperimentVersion] = WeakValueDictionary()
        self._last: dict[Position, tuple[ExperimentVersion, int]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, position: Position) -> ExperimentVersion | None:
        """The version at a position, if it is here."""
        return self._used.get(position)

    def put(self, version: ExperimentVersion, *, characters: int) -> ExperimentVersion:
        """Keep a version whose definition has so many characters. Returns the one to use: another thread may have read
        it as well."""
        with self._lock:
            known = self._used.setdefault(version.position, version)
            _, before = self._last.pop(version.position, (known, 0))
            size = characters * BYTES_PER_CHARACTER
            self._last[version.position] = (known, size)
            self._bytes += size - before
            while self._bytes > CACHE_BYTES and len(self._last) > 1:
                _, oldest = self._last.pop(next(iter(self._last)))
                self._bytes -= oldest
        return known
