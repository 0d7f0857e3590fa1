"""The third part of `make workers`: what commits of several writers cost, by the lock that they queue at.

Processes append decisions to one log, without a server, as fast as they can: with the log's own lock, and with SQLite's
alone. For one process that writes for all, its commits are as large as those of all writers together; what callers
would pay to reach it comes on top. Figures of disks differ: FULL waits for one.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Literal, NamedTuple

from decider.experiment.schema import from_message
from decider.learn.versions import Versions
from decider.log.protocol import Entry, Mark
from decider.log.sqlite.connection import transaction
from decider.log.sqlite.locks import DatabaseFile
from decider.log.sqlite.writer import SqliteLog
from simulator.studies.load import quantile
from simulator.studies.prepared import decisions, experiment, storefront_visitor
from simulator.studies.served import ALL_CORES

SECONDS = 1.0
"""Of each measurement; shorter where all decisions are written before."""

DECISIONS = 60_000
"""Made for each writer."""

Synchronous = Literal["NORMAL", "FULL"]


HEADINGS = (
    "commits", "writers, lock", "decisions each", "decisions/s", "us a decision", "median wait, ms", "worst wait, ms",
    "least share",
)  # fmt: skip
"""The least share: of the writer that wrote least, in parts of what each would have written."""


class Setting(NamedTuple):
    """size: decisions of a commit. fair: with the log's own lock."""

    synchronous: Synchronous
    writers: int
    size: int
    fair: bool = True


WRITERS = ((1, 16, True), (2, 16, True), (2, 16, False), (4, 16, True), (4, 16, False), (1, 64, True))

SETTINGS = [Setting(synchronous, *of) for synchronous in ("NORMAL", "FULL") for of in WRITERS]


class Written(NamedTuple):
    """Of one writer. seconds: from its first commit to its last one. cpu: seconds of processor time. waits: seconds of
    each commit."""

    decisions: int
    seconds: float
    cpu: float
    waits: Sequence[float]


class _AtSqlitesLock(SqliteLog):
    """A writer that queues at SQLite's lock alone: whoever asks at the moment it is free gets it."""

    def _write_on_head(self, entries: list[Entry]) -> list[Mark | None]:
        with transaction(self._writer):
            self._look_at_head()
            return super()._write_on_head(entries)


def _lock_nothing(file: DatabaseFile) -> bool:
    file.commit.acquire()
    return True


def _write(db: Path, setting: Setting, number: int, start: Barrier, results: SimpleQueue[Written]) -> None:
    """The life of a writer: a process of its own."""
    os.sched_setaffinity(0, ALL_CORES)
    if not setting.fair:
        DatabaseFile.__enter__ = _lock_nothing  # type: ignore[method-assign]
    made_by = SqliteLog if setting.fair else _AtSqlitesLock
    waits: list[float] = []
    with closing(made_by(db, synchronous=setting.synchronous, patience=60.0)) as log:
        version = log.versions()[-1]
        made = [*islice(decisions(version, storefront_visitor, prefix=f"w{number}", seed=number), DECISIONS)]
        start.wait()
        cpu, started = time.process_time(), time.perf_counter()
        for first in range(0, DECISIONS, setting.size):
            began = time.perf_counter()
            if began - started >= SECONDS:
                break
            log.append(made[first : first + setting.size])
            waits.append(time.perf_counter() - began)
        cpu, seconds = time.process_time() - cpu, time.perf_counter() - started
    results.put(Written(len(waits) * setting.size, seconds, cpu, waits))


def measure(folder: Path, setting: Setting) -> list[Written]:
    """All writers at once, each a process."""
    db = folder / f"commits-{SETTINGS.index(setting)}.db"
    with closing(SqliteLog(db)) as log:
        Versions(log).apply(from_message(experiment(actions=10, window=600)))
    forked = multiprocessing.get_context("fork")
    start, results = forked.Barrier(setting.writers), forked.SimpleQueue()
    processes = [
        forked.Process(target=_write, args=(db, setting, number, start, results)) for number in range(setting.writers)
    ]
    for one in processes:
        one.start()
    written = [results.get() for _ in processes]
    for one in processes:
        one.join()
    return written


def table(folder: Path) -> list[str]:
    """In Markdown."""
    lines = [f"| {' | '.join(HEADINGS)} |", f"|---|---|{'--:|' * (len(HEADINGS) - 2)}"]
    return lines + [_line(setting, measure(folder, setting)) for setting in SETTINGS]


def _line(setting: Setting, of: Sequence[Written]) -> str:
    count, waits = sum(one.decisions for one in of), sorted(wait for one in of for wait in one.waits)
    rate = sum(one.decisions / one.seconds for one in of)
    lock = "" if setting.writers == 1 else ", the log's" if setting.fair else ", SQLite's"
    cells = (
        setting.synchronous, f"{setting.writers}{lock}", f"{setting.size}", f"{rate:,.0f}",
        f"{1e6 * sum(one.cpu for one in of) / max(1, count):.0f}", f"{1000 * quantile(waits, 0.5):.1f}",
        f"{1000 * waits[-1]:.0f}", f"{min(one.decisions for one in of) * len(of) / max(1, count):.2f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"
