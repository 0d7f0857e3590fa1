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
from typing import NamedTuple

import click

from simulator.studies.bench import (
    DIFFERENT,
    FROZEN,
    LEARNING,
    METHOD,
    MICRO,
    MILLI,
    START_UP,
    CallFailed,
    serving_echo,
)
from simulator.studies.load import Frames, frames, play
from simulator.studies.prepared import Ask, never_twice, requests, storefront_visitor, write_log
from simulator.studies.results import write_results
from simulator.studies.served import LOAD_CORE, SERVER_CORE, children, cpu_seconds, serving

MARKERS = ("<!-- workers -->\n", "<!-- /workers -->")
EACH = 32
"""Calls in flight, and connections, for each worker."""

HEADINGS = ("what", "load", "/s", "serving, us", "leading, us", "p50, ms", "p99, ms", "p99, of the echo's")


class Load(NamedTuple):
    """window: seconds of rewards; all of the load is learned, or nothing of it."""

    name: str
    window: float
    ask: Ask


QUIET = Load("storefront, 20/s learned", FROZEN, storefront_visitor)
LOADS = (
    QUIET,
    Load("storefront, all learned", LEARNING, storefront_visitor),
    Load("contexts never twice, all learned", LEARNING, never_twice),
)
"""Where contexts come again, a worker that gets fewer calls in the life of a model finds fewer of them in its cache; so
two workers on one core cost more than on two. Where none comes twice, that makes no difference."""


@dataclass(frozen=True, slots=True)
class Kind:
    """workers: 0 for one process. load: what it learns of what it is asked."""

    name: str
    workers: int
    load: Load


KINDS = [
    Kind(name, workers, load)
    for load in LOADS
    for workers, name in enumerate(("one process", "leader and 1 worker", "leader and 2 workers"))
]
ECHO = Kind("echo", 0, QUIET)


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
    calls: Sequence[Frames]
    serving: Sequence[int]
    leading: Sequence[int]

    def measure(self, seconds: float) -> Figures:
        """Raises CallFailed, NotAnswered and ConnectionError."""
        load = EACH * max(1, self.kind.workers)
        before = _cpu(self.serving), _cpu(self.leading)
        played = play(self.port, self.calls, in_flight=load, seconds=seconds, connections=load)
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
    db, load = folder / f"{LOADS.index(kind.load)}-{kind.workers}.db", kind.load
    write_log(db, load.ask, actions=10, window=load.window, trickle=seconds + START_UP)
    calls = _calls(load)
    with serving(db, "--workers", str(kind.workers)) as server:
        if not kind.workers:
            yield Contestant(kind, server.port, calls, [server.pid], [])
        else:
            leader, *workers = children(server.pid)
            yield Contestant(kind, server.port, calls, workers, [leader, server.pid])


def _calls(load: Load) -> list[Frames]:
    many = requests(load.ask, actions=10, count=DIFFERENT)
    return [frames(f"{METHOD}Decide", message.SerializeToString()) for message in many]


def rows(folder: Path, *, seconds: float, rounds: int) -> list[str]:
    """A line for each kind, in Markdown."""
    with ExitStack() as opened:
        pid, port = opened.enter_context(serving_echo(SERVER_CORE, folder))
        whole = rounds * seconds * (len(KINDS) + 1)
        all_ = [opened.enter_context(contestant(kind, folder, whole)) for kind in KINDS]
        all_.append(Contestant(ECHO, port, _calls(QUIET), [pid], []))
        found: dict[Kind, list[Figures]] = {one.kind: [] for one in all_}
        for one in all_:
            one.measure(min(1.0, seconds))
        for _ in range(rounds):
            for one in all_:
                found[one.kind].append(one.measure(seconds))
    medians = {kind: _medians(several) for kind, several in found.items()}
    return [_line(kind, of, medians[ECHO]) for kind, of in medians.items()]


def _medians(of: Sequence[Figures]) -> Figures:
    names = ("rate", "serving", "leading", "p50", "p99")
    return Figures(*(statistics.median(getattr(one, name) for one in of) for name in names))


def _line(kind: Kind, of: Figures, echo_: Figures) -> str:
    cells = (
        kind.name, kind.load.name, f"{of.rate:,.0f}",
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
