"""After a fork the child must not send what the parent will send, nor wait for locks of threads that it does not have.

Called by whatever of a client has a lock, a thread, a connection or a count.
"""

from __future__ import annotations

import os
from weakref import WeakSet


class Forkable:
    """Something that has its part in a fork; by default none."""

    def before_fork(self) -> None:
        """Called in the parent: leave gRPC, which hands its child nothing fit for use while a thread is in it."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork(self) -> None:
        """Called in the child, before anything else runs there: begin anew."""


_KNOWN: WeakSet[Forkable] = WeakSet()


def watch(one: Forkable) -> None:
    """From now on, for as long as it lives."""
    _KNOWN.add(one)


def _before_fork() -> None:
    for one in list(_KNOWN):
        one.before_fork()


def _after_fork_in_parent() -> None:
    for one in list(_KNOWN):
        one.after_fork_in_parent()


def _after_fork() -> None:
    for one in list(_KNOWN):
        one.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)
