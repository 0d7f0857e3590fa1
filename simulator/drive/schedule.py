"""Rewards that wait for their time. Clients put them in, the sender takes them out. Called by `send.py`."""

from __future__ import annotations

import heapq
import threading
import time


class Schedule:
    """Rounds by the time at which their reward is due, on the monotonic clock. Safe for several threads.

    >>> schedule = Schedule()
    >>> schedule.put(2.0, 7); schedule.put(1.0, 8); schedule.close()
    >>> schedule.take(10), schedule.take(10)
    ([(1.0, 8), (2.0, 7)], [])
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int]] = []
        self._changed = threading.Condition()
        self._closed = False

    def put(self, due: float, number: int) -> None:
        """One more; after the end it is forgotten."""
        with self._changed:
            if not self._closed:
                heapq.heappush(self._waiting, (due, number))
                self._changed.notify()

    def take(self, most: int) -> list[tuple[float, int]]:
        """What is due, the earliest first; waits until something is. Empty once it is closed and nothing waits."""
        with self._changed:
            while self._waiting or not self._closed:
                left = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if left is not None and left <= 0:
                    return self._due(most)
                self._changed.wait(left)
            return []

    def _due(self, most: int) -> list[tuple[float, int]]:
        now = time.monotonic()
        due: list[tuple[float, int]] = []
        while self._waiting and self._waiting[0][0] <= now and len(due) < most:
            due.append(heapq.heappop(self._waiting))
        return due

    def close(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def drop(self) -> None:
        """Close, and forget what waits."""
        with self._changed:
            self._waiting.clear()
        self.close()
