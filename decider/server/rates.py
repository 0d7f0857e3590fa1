"""How often a page's key may call: from one address, and in all. Called by the guard of `web/`, for calls with a key.

It is the generic cell rate algorithm (ITU-T I.371, annex A): a token bucket kept as one time, when it is full again.
A time that is over says nothing, so only what still counts is remembered, and strangers cannot fill the memory: an
address is there because a call from it was taken lately, and a key takes `total` calls a second from all of them.
"""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

BURST = 5.0
"""Seconds of a rate that may come at once; at least one call."""

UNKNOWN = "unknown"
"""Whoever has no address, as where a proxy sends a name in its place: all of them are one."""

LONGEST_ADDRESS = 64
"""Characters; longer ones are not remembered as texts either."""

_SHARE = 1e-6
"""Of a call: by so little may sums of times be wrong."""


@dataclass(frozen=True, slots=True)
class Rate:
    """calls: a second, above 0."""

    calls: float

    @property
    def burst(self) -> float:
        """Calls that may come at once."""
        return max(1.0, self.calls * BURST)

    @property
    def seconds(self) -> float:
        """After which everything may come again, whatever came."""
        return self.burst / self.calls


class Buckets:
    """Of one rate: one for each name, and those that are full are forgotten. Times are seconds of one clock that never
    goes back.

    >>> buckets = Buckets(Rate(1.0))
    >>> buckets.take("ann", 5, at=100.0)
    >>> buckets.wait("ann", 2, at=100.0), buckets.wait("bob", 5, at=100.0), buckets.wait("bob", 6, at=100.0)
    (2.0, 0.0, inf)
    """

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self._full: dict[str, float] = {}
        """When each is full again, of those that took something since `_turned`."""
        self._full_before: dict[str, float] = {}
        """Of those that took something in the time before it, and nothing since."""
        self._turned = -math.inf

    def wait(self, name: str, calls: float, *, at: float) -> float:
        """Seconds until so many calls may come; 0: now. inf: never, they are more than a burst."""
        if calls > self.rate.burst + _SHARE:
            return math.inf
        early = self._full_again(name, at) - at + (calls - self.rate.burst) / self.rate.calls
        return early if early > _SHARE / self.rate.calls else 0.0

    def take(self, name: str, calls: float, *, at: float) -> None:
        """They have come. Only where the wait was 0."""
        full = self._full_again(name, at) + calls / self.rate.calls
        if at - self._turned >= self.rate.seconds + 1.0:
            # What took nothing since the last turn is full by now. The second is for what `_SHARE` adds up to.
            self._full_before = self._full if at - self._turned < 2 * (self.rate.seconds + 1.0) else {}
            self._full, self._turned = {}, at
        self._full[name] = full

    def _full_again(self, name: str, at: float) -> float:
        return max(at, self._full.get(name, at), self._full_before.get(name, at))

    def __len__(self) -> int:
        return len(self._full) + len(self._full_before)


class Rates:
    """Of one key. address: of all that has one address; total: of everything. For many threads."""

    def __init__(self, address: Rate, total: Rate, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._by_address, self._in_all, self._clock = Buckets(address), Buckets(total), clock
        self._lock = threading.Lock()

    def take(self, address: str, calls: float) -> float:
        """0, and they have come; or the seconds until they may, and nothing has: what is refused uses up nothing, so
        that one address cannot use up what others have. inf: never, they are more than a burst."""
        with self._lock:
            at = self._clock()
            wait = self._by_address.wait(address, calls, at=at) or self._in_all.wait("", calls, at=at)
            if not wait:
                self._by_address.take(address, calls, at=at)
                self._in_all.take("", calls, at=at)
            return wait

    @property
    def most(self) -> int:
        """Calls in a batch that can ever come."""
        return int(min(self._by_address.rate.burst, self._in_all.rate.burst))

    @property
    def seconds(self) -> float:
        """After which everything may come again."""
        return max(self._by_address.rate.seconds, self._in_all.rate.seconds)

    def __len__(self) -> int:
        """Addresses that it remembers."""
        return len(self._by_address)


def neighbours(address: str) -> str:
    """All that counts as one address: a network of /64 of IPv6, since whoever has one of its addresses has all.

    >>> neighbours("203.0.113.7"), neighbours("::ffff:203.0.113.7"), neighbours("2001:db8::1:2:3:4")
    ('203.0.113.7', '203.0.113.7', '2001:db8::/64')
    >>> neighbours("no address")
    'unknown'
    """
    return _neighbours(address) if len(address) <= LONGEST_ADDRESS else UNKNOWN


@lru_cache(maxsize=4096)
def _neighbours(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return UNKNOWN
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
