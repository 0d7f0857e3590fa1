"""`make workers`: what does a decision cost with a leader apart, and with a second worker, while all of it is learned?

Each kind of server is up at the same time, on a log of its own, and all play the same load in turns; so does a bare
grpcio echo server, for the p99. All share one core and the load has another: the processor time of a decision is the
measure, since two cores cannot show more. The load grows with the workers. Linux only.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from simulator.studies.bench import DIFFERENT, FROZEN, LEARNING, METHOD, MICRO, MILLI, START_UP, CallFailed, serving_echo
from simulator.studies.load import Frames, frames, play
from simulator.studies.prepared import requests, storefront_visitor, write_log
from simulator.studies.results import write_results
from simulator.studies.served import LOAD_CORE, SERVER_CORE, children, cpu_seconds, serving

MARKERS = ("<!-- workers -->\n", "<!-- /workers -->")
EACH = 32
"""Calls in flight, and connections, for each worker."""

HEADINGS = ("what", "learns", "/s", "serving, us", "leading, us", "p50, ms", "p99, ms", "p99, of the echo's")


@dataclass(frozen=True, slots=True)
class Kind:
    """workers: 0 for one process. window: seconds of rewards; all of the load is learned, or nothing of it."""

    name: str
    workers: int
    window: float


KINDS = [
    Kind(name, workers, window)
    for window in (FROZEN, LEARNING)
    for workers, name in enumerate(("one process", "leader and 1 worker", "leader and 2 workers"))
]
ECHO = Kind("echo", 0, FROZEN)


@dataclass(frozen=True, slots=True)
class Figures:
    """rate: decisions per second. serving, leading: microseconds of processor time for each. p50, p99: ms."""

    rate: float
    serving: float
    leading: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server under load. serving, leading: its processes."""

    kind: Kind
    port: int
    serving: Sequence[int]
    leading: Sequence[int]

    def measure(self, calls: Sequence[Frames], seconds: float) -> Figures:
        """Raises CallFailed, NotAnswered and ConnectionError."""
        load = EACH * max(1, self.kind.workers)
        before = _cpu(self.serving), _cpu(self.leading)
        played = play(self.port, calls, in_flight=load, seconds=seconds, connections=load)
        if set(played.statuses) != {0}:
            raise CallFailed(f"statuses of the answers: {dict(played.statuses)}")
        spent = _cpu(self.serving) - before[0], _cpu(self.leading) - before[1]
        serving_us, leading_us = (MICRO * one / played.calls for one in spent)
        return Figures(played.rate, serving_us, leading_us, MILLI * played.latency(0.5), MILLI * played.latency(0.99))


def _cpu(pids: Sequence[int]) -> float:
    return sum(map(cpu_seconds, pids))


@contextmanager
def contestant(kind: Kind, folder: Path, seconds: float) -> Iterator[Contestant]:
    """A server, ready. seconds: how long all will be measured."""
    db = folder / f"{kind.workers}-{kind.window:g}.db"
    write_log(db, storefront_visitor, actions=10, window=kind.window, trickle=seconds + START_UP)
    with serving(db, "--workers", str(kind.workers)) as server:
        if not kind.workers:
            yield Contestant(kind, server.port, [server.pid], [])
        else:
            leader, *workers = children(server.pid)
            yield Contestant(kind, server.port, workers, [leader, server.pid])


def rows(folder: Path, *, seconds: float, rounds: int) -> list[str]:
    """A line for each kind, in Markdown."""
    calls = [
        frames(f"{METHOD}Decide", message.SerializeToString())
        for message in requests(storefront_visitor, actions=10, count=DIFFERENT)
    ]
    with ExitStack() as opened:
        pid, port = opened.enter_context(serving_echo(SERVER_CORE, folder))
        whole = rounds * seconds * (len(KINDS) + 1)
        all_ = [opened.enter_context(contestant(kind, folder, whole)) for kind in KINDS]
        all_.append(Contestant(ECHO, port, [pid], []))
        found: dict[Kind, list[Figures]] = {one.kind: [] for one in all_}
        for one in all_:
            one.measure(calls, min(1.0, seconds))
        for _ in range(rounds):
            for one in all_:
                found[one.kind].append(one.measure(calls, seconds))
    medians = {kind: _medians(several) for kind, several in found.items()}
    return [_line(kind, of, medians[ECHO]) for kind, of in medians.items()]


def _medians(of: Sequence[Figures]) -> Figures:
    names = ("rate", "serving", "leading", "p50", "p99")
    return Figures(*(statistics.median(getattr(one, name) for one in of) for name in names))


def _line(kind: Kind, of: Figures, echo_: Figures) -> str:
    cells = (
        kind.name, "" if kind is ECHO else "all of it" if kind.window == LEARNING else "20/s", f"{of.rate:,.0f}",
        f"{of.serving:.0f}", f"{of.leading:.0f}", f"{of.p50:.1f}", f"{of.p99:.1f}", f"{of.p99 / echo_.p99:.2f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


@click.command()
@click.option("--seconds", default=4.0, show_default=True, help="Seconds of each load.")
@click.option("--rounds", default=3, show_default=True, help="Rounds of each comparison.")
@click.option("--publish", is_flag=True, help="Write the table into RESULTS.md.")
def main(seconds: float, rounds: int, publish: bool) -> None:
    """What a decision costs in one process, with a leader apart, and with two workers."""
    os.sched_setaffinity(0, LOAD_CORE)
    with tempfile.TemporaryDirectory() as name:
        lines = rows(Path(name), seconds=seconds, rounds=rounds)
    table = "\n".join([f"| {' | '.join(HEADINGS)} |", f"|---|---|{'--:|' * (len(HEADINGS) - 2)}", *lines])
    click.echo(table)
    if publish:
        write_results(f"{table}\n", MARKERS)


if __name__ == "__main__":
    main()
