"""How many calls and streams there may be at once, in all and of one caller; how many files for whom. Called by
`intake.py`, and by the ports for their connections."""

from __future__ import annotations

import resource
import threading
from contextlib import suppress

from decider.errors import LimitReached

_EXCEEDED = "Concurrent RPC limit exceeded"
"""The words of grpcio's own limit."""


WANTED_DESCRIPTORS = 16_384
"""Files that the process may open, where the system lets it say so itself."""


def raise_descriptors() -> None:
    """Let the process open more files than the system gives at first: 1,024 is for programs that use select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(WANTED_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS says that it has no bound, and has one
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def share_of_descriptors(one_of: int, *, most: int) -> int:
    """`most`, or one of so many of the files that the process may open, where that is less; at least 1.

    Half of them are for gRPC, a quarter for HTTP, a sixteenth each for handshakes over HTTP and for operators; with a
    web port half of gRPC's are that one's. What is left is the log's.
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if descriptors == resource.RLIM_INFINITY else min(most, max(1, descriptors // one_of))


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
