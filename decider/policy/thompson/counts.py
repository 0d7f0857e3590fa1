"""Counts of names in bounded memory, however many different ones strangers send. Called by `admission.py`.

Which names are frequent: Misra and Gries, Science of Computer Programming 1982. How many are distinct: the k smallest
hashes, Bar-Yossef et al., RANDOM 2002. Both depend on nothing but the names and their order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from hashlib import blake2b

BYTES = 200_000
"""What the counted names take, at most, each with `ENTRY`: about 2,500 short names."""

ENTRY = 64
"""Bytes of an entry beside its name."""

HASHES = 256
"""Kept hashes: the number of distinct names is exact below, and has a standard error of 6 % above."""


class Frequent:
    """Counts of the frequent ones among all names that were added.

    A count is never too large, and too small at most by what was added in all / kept names.

    >>> frequent = Frequent()
    >>> for name in ["berlin", "bonn", "berlin"]:
    ...     frequent.add(name)
    >>> frequent.counts
    {'berlin': 2, 'bonn': 1}
    """

    def __init__(self, counts: Mapping[str, int] | None = None) -> None:
        self.counts = dict(counts or {})
        self.bytes = sum(map(_bytes, self.counts))

    def add(self, name: str, count: int = 1) -> None:
        """It came `count` times."""
        if name in self.counts:
            self.counts[name] += count
            return
        # A new name and all kept ones lose the same number until one of them makes room: each loss of the new name's
        # is paid for by a loss of every other's, so that the work is in proportion to what was added.
        while count and self.counts and self.bytes + _bytes(name) > BYTES:
            lost = min(count, min(self.counts.values()))
            count -= lost
            self._keep({name: number - lost for name, number in self.counts.items() if number > lost})
        if count:
            self.counts[name] = count
            self.bytes += _bytes(name)

    def remove(self, names: Iterable[str]) -> None:
        """They are counted elsewhere."""
        gone = set(names)
        self._keep({name: number for name, number in self.counts.items() if name not in gone})

    def halve(self) -> None:
        """Of what is long ago, half is forgotten."""
        self._keep({name: number // 2 for name, number in self.counts.items() if number > 1})

    def _keep(self, counts: dict[str, int]) -> None:
        self.counts, self.bytes = counts, sum(map(_bytes, counts))


class Distinct:
    """How many different names were added, about.

    >>> distinct = Distinct()
    >>> for name in ["berlin", "bonn", "berlin"]:
    ...     distinct.add(name)
    >>> len(distinct)
    2
    """

    def __init__(self, hashes: Iterable[int] = ()) -> None:
        self.hashes = list(hashes)

    def add(self, name: str) -> None:
        """Nothing, if it was added before."""
        hash_ = int.from_bytes(blake2b(_utf8(name), digest_size=8).digest())
        place = bisect_left(self.hashes, hash_)
        if place < HASHES and self.hashes[place : place + 1] != [hash_]:
            self.hashes.insert(place, hash_)
            del self.hashes[HASHES:]

    def __len__(self) -> int:
        if len(self.hashes) < HASHES:
            return len(self.hashes)
        return round((HASHES - 1) * 2.0**64 / self.hashes[-1])


def _utf8(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def _bytes(name: str) -> int:
    return len(_utf8(name)) + ENTRY
