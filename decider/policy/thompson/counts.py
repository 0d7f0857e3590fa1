"""Counts of names in bounded memory, however many different names callers send. Called by `admission.py`.

Frequent names: Misra and Gries, Science of Computer Programming 1982. Number of distinct names: the k smallest hashes,
Bar-Yossef et al., RANDOM 2002. Both depend only on the names and their order.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from hashlib import blake2b

BYTES = 200_000
"""Memory of the counted names, at most, each with `ENTRY`: about 2,500 short names."""

ENTRY = 64
"""Bytes of an entry beside its name."""

HASHES = 256
"""Hashes that are kept: the number of distinct names is exact below, with a standard error of 6 % above."""


class HeavyHitters:
    """Counts of the most frequent names (Misra-Gries).

    A count is never too large; it is too small by at most (all occurrences) / (number of kept names).

    >>> frequent = HeavyHitters()
    >>> for name in ["berlin", "bonn", "berlin"]:
    ...     frequent.add(name)
    >>> frequent.counts
    {'berlin': 2, 'bonn': 1}
    """

    def __init__(self, counts: Mapping[str, int] | None = None) -> None:
        self.counts = dict(counts or {})
        self.bytes = sum(map(_bytes, self.counts))

    def add(self, name: str, count: int = 1) -> None:
        """Count `count` occurrences of a name."""
        if name in self.counts:
            self.counts[name] += count
            return
        # Misra-Gries: the new name and all kept ones lose the same number until one of them reaches 0 and makes room.
        # Every pass uses up occurrences of all names, so the work grows only with the number of occurrences.
        while count and self.counts and self.bytes + _bytes(name) > BYTES:
            lost = min(count, min(self.counts.values()))
            count -= lost
            self._keep({name: number - lost for name, number in self.counts.items() if number > lost})
        if count:
            self.counts[name] = count
            self.bytes += _bytes(name)

    def remove(self, names: Iterable[str]) -> None:
        """Stop counting these names."""
        removed = set(names)
        self._keep({name: number for name, number in self.counts.items() if name not in removed})

    def halve(self) -> None:
        """Halve all counts, so that recent names outweigh old ones."""
        self._keep({name: number // 2 for name, number in self.counts.items() if number > 1})

    def _keep(self, counts: dict[str, int]) -> None:
        self.counts, self.bytes = counts, sum(map(_bytes, counts))


class DistinctCount:
    """An estimate of the number of different names that were added.

    >>> distinct = DistinctCount()
    >>> for name in ["berlin", "bonn", "berlin"]:
    ...     distinct.add(name)
    >>> len(distinct)
    2
    """

    def __init__(self, hashes: Iterable[int] = ()) -> None:
        self.hashes = list(hashes)

    def add(self, name: str) -> None:
        """Count the name, unless it was added before."""
        hash_ = int.from_bytes(blake2b(_utf8(name), digest_size=8).digest())
        place = bisect_left(self.hashes, hash_)
        if place < HASHES and self.hashes[place : place + 1] != [hash_]:
            self.hashes.insert(place, hash_)
            del self.hashes[HASHES:]

    def __len__(self) -> int:
        if len(self.hashes) < HASHES:
            return len(self.hashes)
        return round((HASHES - 1) * 2.0**64 / self.hashes[-1])  # hashes are uniform: the k-th of n is near k / n


def _utf8(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def _bytes(name: str) -> int:
    return len(_utf8(name)) + ENTRY
