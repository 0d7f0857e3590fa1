"""The fourth part of `make workers`: how connections fall on two workers.

The system gives each new connection to one of those who listen, by a hash of its addresses: as by a toss of a coin.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from simulator.studies.load import Load, quantile
from simulator.studies.prepared import storefront_visitor, write_log
from simulator.studies.served import children, count_descriptors, serving

COUNTS = (2, 4, 8, 16, 32, 64)
TIMES = 100
WORKERS = 2
PATIENCE = 10.0
"""Seconds until a worker has taken a connection, or closed it."""


class NotTaken(Exception):
    """Connections that no worker has, or that one still has."""


def table(folder: Path) -> list[str]:
    """In Markdown."""
    db = folder / "connections.db"
    write_log(db, storefront_visitor, actions=10, window=900.0, trickle=0.0)
    heads = "| connections | the fuller of two workers has, mean | 95 % of the times at most | worst |"
    lines = [heads, "|--:|--:|--:|--:|"]
    with serving(db, "--workers", str(WORKERS)) as server:
        _, *workers = children(server.pid)
        for count in COUNTS:
            fuller = sorted([_fuller(server.port, workers, count) for _ in range(TIMES)])
            cells = f"{statistics.mean(fuller):.1f}", f"{quantile(fuller, 0.95)}", f"{fuller[-1]}"
            lines.append(f"| {count} | {' | '.join(cells)} |")
    return lines


def _fuller(port: int, workers: Sequence[int], count: int) -> int:
    """Connections of the worker that has most of so many."""
    before = [count_descriptors(pid) for pid in workers]
    with Load(port, connections=count) as load:
        load.answers(0.0)  # sends what a connection begins with
        taken = _wait_for(workers, before, count)
    _wait_for(workers, before, 0)
    return max(taken)


def _wait_for(workers: Sequence[int], before: Sequence[int], count: int) -> list[int]:
    """Connections of each worker, once all together have so many. Raises NotTaken."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        taken = [count_descriptors(pid) - old for pid, old in zip(workers, before, strict=True)]
        if sum(taken) == count:
            return taken
        time.sleep(0.005)
    raise NotTaken(f"{taken} of {count} connections")
