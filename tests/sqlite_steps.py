"""How much work SQLite has with something: counts of steps, since times of a shared machine say little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def steps(log: Any, do: Callable[[], object], *, every: int = 1) -> int:
    """The steps of SQLite's machine on all connections of a SqliteLog, in units of `every`."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    connections = [*log._connections, log._writer]
    for connection in connections:
        connection.set_progress_handler(step, every)
    do()
    for connection in connections:
        connection.set_progress_handler(None, 0)
    assert [*log._connections, log._writer] == connections
    return count
