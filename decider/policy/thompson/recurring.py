"""Tells keys that come again from those that come once, so that caches are not filled with the latter.

Called by `posterior.py`: features that come with a call hardly ever come twice once there is a number
among them. To keep each would cost more than to compute it, and what does recur would have to make room.
"""

from __future__ import annotations

from collections.abc import Hashable

MOST_HASHES = 5_000
"""Then all are forgotten: what recurs is soon known again."""


class Recurring:
    """Whether a key was asked about before. It remembers hashes alone, so it may take a new key for an old one.

    >>> recurring = Recurring()
    >>> recurring("price"), recurring("price")
    (False, True)
    """

    def __init__(self) -> None:
        self._hashes: set[int] = set()

    def __call__(self, key: Hashable) -> bool:
        """Remember the key. Returns whether it was known."""
        hashed = hash(key)
        if hashed in self._hashes:
            return True
        if len(self._hashes) >= MOST_HASHES:
            self._hashes.clear()
        self._hashes.add(hashed)
        return False
