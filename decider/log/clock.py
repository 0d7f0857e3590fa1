"""Log time from a wall clock that may be wrong. Called by the server, which gives it to the log.

Windows are measured on log time, which never goes back: one reading a day ahead, once believed, would stop all learning
for a day. So the wall clock is followed only as far as elapsed time confirms it.

- A step ahead of more than TOLERANCE is ignored until it has lasted for BELIEVE_AFTER.
- A wall clock behind the log's end: log time goes on from there by elapsed time, until the wall clock has caught up.
- Where hosts share a log, the clock of its database is a witness: a wall clock ahead of that is not believed. Else one
  host whose clock is an hour ahead would end the windows of all.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from decider.text import duration
from decider.types import Time, now

logger = logging.getLogger(__name__)

TOLERANCE = 2_000_000
"""Microseconds that the wall clock may differ from what elapsed time says."""

BELIEVE_AFTER = 600_000_000
"""Microseconds after which a step ahead is believed."""

DAY = 86_400_000_000


def monotonic() -> int:
    """Microseconds of a clock that is never set. It goes on while the machine sleeps, where the system has such one."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) // 1000


class LogClock:
    """See above. Called for the time; any thread may.

    >>> wall, passed = [Time(1_000_000_000)], [0]
    >>> clock = LogClock(wall=lambda: wall[0], elapsed=lambda: passed[0])
    >>> wall[0] += DAY; passed[0] += 500_000  # half a second later the wall clock is a day ahead
    >>> clock(), clock.problem
    (1000500000, 'the wall clock has jumped 24 h ahead; ignored until that has lasted for 10 minutes')
    """

    def __init__(self, *, wall: Callable[[], Time] = now, elapsed: Callable[[], int] = monotonic) -> None:
        self._wall = wall
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._base, self._at = int(wall()), elapsed()
        self._last = Time(self._base)
        self._ahead_since: int | None = None
        self._ahead = 0
        self._witness: tuple[Time, int] | None = None
        self.problem: str | None = None

    def __call__(self) -> Time:
        with self._lock:
            self._last = max(self._last, self._read())  # within the tolerance the wall clock may go back
            return self._last

    @property
    def offset(self) -> float:
        """Seconds by which the wall clock is ahead of log time; negative: behind."""
        return (self._wall() - self()) / 1e6

    def reach(self, end: Time) -> None:
        """The log has an entry of that time: log time goes on from there."""
        with self._lock:
            if end - self._read() > TOLERANCE:
                self._base, self._at = end, self._elapsed()
                self._read()

    def compare(self, witness: Time) -> None:
        """What the clock of the log's database says now."""
        with self._lock:
            self._witness = witness, self._elapsed()

    def start(self, end: Time, witness: Time | None = None) -> None:
        """At a start: the time at which the log ends; 0 for an empty log. witness: see `compare`."""
        if witness is not None:
            self.compare(witness)
            with self._lock:
                if self._read() - witness > TOLERANCE:
                    self._base, self._at, self._last = int(witness), self._elapsed(), witness
                    self._read()
        self.reach(end)
        gap = self() - end
        if end and gap > DAY:
            days = gap / DAY
            logger.warning("the log's last entry is %.1f days old: was the machine off, or is its clock ahead?", days)

    def _read(self) -> Time:
        passed, wall = self._elapsed(), self._wall()
        expected = self._base + passed - self._at
        step = wall - expected
        if step > TOLERANCE and not self._is_confirmed(wall, passed):
            self._tell(f"the wall clock is {duration(step / 1e6)} ahead of the database's; log time goes on without it")
            return Time(expected)
        if step > TOLERANCE and not self._has_lasted(step, passed):
            ahead = f"the wall clock has jumped {duration(step / 1e6)} ahead"
            self._tell(f"{ahead}; ignored until that has lasted for 10 minutes")
            return Time(expected)
        if step <= TOLERANCE:
            self._ahead_since = None
        if step < -TOLERANCE:
            self._tell(f"the wall clock is {duration(-step / 1e6)} behind the log; log time goes on by elapsed time")
            return Time(expected)
        self._base, self._at, self._ahead_since = wall, passed, None
        self._tell(None)
        return Time(self._base)

    def _is_confirmed(self, wall: Time, passed: int) -> bool:
        if self._witness is None:
            return True
        witness, at = self._witness
        return wall - (witness + passed - at) <= TOLERANCE

    def _has_lasted(self, step: int, passed: int) -> bool:
        """This step, and not a smaller one before it."""
        if self._ahead_since is None or abs(step - self._ahead) > TOLERANCE:
            self._ahead_since, self._ahead = passed, step
        return passed - self._ahead_since >= BELIEVE_AFTER

    def _tell(self, problem: str | None) -> None:
        """One line when it begins, one when it ends."""
        if (problem is None) != (self.problem is None):
            if problem is None:
                logger.warning("the wall clock agrees with the log again, or its step is believed")
            else:
                logger.warning("%s", problem)
        self.problem = problem
