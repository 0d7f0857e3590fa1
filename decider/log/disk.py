"""Warns before the log's disk is full: then there is still time to free some of it. Called by the server."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from decider.log.protocol import LogReader

logger = logging.getLogger(__name__)

DAY = 86_400.0
HOUR = 3_600.0
"""Seconds."""

ENOUGH_AGAIN = 1.1
"""The warning ends where so many times what is needed is free, so that it does not come and go."""


class DiskWatch:
    """reserve: bytes that should be free; more, where the log has grown by more in the last 24 hours (as far as this
    process has seen them). clock: seconds, monotonic."""

    def __init__(self, log: LogReader, *, reserve: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._reserve = reserve
        self._clock = clock
        self._sizes: deque[tuple[float, int]] = deque()
        self.warnings: Sequence[str] = ()

    def look(self) -> None:
        """Look once; a line in the output where the warning begins or ends. Raises LogError."""
        sizes = self._log.sizes()
        if sizes.free is None:
            return
        needed = max(self._reserve, self._growth(sizes.database + sizes.wal))
        if sizes.free < needed:
            self._warn(sizes.free, needed)
        elif self.warnings and sizes.free >= ENOUGH_AGAIN * needed:
            logger.warning("%s: %s free on its disk, enough again", self._log.name, _bytes(sizes.free))
            self.warnings = ()

    def _growth(self, size: int) -> int:
        """Since the oldest size of the last 24 hours; one size is kept for each hour."""
        now, sizes = self._clock(), self._sizes
        if not sizes or now - sizes[-1][0] >= HOUR:
            sizes.append((now, size))
        while len(sizes) > 1 and now - sizes[1][0] >= DAY:
            sizes.popleft()
        return size - sizes[0][1]

    def _warn(self, free: int, needed: int) -> None:
        what = (
            f"--disk-reserve asks for {_bytes(needed)}"
            if needed == self._reserve
            else f"the log has grown by {_bytes(needed)} in the last 24 hours"
        )
        text = f"{self._log.name}: only {_bytes(free)} free on its disk, and {what}; free some before it is full"
        if not self.warnings:
            logger.warning("%s", text)
        self.warnings = (text,)


def _bytes(count: int) -> str:
    """For people.

    >>> _bytes(1_500_000), _bytes(20_000_000_000)
    ('1.5 MB', '20.0 GB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
