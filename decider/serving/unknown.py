"""One look at the log before an experiment is said not to be there: another process may just have applied it. Called by
`current.py`, wherever an experiment does not serve."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from decider.errors import DeciderError

INTERVAL = 0.05
"""Seconds between two looks, however many ask for what is not there: as often as the follower looks by itself."""


class LookForUnknown:
    """follow: makes serve what has come. clock: seconds. Within the interval after a look nobody looks: what was
    applied in it may be said not to be there until the follower has seen it."""

    def __init__(self, follow: Callable[[], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._follow = follow
        self._clock = clock
        self._lock = threading.Lock()
        self._due = float("-inf")

    def __call__(self) -> None:
        """Look, or wait for whoever looks; nothing where one just has. A log that cannot be read is the follower's to
        tell."""
        with self._lock:
            if self._clock() < self._due:
                return
            with suppress(DeciderError):
                self._follow()
            self._due = self._clock() + INTERVAL
