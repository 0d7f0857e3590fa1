"""After a fork the child must not send what the parent will send, nor wait for locks of threads that it does not have.

Called by whatever of a client has a lock, a thread, a connection or a count.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Forkable(Protocol):
    """Something that begins anew in a child process."""

    def after_fork(self) -> None:
        """Called in the child, before anything else runs there."""


_KNOWN: WeakSet[Forkable] = WeakSet()


def watch(one: Forkable) -> None:
    """From now on, for as long as it lives."""
    _KNOWN.add(one)


def _after_fork() -> None:
    for one in list(_KNOWN):
        one.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork)
