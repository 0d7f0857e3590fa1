"""Calls of which only the headers have come: gRPC keeps what there is of their requests, so they are bounded in all and
by caller. Called by `intake.py`.

A burst of honest calls may well be here at once, but for a moment only; those that stay are few. So there are two
bounds for one caller: what there may be at once, and what may stay.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from decider.errors import LimitReached

MOST_ARRIVING = 1_000
"""At once. One more is refused to whoever has most of them."""

MOST_SLOW = 32
"""Of one caller that wait longer than SLOW: with requests of 4 MiB they hold 128 MiB. The newest above it are
refused."""

SLOW = 1.0
"""Seconds. Requests of honest clients follow their headers at once, or a slow line brings them some at a time."""

Call = TypeVar("Call")
Held = TypeVar("Held")


class Arrivals(Generic[Call, Held]):
    """What there is of each call, in the order of arrival. most_of_one: calls of one caller at once. clock: seconds.

    >>> arrivals: Arrivals[int, str] = Arrivals(most_of_one=2)
    >>> arrivals.add("ann", 1, "headers"), arrivals.take("ann", 1), arrivals.take("ann", 1)
    (None, 'headers', None)
    """

    def __init__(self, *, most_of_one: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_of_one, self._clock = most_of_one, clock
        self._lock = threading.Lock()
        self._of: dict[str, dict[Call, tuple[float, Held]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, caller: str, call: Call, held: Held) -> tuple[str, Call] | None:
        """Returns the caller and the call that has to leave for it, if any. Raises LimitReached where this one is not
        taken."""
        with self._lock:
            own = self._of.get(caller, {})
            if len(own) >= self._most_of_one:
                raise LimitReached(f"{self._most_of_one} calls of this caller wait for their requests already")
            leaves = None
            if self._count >= MOST_ARRIVING:
                crowd = max(self._of, key=lambda one: len(self._of[one]))
                if len(own) >= len(self._of[crowd]):
                    raise LimitReached(f"{MOST_ARRIVING} calls wait for their requests already, most are this caller's")
                leaves = crowd, next(reversed(self._of[crowd]))
            self._of.setdefault(caller, own)[call] = (self._clock(), held)
            self._count += 1
            return leaves

    def take(self, caller: str, call: Call) -> Held | None:
        """Whoever gets it decides what becomes of the call; None: somebody has."""
        with self._lock:
            own = self._of.get(caller, {})
            found = own.pop(call, None)
            if found is None:
                return None
            self._count -= 1
            if not own:
                del self._of[caller]
            return found[1]

    def all(self) -> Sequence[tuple[str, Call, Held]]:
        """Now."""
        with self._lock:
            return [(caller, call, held) for caller, own in self._of.items() for call, (_, held) in own.items()]

    def too_slow(self) -> Sequence[tuple[str, Call]]:
        """Those that have to leave, since their caller has more that stay than it may."""
        began = self._clock() - SLOW
        with self._lock:
            slow = [
                (caller, [call for call, (since, _) in own.items() if since < began])
                for caller, own in self._of.items()
                if len(own) > MOST_SLOW
            ]
        return [(caller, call) for caller, calls in slow for call in calls[MOST_SLOW:]]
