"""How many machines so many decisions a second need: arithmetic on measured costs, for `decider/SCALING.md`.

Each cost says where it was measured. Called by `queueing.py`, which writes the tables into that page.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[2] / "decider" / "SCALING.md"
SIZES_MARKERS = ("<!-- sizes -->\n", "<!-- /sizes -->")
HEADS = (
    "decisions/s", "logs", "workers", "learners", "database, cores", "cores in all", "log, GB/day",
    "write-ahead log, GB/day", "memory of our processes, GB",
)  # fmt: skip

SERVING, TOTALS, LEARNING, DATABASE = 300e-6, 52e-6, 52e-6, 110e-6
"""Seconds of processor for a decision in a worker, in counting the totals, in learning, and in PostgreSQL."""

ROW, WAL = 366, 629
"""Bytes of a decision, with a reward for one in ten, in groups of 8: in PostgreSQL's tables and in its log."""

WORKER, LEADER, PARENT = 100e6, 125e6, 96e6
"""Bytes of memory of each process; a good part of it is shared on one machine."""

LOG_RATE = 8_000
"""Decisions a second that we plan for one log: a third of what this machine's disk let it take."""

USED = 0.6
"""Of a worker's processor, and of the database's."""

USED_TO_LEARN = 0.7
"""Of a learner's: nobody waits for it."""

DAY = 86_400
RATES = (1_000, 10_000, 100_000, 1_000_000)


class Size(NamedTuple):
    """learners: with the leader. database: cores. log, wal: bytes a day. memory: bytes, without the database's."""

    rate: int
    logs: int
    workers: int
    learners: int
    database: int
    log: float
    wal: float
    memory: float

    @property
    def cores(self) -> int:
        """Of everything."""
        return self.workers + self.learners + self.database


def learners_of(rate: float) -> int:
    """Of a log: as many as leave the leader, who counts the totals of all and learns its share, enough of its
    processor. Raises ValueError where counting alone is too much for it."""
    left = USED_TO_LEARN / rate - TOTALS
    if left <= 0:
        raise ValueError(f"{rate:,.0f} decisions/s are too many for one log: its totals alone take a processor")
    return max(1, math.ceil(LEARNING / left))


def size_of(rate: int) -> Size:
    """What so many decisions a second need, if they divide evenly over the logs.

    >>> size_of(8_000)[:5]
    (8000, 1, 4, 2, 2)
    """
    logs = math.ceil(rate / LOG_RATE)
    each = rate / logs
    workers = logs * math.ceil(each * SERVING / USED)
    learners = logs * learners_of(each)
    return Size(
        rate=rate,
        logs=logs,
        workers=workers,
        learners=learners,
        database=logs * math.ceil(each * DATABASE / USED),
        log=DAY * rate * ROW,
        wal=DAY * rate * WAL,
        memory=workers * WORKER + learners * (LEADER + PARENT),
    )


def size_rows() -> Iterator[str]:
    """The table of SCALING.md."""
    for size in map(size_of, RATES):
        cells = (
            *(f"{count:,}" for count in (size.rate, size.logs, size.workers, size.learners, size.database, size.cores)),
            *(f"{found / 1e9:,.0f}" for found in (size.log, size.wal)),
            f"{size.memory / 1e9:,.1f}",
        )
        yield f"| {' | '.join(cells)} |"
