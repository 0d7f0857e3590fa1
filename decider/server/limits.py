"""How many calls and streams there may be at once, in all and of one caller. Called by `intake.py`."""

from __future__ import annotations

import threading

from decider.errors import LimitReached

_EXCEEDED = "Concurrent RPC limit exceeded"
"""The words of grpcio's own limit."""


class Limit:
    """At most `most` at once, and `most_of_one` of one caller.

    >>> limit = Limit("calls", most=3, most_of_one=2)
    >>> limit.enter("ann"); limit.enter("ann"); limit.enter("bob"); limit.leave("ann"); limit.enter("bob")
    """

    def __init__(self, what: str, *, most: int, most_of_one: int) -> None:
        self._what, self._most, self._most_of_one = what, most, most_of_one
        self._lock = threading.Lock()
        self._entered: dict[str, int] = {}  # a Counter's own methods are Python, and take 1 us more for a call
        self.count = 0

    def enter(self, caller: str) -> None:
        """Raises LimitReached where it would be one too many."""
        with self._lock:
            if self.count >= self._most:
                raise LimitReached(f"{_EXCEEDED}: this server takes {self._most} {self._what} at once")
            entered = self._entered.get(caller, 0)
            if entered >= self._most_of_one:
                raise LimitReached(f"{_EXCEEDED}: of one caller it takes {self._most_of_one} {self._what} at once")
            self._entered[caller] = entered + 1
            self.count += 1

    def leave(self, caller: str) -> None:
        """One that entered has ended."""
        with self._lock:
            self.count -= 1
            left = self._entered[caller] - 1
            if left:
                self._entered[caller] = left
            else:
                del self._entered[caller]
