"""`make appends`: how many decisions a second does one log take from several writers, in SQLite and in PostgreSQL?

Each writer is a process that appends groups as fast as the log takes them, so what ends first shows: the row that
deals positions, the disk, or the processor. Writers and the database share all cores of this machine. Linux only.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from decider.experiment.schema import from_message
from decider.learn.versions import Versions
from decider.log.open import LogUrl, open_log
from decider.types import DecisionId
from simulator.drive.own_postgres import STANDBY, OwnPostgres, own_postgres
from simulator.studies.prepared import decisions, experiment, storefront_visitor
from simulator.studies.results import write_results
from simulator.studies.served import children, cpu_seconds

MARKERS = ("<!-- appends -->\n", "<!-- /appends -->")
SETTINGS_MARKERS = ("<!-- settings -->\n", "<!-- /settings -->")

WRITERS = (1, 2, 4, 8)
GROUPS = (8, 32, 128)
DIFFERENT = 1_000
"""Decisions that a writer sends again and again, each time with new ids."""

_together: Barrier | None = None
"""In a writer's process: where all wait until each has opened the log."""

MICRO, MILLI = 1e6, 1e3

Settings = Sequence[str]
"""Of `postgres`, as NAME=VALUE."""

NO_DISK: Settings = ("fsync=off", "full_page_writes=off")
"""What the head row and the processors do alone."""


class Load(NamedTuple):
    """writers: processes. group: decisions in a commit."""

    writers: int
    group: int


class Written(NamedTuple):
    """What one writer did. cpu: seconds of its processor, in the log alone. waits: seconds of each commit."""

    cpu: float
    waits: Sequence[float]


@dataclass(frozen=True, slots=True)
class Figures:
    """rate: decisions per second. commits: per second. writer_us, server_us: processor time of a decision, in
    microseconds. p50, p99: of a commit, in milliseconds."""

    rate: float
    commits: float
    writer_us: float
    server_us: float
    p50: float
    p99: float


Log = Path | LogUrl


def _meet_at(barrier: Barrier) -> None:
    global _together
    _together = barrier


def write(log: Log, load: Load, writer: int, seconds: float) -> Written:
    """Append groups, from when all writers are ready."""
    with closing(open_log(log)) as opened:
        (version,) = opened.versions()
        known = list(islice(decisions(version, storefront_visitor, prefix="", seed=writer), DIFFERENT))
        number, cpu, waits = 0, 0.0, []
        assert _together is not None, "the pool's initializer sets it"
        _together.wait()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            picked = [known[(number + one) % DIFFERENT] for one in range(load.group)]
            group = [
                one._replace(decision_id=DecisionId(f"{writer}-{number + place}")) for place, one in enumerate(picked)
            ]
            number += load.group
            began, used = time.monotonic(), time.process_time()
            opened.append(group)
            waits.append(time.monotonic() - began)
            cpu += time.process_time() - used
    return Written(cpu, waits)


def prepare(log: Log) -> None:
    """One experiment with ten actions, whose windows do not end."""
    with closing(open_log(log)) as opened:
        Versions(opened).apply(from_message(experiment(actions=10, window=86_400)))


def measure(log: Log, load: Load, seconds: float, server: OwnPostgres | None = None) -> Figures:
    """All writers at once."""
    prepare(log)
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(load.writers + 1)
    with ProcessPoolExecutor(load.writers, context, _meet_at, (together,)) as pool:
        task = partial(write, log, load, seconds=seconds)
        done = [pool.submit(task, writer=writer) for writer in range(load.writers)]
        together.wait()
        before = _cpu(server)
        time.sleep(seconds * 0.9)  # before the first writer closes its connection, with whose process its time goes
        spent = sum(used - before.get(pid, 0.0) for pid, used in _cpu(server).items()) / 0.9
        written = [one.result() for one in done]
    waits = list(chain.from_iterable(one.waits for one in written))
    count = len(waits) * load.group
    p50, p99 = np.quantile(waits, (0.5, 0.99))
    return Figures(
        rate=count / seconds,
        commits=len(waits) / seconds,
        writer_us=MICRO * sum(one.cpu for one in written) / count,
        server_us=MICRO * spent / count,
        p50=MILLI * p50,
        p99=MILLI * p99,
    )


def _cpu(server: OwnPostgres | None) -> dict[int, float]:
    """Seconds of each process of the database; some come and go."""
    return {} if server is None else {pid: cpu_seconds(pid) for pid in [server.pid, *children(server.pid)]}


class Kind(NamedTuple):
    """A database as it is set. settings: of PostgreSQL; None: an SQLite file, `synchronous=NORMAL`."""

    name: str
    settings: Settings | None
    has_standby: bool = False


SQLITE = Kind("SQLite", None)
AS_SHIPPED = Kind("PostgreSQL as it comes", ())
HEAD_ALONE = Kind("PostgreSQL without a disk", NO_DISK)

KINDS = (SQLITE, AS_SHIPPED, HEAD_ALONE)

TUNED = (
    AS_SHIPPED,
    Kind("fsync=off (never: a crash loses the database)", ("fsync=off",)),
    Kind("shared_buffers=2GB", ("shared_buffers=2GB",)),
    Kind("max_wal_size=8GB", ("max_wal_size=8GB",)),
    Kind("wal_compression=lz4", ("wal_compression=lz4",)),
    Kind("commit_delay=200, commit_siblings=1", ("commit_delay=200", "commit_siblings=1")),
    Kind("wal_level=minimal, no senders", ("wal_level=minimal", "max_wal_senders=0")),
    Kind("a synchronous standby on the same disk", (), has_standby=True),
)
"""What people change, one at a time: nothing that the log's connections set themselves, as `synchronous_commit`."""

TUNED_LOAD = Load(4, 32)


@contextmanager
def _logs(kind: Kind) -> Iterator[Iterator[tuple[Log, OwnPostgres | None]]]:
    """New logs of a kind, without end."""
    if kind.settings is None:
        with tempfile.TemporaryDirectory() as folder:
            yield ((Path(folder) / f"{number}.db", None) for number in range(10_000))
    else:
        with postgres(kind.settings, has_standby=kind.has_standby) as server:
            yield ((LogUrl(server.new_database(f"log{number}")), server) for number in range(10_000))


@contextmanager
def postgres(settings: Settings, *, has_standby: bool = False) -> Iterator[OwnPostgres]:
    """A new, empty server with these settings; with a standby that each commit waits for. Raises NoPostgres."""
    waits = [f"synchronous_standby_names={STANDBY}"] if has_standby else []
    with ExitStack() as opened:
        server = opened.enter_context(own_postgres([*settings, *waits]))
        if has_standby:
            opened.enter_context(own_postgres(settings, follows=server))
        yield server


def rows(kinds: Sequence[Kind], loads: Sequence[Load], seconds: float) -> Iterator[str]:
    """A line for each kind and load, in Markdown."""
    for kind in kinds:
        with _logs(kind) as logs:
            for load, (log, server) in zip(loads, logs, strict=False):
                found = measure(log, load, seconds, server)
                cells = (
                    kind.name, str(load.writers), str(load.group), f"{found.rate:,.0f}", f"{found.commits:,.0f}",
                    f"{found.writer_us:.0f}", f"{found.server_us:.0f}" if server else "-",
                    f"{found.p50:.2f}", f"{found.p99:.2f}",
                )  # fmt: skip
                yield f"| {' | '.join(cells)} |"


HEADINGS = (
    "log", "writers", "group", "decisions/s", "commits/s", "writer, us/decision", "database, us/decision",
    "p50 of a commit, ms", "p99, ms",
)  # fmt: skip


def _table(lines: Iterator[str]) -> str:
    table = [f"| {' | '.join(HEADINGS)} |", f"|---|{'--:|' * (len(HEADINGS) - 1)}"]
    click.echo("\n".join(table))
    for line in lines:
        click.echo(line)
        table.append(line)
    return "\n".join(table) + "\n"


@click.command()
@click.option("--seconds", default=4.0, show_default=True, help="Seconds of each load.")
@click.option("--publish", is_flag=True, help="Write the tables into RESULTS.md.")
def main(seconds: float, publish: bool) -> None:
    """How many decisions a second one log takes, and what PostgreSQL's settings do."""
    loads = [Load(writers, group) for group in GROUPS for writers in WRITERS]
    appended = _table(rows(KINDS, loads, seconds))
    tuned = _table(rows(TUNED, [TUNED_LOAD], seconds))
    if publish:
        write_results(appended, MARKERS)
        write_results(tuned, SETTINGS_MARKERS)


if __name__ == "__main__":
    main()
