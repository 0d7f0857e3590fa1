"""`make workers`: what does a decision cost with a leader apart, and with a second worker, while all of it is learned?
Then how soon each worker knows what is new (`worker_news.py`), what commits of several writers cost
(`worker_commits.py`), and how connections fall on workers (`worker_connections.py`).

Each kind of server has a log of its own, and all play the same load in turns, in another order each round; so do bare
grpcio echo servers. Who is not measured stands still (SIGSTOP). What serves shares one core; leaders and the load have
the other one: the processor time of a decision is the measure, since two cores cannot show more. The load grows with
the workers. Two processes on one core cost more than one whatever they do, as two echo servers show; so two workers are
compared with two servers of one worker each, side by side on that core, which have nothing in common. Linux only.
"""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

import click

from simulator.studies import worker_commits, worker_connections
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
from simulator.studies.bench_access import Spread, spread
from simulator.studies.load import Frames, frames, play
from simulator.studies.prepared import Ask, never_twice, requests, storefront_visitor, write_log
from simulator.studies.results import write_results
from simulator.studies.served import LOAD_CORE, SERVER_CORE, Served, children, cpu_seconds, keep_to, serving
from simulator.studies.worker_news import News, measure_news

MARKERS = ("<!-- workers -->\n", "<!-- /workers -->")
EACH = 32
"""Calls in flight, and connections, for each worker."""

WARM = 0.5
"""Seconds of load before a measurement."""

HEADINGS = ("what", "load", "/s", "serving, us", "leading, us", "p50, ms", "p99, ms")


class Load(NamedTuple):
    """window: seconds of rewards; all of the load is learned, or nothing of it."""

    name: str
    window: float
    ask: Ask


QUIET = Load("storefront, 20/s learned", FROZEN, storefront_visitor)
LEARNED = Load("storefront, all learned", LEARNING, storefront_visitor)
LOADS = (QUIET, LEARNED, Load("contexts never twice, all learned", LEARNING, never_twice))


class Kind(NamedTuple):
    """servers: side by side. workers: of each; 0 for one process. load: what it is asked and learns of it; None for
    echo servers."""

    servers: int
    workers: int
    load: Load | None

    @property
    def name(self) -> str:
        """What it is."""
        if self.load is None:
            return "echo" if self.servers == 1 else f"{self.servers} echoes"
        if not self.workers:
            return "one process"
        one = f"leader and {self.workers} worker{'s' if self.workers > 1 else ''}"
        return one if self.servers == 1 else f"{self.servers} times {one}"

    @property
    def in_flight(self) -> int:
        """Calls, and connections."""
        return EACH * self.servers * max(1, self.workers)


SHAPES = ((1, 0), (1, 1), (2, 1), (1, 2))
"""Servers and workers of each."""

ECHO, ECHOES = Kind(1, 0, None), Kind(2, 0, None)
KINDS = [ECHO, ECHOES, *[Kind(servers, workers, load) for load in LOADS for servers, workers in SHAPES]]


@dataclass(frozen=True, slots=True)
class Figures:
    """rate: decisions per second. serving, leading: microseconds of processor time for each. p50, p99: ms."""

    rate: float
    serving: float
    leading: float
    p50: float
    p99: float


class Ratio(NamedTuple):
    """of, to: kinds. most: the target."""

    what: str
    of: Kind
    to: Kind
    figure: Callable[[Figures], float]
    most: float | None


def _serving(of: Figures) -> float:
    return of.serving


def _p99(of: Figures) -> float:
    return of.p99


def _ratios_of(load: Load) -> list[Ratio]:
    one, two, apart = Kind(1, 1, load), Kind(1, 2, load), Kind(2, 1, load)
    return [
        Ratio(f"serving, us: 2 workers to 2 servers of one; {load.name}", two, apart, _serving, 1.1),
        Ratio(f"serving, us: 2 workers to one alone; {load.name}", two, one, _serving, 1.1),
        Ratio(f"p99: 1 worker to the echo; {load.name}", one, ECHO, _p99, 2.0),
        Ratio(f"p99: 2 workers to 2 echoes; {load.name}", two, ECHOES, _p99, 2.0),
    ]


def _ratio_of_learning(workers: int) -> Ratio:
    what = f"serving, us: all learned to 20/s; {workers} worker{'s' if workers > 1 else ''}"
    return Ratio(what, Kind(1, workers, LEARNED), Kind(1, workers, QUIET), _serving, 1.05)


RATIOS = [
    *[ratio for load in LOADS for ratio in _ratios_of(load)],
    *map(_ratio_of_learning, (1, 2)),
    Ratio("serving, us: 2 echoes to one alone", ECHOES, ECHO, _serving, None),
]


@dataclass(frozen=True, slots=True)
class Contestant:
    """Servers under load. serving, leading: their processes. db: the first one's log."""

    kind: Kind
    ports: Sequence[int]
    calls: Sequence[Frames]
    serving: Sequence[int]
    leading: Sequence[int]

    def measure(self, seconds: float) -> Figures:
        """Raises CallFailed, NotAnswered and ConnectionError."""
        port, *also = self.ports
        load = self.kind.in_flight
        with self._awake():
            play(port, self.calls, in_flight=load, seconds=WARM, connections=load, also=also)
            before = _cpu(self.serving), _cpu(self.leading)
            played = play(port, self.calls, in_flight=load, seconds=seconds, connections=load, also=also)
            spent = _cpu(self.serving) - before[0], _cpu(self.leading) - before[1]
        if set(played.statuses) != {0}:
            raise CallFailed(f"statuses of the answers: {dict(played.statuses)}")
        serving_us, leading_us = (MICRO * one / played.calls for one in spent)
        return Figures(played.rate, serving_us, leading_us, MILLI * played.latency(0.5), MILLI * played.latency(0.99))

    @contextmanager
    def _awake(self) -> Iterator[None]:
        self.signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.signal(signal.SIGSTOP)

    def signal(self, number: signal.Signals) -> None:
        """To all of its processes."""
        for pid in (*self.serving, *self.leading):
            os.kill(pid, number)


def _cpu(pids: Sequence[int]) -> float:
    return sum(map(cpu_seconds, pids))


@contextmanager
def contestant(kind: Kind, folder: Path, seconds: float) -> Iterator[Contestant]:
    """Servers, ready, which stand still. seconds: how long all will be measured."""
    with ExitStack() as opened:
        ports, serving_, leading = [], list[int](), list[int]()
        for number in range(kind.servers):
            if kind.load is None:
                pid, port = opened.enter_context(serving_echo(SERVER_CORE, folder))
                pids: tuple[list[int], list[int]] = [pid], []
            else:
                server = opened.enter_context(_server(kind, kind.load, folder, number, seconds))
                port, pids = server.port, _processes(server, kind.workers)
            ports.append(port)
            serving_ += pids[0]
            leading += pids[1]
        made = Contestant(kind, ports, _calls(kind.load or QUIET), serving_, leading)
        made.signal(signal.SIGSTOP)
        try:
            yield made
        finally:
            made.signal(signal.SIGCONT)


@contextmanager
def _server(kind: Kind, load: Load, folder: Path, number: int, seconds: float) -> Iterator[Served]:
    db = folder / f"{LOADS.index(load)}-{kind.servers}-{kind.workers}-{number}.db"
    write_log(db, load.ask, actions=10, window=load.window, trickle=seconds + START_UP)
    with serving(db, "--workers", str(kind.workers)) as server:
        yield server


def _processes(server: Served, workers: int) -> tuple[list[int], list[int]]:
    """Those that serve, and those that lead, which get the other core."""
    if not workers:
        return [server.pid], []
    leader, *serving_ = children(server.pid)
    keep_to(leader, LOAD_CORE)
    return serving_, [leader, server.pid]


def _calls(load: Load) -> list[Frames]:
    many = requests(load.ask, actions=10, count=DIFFERENT)
    return [frames(f"{METHOD}Decide", message.SerializeToString()) for message in many]


def measure(folder: Path, *, seconds: float, rounds: int) -> Mapping[Kind, Sequence[Figures]]:
    """Of each round."""
    found: dict[Kind, list[Figures]] = {kind: [] for kind in KINDS}
    with ExitStack() as opened:
        whole = rounds * (seconds + WARM) * len(KINDS)
        all_ = [opened.enter_context(contestant(kind, folder, whole)) for kind in KINDS]
        random = Random(1)
        for _ in range(rounds):
            random.shuffle(all_)
            for one in all_:
                found[one.kind].append(one.measure(seconds))
    return found


def table(found: Mapping[Kind, Sequence[Figures]]) -> list[str]:
    """Medians of each kind, in Markdown."""
    lines = [f"| {' | '.join(HEADINGS)} |", f"|---|---|{'--:|' * (len(HEADINGS) - 2)}"]
    return lines + [_line(kind, _medians(several)) for kind, several in found.items()]


def _medians(of: Sequence[Figures]) -> Figures:
    names = ("rate", "serving", "leading", "p50", "p99")
    return Figures(*(statistics.median(getattr(one, name) for one in of) for name in names))


def _line(kind: Kind, of: Figures) -> str:
    load = kind.load.name if kind.load else ""
    cells = (
        kind.name, load, f"{of.rate:,.0f}", f"{of.serving:.0f}", f"{of.leading:.0f}", f"{of.p50:.1f}", f"{of.p99:.1f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def ratios(found: Mapping[Kind, Sequence[Figures]]) -> list[str]:
    """Of the same rounds, in Markdown."""
    lines = ["| ratio | median | 95 % | target | |", "|---|--:|--:|--:|---|"]
    for one in RATIOS:
        pairs = zip(found[one.of], found[one.to], strict=True)
        lines.append(_ratio_line(one, spread([one.figure(of) / one.figure(to) for of, to in pairs])))
    return lines


def _ratio_line(one: Ratio, of: Spread) -> str:
    target, reached = ("", "") if one.most is None else (f"{one.most:g}", "yes" if of.median <= one.most else "**no**")
    return f"| {one.what} | {of.median:.2f} | {of.low:.2f} to {of.high:.2f} | {target} | {reached} |"


def news(folder: Path, *, changes: int, seconds: float) -> News:
    """Of two workers that learn all of their load."""
    kind = Kind(1, 2, LEARNED)
    with ExitStack() as opened:
        whole = seconds + 2 * changes
        server = opened.enter_context(_server(kind, LEARNED, folder, 9, whole))
        _processes(server, kind.workers)
        db = folder / f"{LOADS.index(LEARNED)}-1-2-9.db"
        return measure_news(
            server.port, db, _calls(LEARNED), connections=kind.in_flight, changes=changes, seconds=seconds
        )


def news_table(of: News) -> list[str]:
    """In Markdown."""
    lines = ["| under load, ms | times | median | 95 % | worst |", "|---|--:|--:|--:|--:|"]
    return lines + [
        f"| {name} | {one.times} | {one.median:.0f} | {one.high:.0f} | {one.worst:.0f} |"
        for name, one in zip(
            (
                "a pause or resumption, from the call to its reply",
                "from a pause's reply to the last decision that somebody gets who calls after it",
                "from a resumption's reply to the last refusal",
                "from a model's publishing to the last decision by an older one, in each worker",
            ),
            of,
            strict=True,
        )
    ]


@click.command()
@click.option("--seconds", default=1.5, show_default=True, help="Seconds of each load.")
@click.option("--rounds", default=6, show_default=True, help="Rounds of each comparison.")
@click.option("--changes", default=200, show_default=True, help="Pauses, and as many resumptions.")
@click.option("--publish", is_flag=True, help="Write the tables into RESULTS.md.")
def main(seconds: float, rounds: int, changes: int, publish: bool) -> None:
    """What a decision costs in one process, with a leader apart, and with two workers."""
    os.sched_setaffinity(0, LOAD_CORE)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        found = measure(folder, seconds=seconds, rounds=rounds)
        tables = [table(found), ratios(found)]
        click.echo("\n\n".join("\n".join(one) for one in tables))
        # While all of this load is learned a model comes each second or so, and two workers serve it.
        tables.append(news_table(news(folder, changes=changes, seconds=0.65 * changes)))
        click.echo("\n" + "\n".join(tables[-1]))
        for part in (worker_commits, worker_connections):
            tables.append(part.table(folder))
            click.echo("\n" + "\n".join(tables[-1]))
    if publish:
        write_results("\n\n".join("\n".join(one) for one in tables) + "\n", MARKERS)


if __name__ == "__main__":
    main()
