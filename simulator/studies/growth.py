"""`make growth`: what grows with the log, with experiments, with versions and with actions, and what does not.

For each cell a log is written, a server learns it and stores its model, and a second one is measured as an operator
would see it: start-up, memory, descriptors, scrapes, processor time of a quiet server and of one with little traffic.
Linux only.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import NamedTuple

import click
from rich.console import Console
from rich.progress import Progress

from decider.experiment.definition import ExperimentVersion
from decider.experiment.schema import from_message
from decider.log.open import open_log
from decider.log.protocol import EventLog, NewReward, NewVersion
from decider.types import ActionId, Decision, DecisionId, Time, now
from simulator.studies.growth_plot import drawing
from simulator.studies.load import Load, frames
from simulator.studies.prepared import SECOND, SetClock, decisions, experiment, request, storefront_visitor
from simulator.studies.served import (
    ALL_CORES,
    LOAD_CORE,
    NotServing,
    Served,
    count_descriptors,
    count_threads,
    cpu_seconds,
    file_bytes,
    peak_bytes,
    resident_bytes,
    scrape,
    serving,
)

METHOD = "/decider.v1.DeciderService/Decide"
WINDOW = 2.0
"""Seconds of the reward windows: what is written is long sealed, what is sent is learned at once."""

AGE = 7_200
COMMITS_PER_SECOND = 10
A_COMMIT = 1_000
DIFFERENT = 2_000
REWARD_ONE_IN = 10
A_DAY = 86_400.0
RATE = 20
"""Decisions per second of the little traffic."""

NEXT_SCRAPES = 20
"""So that ticks of processor time, of 10 ms, can be told apart."""

BASE = 10_000
"""Decisions of the cells in which something else grows."""

MS, MB = 1_000.0, 1e6


class Cell(NamedTuple):
    """A log: so many of each. versions: of each experiment."""

    axis: str
    decisions: int = BASE
    experiments: int = 1
    versions: int = 1
    actions: int = 10

    @property
    def value(self) -> int:
        """Of what grows."""
        return int(getattr(self, self.axis))


@dataclass(frozen=True, slots=True)
class Figures:
    """first_start: seconds of a start that learns the whole log; start_up of a later one. memory, peak, log: bytes.
    quiet, step: ms of processor per second, with no call, and with 20 decisions a second that are learned. busy_scrape:
    the one after these. log: per decision. All else in seconds, of processor time where the name says so."""

    first_start: float
    start_up: float
    start_up_cpu: float
    memory: int
    peak: int
    descriptors: int
    threads: int
    quiet: float
    step: float
    first_scrape: float
    first_scrape_cpu: float
    busy_scrape_cpu: float
    next_scrape_cpu: float
    log: float


def cells(
    sizes: Sequence[int], experiments: Sequence[int], versions: Sequence[int], actions: Sequence[int]
) -> list[Cell]:
    """One thing grows at a time."""
    return [
        *(Cell("decisions", decisions=size) for size in sizes),
        *(Cell("experiments", experiments=count) for count in experiments),
        *(Cell("versions", versions=count) for count in versions),
        *(Cell("actions", actions=count) for count in actions),
    ]


QUICK = cells((1_000, 10_000), (1, 20), (1, 50), (3, 50))
USUAL = cells((100_000, 1_000_000), (1, 200), (1, 500, 5_000), (3, 10, 50, 200, 1_000))
LARGE = cells((100_000, 1_000_000, 10_000_000), (1, 200), (1, 500, 5_000), (3, 10, 50, 200, 1_000))


def write_log(db: Path, cell: Cell, tell: Callable[[int], None]) -> None:
    """Everything in it is sealed. `tell` is called with the decisions written."""
    clock = SetClock(Time(now() - AGE * SECOND))
    each = cell.decisions // (cell.versions * cell.experiments)
    with closing(open_log(db, clock=clock)) as log:
        written = 0
        for number in range(1, cell.versions + 1):
            for of in range(cell.experiments):
                version = _apply(log, f"e{of}", number, cell.actions)
                for batch in _batches(version, each, first=written):
                    _append(log, batch)
                    clock.time = Time(clock.time + SECOND // COMMITS_PER_SECOND)
                    written += len(batch)
                    tell(len(batch))


def _apply(log: EventLog, id_: str, number: int, actions: int) -> ExperimentVersion:
    made = experiment(id_, actions=actions, window=WINDOW)
    made.description = f"version {number}"
    (mark,) = log.append([NewVersion(from_message(made), number)])
    assert mark
    return log.version_at(mark.position)


def _batches(version: ExperimentVersion, count: int, *, first: int) -> Iterator[list[Decision]]:
    """Decisions like those of a server, of a few thousand contexts."""
    known = cycle(islice(decisions(version, storefront_visitor, prefix=""), min(count, DIFFERENT)))
    for at in range(first, first + count, A_COMMIT):
        numbers = range(at, min(at + A_COMMIT, first + count))
        yield [
            one._replace(decision_id=_id(n), unit_id=f"visitor-{n:x}") for n, one in zip(numbers, known, strict=False)
        ]


def _id(number: int) -> DecisionId:
    return DecisionId(f"01a1ffaa-9644-717d-b719-{number:012x}")


def _append(log: EventLog, batch: Sequence[Decision]) -> None:
    marks = [mark for mark in log.append(batch) if mark]
    log.append([NewReward(mark.position, "click", 1.0) for mark in marks[::REWARD_ONE_IN]])


def measure(db: Path, cell: Cell, seconds: float) -> Figures:
    """Raises NotServing where a server does not start."""
    with serving(db, cores=ALL_CORES, patience=A_DAY) as learner:
        first_start = learner.start_up
        scrape(learner.http, patience=A_DAY)  # a server that wrote this log would have counted it
        learner.stop()
    size = file_bytes(db) / cell.decisions
    with serving(db, cores=ALL_CORES, patience=A_DAY) as server:
        start_up_cpu = cpu_seconds(server.pid)
        first_scrape, first_scrape_cpu = _scrapes(server, 1)
        quiet = _cpu_share(server, lambda: time.sleep(seconds))
        step = _cpu_share(server, lambda: _little_traffic(server, cell, seconds))
        time.sleep(WINDOW)
        _, busy_scrape_cpu = _scrapes(server, 1)
        _, next_scrape_cpu = _scrapes(server, NEXT_SCRAPES)
        figures = Figures(
            first_start=first_start, start_up=server.start_up, start_up_cpu=start_up_cpu,
            memory=resident_bytes(server.pid), peak=peak_bytes(server.pid),
            descriptors=count_descriptors(server.pid), threads=count_threads(server.pid),
            quiet=quiet, step=step, first_scrape=first_scrape, first_scrape_cpu=first_scrape_cpu,
            busy_scrape_cpu=busy_scrape_cpu, next_scrape_cpu=next_scrape_cpu, log=size,
        )  # fmt: skip
        server.stop()
    return figures


def _scrapes(server: Served, times: int) -> tuple[float, float]:
    """(seconds, processor seconds of the server) of one of them."""
    before = cpu_seconds(server.pid)
    taken = [scrape(server.http, patience=A_DAY).seconds for _ in range(times)]
    return statistics.median(taken), (cpu_seconds(server.pid) - before) / times


def _cpu_share(server: Served, action: Callable[[], None]) -> float:
    """ms of the server's processor per second, while something is done."""
    before, started = cpu_seconds(server.pid), time.monotonic()
    action()
    return MS * (cpu_seconds(server.pid) - before) / (time.monotonic() - started)


def _little_traffic(server: Served, cell: Cell, seconds: float) -> None:
    """By the clock; all experiments in turns."""
    random, actions = Random(1), [ActionId(f"action-{number}") for number in range(cell.actions)]
    with Load(server.port) as load:
        started, number = time.monotonic(), 0
        while (passed := time.monotonic() - started) < seconds:
            while number < passed * RATE:
                question, of = storefront_visitor(random, actions), f"e{number % cell.experiments}"
                message = request(question, number=number, experiment_id=of).SerializeToString()
                load.call(frames(METHOD, message), number)
                number += 1
            load.answers(0.01)


HEADINGS = (
    "what grows", "", "first start, s", "start-up, s", "its cpu, s", "memory, MB", "peak, MB", "descriptors", "threads",
    "quiet, cpu ms/s", f"{RATE} decisions/s, cpu ms/s", "first scrape, s", "its cpu, s", "after traffic, cpu ms",
    "next, cpu ms",
    "log, bytes/decision",
)  # fmt: skip


def heading() -> str:
    """The first two lines of the table, in Markdown."""
    return f"| {' | '.join(HEADINGS)} |\n|---|{'--:|' * (len(HEADINGS) - 1)}"


def line(cell: Cell, of: Figures | str) -> str:
    """A row; a text says why there are no figures."""
    if isinstance(of, str):
        return f"| {cell.axis} | {cell.value:,} | {of} {'| ' * (len(HEADINGS) - 3)}|"
    figures = (
        f"{of.first_start:.1f}", f"{of.start_up:.1f}", f"{of.start_up_cpu:.1f}", f"{of.memory / MB:,.0f}",
        f"{of.peak / MB:,.0f}", f"{of.descriptors}", f"{of.threads}", f"{of.quiet:.0f}", f"{of.step:.0f}",
        f"{of.first_scrape:.2f}", f"{of.first_scrape_cpu:.2f}", f"{MS * of.busy_scrape_cpu:.0f}",
        f"{MS * of.next_scrape_cpu:.0f}", f"{of.log:,.0f}",
    )  # fmt: skip
    return f"| {cell.axis} | {cell.value:,} | {' | '.join(figures)} |"


def _measured(cell: Cell, folder: Path, seconds: float, tell: Callable[[int], None]) -> Figures | str:
    db = folder / f"{cell.axis}-{cell.value}.db"
    write_log(db, cell, tell)
    try:
        return measure(db, cell, seconds)
    except NotServing as error:
        return f"does not start: {str(error).splitlines()[-1]}"
    finally:
        for file in folder.glob(f"{db.name}*"):
            file.unlink()


@click.command(epilog='\b\nExample:\n  make growth ARGS="--large"')
@click.option("--large", is_flag=True, help="With a log of 10 million decisions.")
@click.option("--quick", is_flag=True, help="Small logs: is everything there?")
@click.option("--only", type=click.Choice(["decisions", "experiments", "versions", "actions"]), help="One thing grows.")
@click.option("--seconds", default=10.0, show_default=True, help="Of each measurement of processor time.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), default=Path("build/growth.svg"),
              show_default=True, help="Where the picture goes; the figures go beside it, as JSON.")  # fmt: skip
def main(large: bool, quick: bool, only: str | None, seconds: float, plot: Path) -> None:
    """What grows with a log, and what does not: a table on standard output, and a picture."""
    chosen = [cell for cell in (LARGE if large else QUICK if quick else USUAL) if only in (None, cell.axis)]
    os.sched_setaffinity(0, LOAD_CORE)
    click.echo(heading())
    found: list[tuple[Cell, Figures]] = []
    with tempfile.TemporaryDirectory() as name, Progress(console=Console(stderr=True), transient=True) as progress:
        for cell in chosen:
            task = progress.add_task(f"{cell.value:,} {cell.axis}", total=cell.decisions)
            of = _measured(cell, Path(name), seconds, lambda count, task=task: progress.advance(task, count))  # type: ignore[misc]
            click.echo(line(cell, of))
            found += [(cell, of)] if isinstance(of, Figures) else []
    plot.parent.mkdir(parents=True, exist_ok=True)
    plot.write_bytes(drawing([(cell.axis, cell.value, asdict(of)) for cell, of in found]))
    rows = [{**cell._asdict(), **asdict(of)} for cell, of in found]
    plot.with_suffix(".json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
