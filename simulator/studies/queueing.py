"""`make queueing`: how long does a call wait, with how many workers, at what load, and with how slow a commit?

A simulation of the queues of many machines, seeded, since this one has two cores. Each worker is a processor (Python's
interpreter lock) with two threads, which answer calls in groups as `group_commit.py` does; all workers of a log take
turns at its head row. What each step takes was measured: see `Costs`. Compared with closed forms by the tests, and
with a real server here by `--real`. Called by nobody else; its tables are in RESULTS.md, and `decider/SCALING.md`
rests on them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import click
import numpy as np
import simpy

from decider.log.group_commit import MOST_WAITING
from simulator.studies.bench import DIFFERENT, FROZEN, METHOD, START_UP, Contestant, Figures, medians
from simulator.studies.load import frames
from simulator.studies.prepared import requests, storefront_visitor, write_log
from simulator.studies.results import write_results
from simulator.studies.served import LOAD_CORE, serving
from simulator.studies.sizing import HEADS as SIZE_HEADS
from simulator.studies.sizing import LOG_RATE, SIZES_MARKERS, size_rows
from simulator.studies.sizing import PAGE as SIZES_PAGE

LOAD_MARKERS = ("<!-- queueing-load -->\n", "<!-- /queueing-load -->")
WORKER_MARKERS = ("<!-- queueing-workers -->\n", "<!-- /queueing-workers -->")
REAL_MARKERS = ("<!-- queueing-real -->\n", "<!-- /queueing-real -->")

PLAN_MARKERS = ("<!-- plan -->\n", "<!-- /plan -->")

LOAD_HEADS = ("calls/s", "processor", "no disk", "this disk", "2 ms")
PLAN_HEADS = ("workers", "processor", "no disk", "this disk", "2 ms", "calls of a commit, this disk")
WORKER_HEADS = (
    "workers", "most/s, no disk", "p50; p99, ms", "most/s, this disk", "p50; p99, ms", "most/s, 2 ms", "p50; p99, ms",
)  # fmt: skip
REAL_HEADS = (
    "in flight", "cpu, us", "/s: real; simulated", "p50, ms", "p99, ms", "error of /s", "of p50", "of p99",
)  # fmt: skip

Steps = Generator[simpy.Event, Any, None]
"""What a process of the simulation waits for."""

THREADS = 2
"""Of a worker, as `--threads`."""

SWITCH = 0.005
"""Seconds after which Python takes the interpreter lock from a thread that does not let go of it."""

WARM_UP = 0.25
"""So many calls, of those that are counted, go before them: the queues begin empty."""

COPY_FROM = 200
"""Decisions from which on a commit is streamed, which asks the database three times with the head row taken: as in
`decider/log/postgres/writer.py`."""

MICRO, MILLI = 1e-6, 1e-3


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of each step. The defaults were measured, see SCALING.md: of a log in PostgreSQL without a disk.

    known, unknown: processor of a worker for a call whose context it has asked the serving model before, and for
    another. commit, commit_each: processor of a worker for a commit, and for each decision in it.
    hold, hold_each: while a commit has the head row. disk: what it waits for the disk or a standby meanwhile, on
    average; disk_spread: standard deviation of the logarithm of that. round_trips: to the database while it has the
    row, of groups from `stream_from` on. new_model: processor of each worker for a new model, twice a second.
    """

    known: float = 180 * MICRO
    unknown: float = 337 * MICRO
    commit: float = 190 * MICRO
    commit_each: float = 10 * MICRO
    hold: float = 160 * MICRO
    hold_each: float = 7 * MICRO
    disk: float = 0.0
    disk_spread: float = 0.0
    stream_from: int = COPY_FROM
    round_trips: int = 3
    new_model: float = 2.2 * MILLI

    def held(self, count: int, network: float, disk: float) -> float:
        """Seconds for which a commit of so many has the head row. network: seconds to the database and back."""
        trips = self.round_trips if count >= self.stream_from else 0
        return self.hold + self.hold_each * count + trips * network + disk

    def call(self, known: float, group: float) -> float:
        """Processor of a worker for a call, on average. known: share of the calls; group: calls of a commit."""
        return known * self.known + (1 - known) * self.unknown + self.commit_each + self.commit / group


@dataclass(frozen=True, slots=True)
class Setting:
    """What is simulated. rate: calls a second of all workers, at random times (Poisson); or in_flight: calls of each
    worker, each sent as soon as the one before is answered. network: seconds to the database and back. experiments:
    that learn. calls: how many are counted."""

    workers: int = 1
    rate: float = 0.0
    in_flight: int = 0
    costs: Costs = field(default_factory=Costs)
    network: float = 0.0
    experiments: int = 1
    calls: int = 30_000
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Found:
    """rate: calls answered per second. waits: seconds from sending to answer. group: decisions of a commit, on average.
    known: share of the calls whose context a worker's model was asked before. head: share of the time in which the
    head row is taken; worker: in which a worker's processor is."""

    rate: float
    waits: np.ndarray[Any, np.dtype[np.float64]]
    group: float
    known: float
    head: float
    worker: float

    def quantile(self, share: float) -> float:
        """Seconds within which so many are answered."""
        return float(np.quantile(self.waits, share))


@cache
def contexts() -> Sequence[int]:
    """Of many visitors to the storefront, by number: some come much more often than others."""
    random, numbers = Random(2), dict[str, int]()
    visitors = (repr(storefront_visitor(random, ()).context) for _ in range(DIFFERENT))
    return [numbers.setdefault(one, len(numbers)) for one in visitors]


class Line:
    """Servers with one queue, first come first served. busy: seconds, of all of them."""

    def __init__(self, env: simpy.Environment, servers: int = 1) -> None:
        self._env, self._servers = env, simpy.Resource(env, servers)
        self.busy = 0.0

    def serve(self, seconds: float) -> Steps:
        """Wait for a turn and take so long."""
        with self._servers.request() as turn:
            yield turn
            self.busy += seconds
            yield self._env.timeout(seconds)


class _Cluster:
    """Workers on one log."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.env = simpy.Environment()
        self.head = Line(self.env)
        self.random = Random(setting.seed)
        self.workers = [_Worker(self) for _ in range(setting.workers)]
        self.waits: list[float] = []
        self.groups: list[int] = []
        starts = [self._send_at_random()] if setting.rate else self._loops()
        for steps in starts:
            self.env.process(steps)

    def _loops(self) -> list[Steps]:
        return [self._send_again(worker) for worker in self.workers for _ in range(self.setting.in_flight)]

    def _send_at_random(self) -> Steps:
        while True:
            yield self.env.timeout(self.random.expovariate(self.setting.rate))
            self.random.choice(self.workers).calls.put(self._new_call())

    def _send_again(self, worker: _Worker) -> Steps:
        while True:
            call = self._new_call()
            worker.calls.put(call)
            yield call.answered

    def _new_call(self) -> _Call:
        return _Call(self.env.now, self.env.event())

    def answer(self, call: _Call) -> None:
        """To whoever sent it."""
        self.waits.append(self.env.now - call.sent)
        call.answered.succeed()
        if len(self.waits) == self._enough:
            self._answered.succeed()

    def hold(self, count: int) -> float:
        """Seconds for which a commit of so many has the head row."""
        costs = self.setting.costs
        spread = costs.disk_spread
        irregular = self.random.lognormvariate(-spread * spread / 2, spread)  # 1 on average
        return costs.held(count, self.setting.network, costs.disk * irregular)

    def run(self) -> Found:
        """Until all calls are answered."""
        self._run_until(int(WARM_UP * self.setting.calls))
        begin = self.env.now
        self._forget()
        self._run_until(self.setting.calls)
        seconds = self.env.now - begin
        return Found(
            rate=len(self.waits) / seconds,
            waits=np.array(self.waits),
            group=float(np.mean(self.groups)),
            known=sum(one.known for one in self.workers) / sum(one.asked for one in self.workers),
            head=self.head.busy / seconds,
            worker=sum(one.processor.busy for one in self.workers) / seconds / len(self.workers),
        )

    def _run_until(self, answers: int) -> None:
        self._enough, self._answered = answers, self.env.event()
        self.env.run(self._answered)

    def _forget(self) -> None:
        """What was counted; the queues stay."""
        self.waits.clear()
        self.groups.clear()
        self.head.busy = 0.0
        for worker in self.workers:
            worker.processor.busy, worker.known, worker.asked = 0.0, 0, 0


@dataclass(frozen=True, slots=True)
class _Call:
    sent: float
    answered: simpy.Event


class _Worker:
    """A process that serves: its threads share one processor, and one connection to the log."""

    def __init__(self, cluster: _Cluster) -> None:
        self._cluster, self._env = cluster, cluster.env
        self.calls = simpy.Store(cluster.env)
        self._contexts: set[int] = set()  # that its model was asked before
        self.asked = self.known = 0
        self.processor, self._connection = Line(cluster.env), simpy.Resource(cluster.env)
        for _ in range(THREADS):
            cluster.env.process(self._thread())
        cluster.env.process(self._load_models())

    def _thread(self) -> Steps:
        while True:
            group: list[_Call] = []
            yield from self._take_call(group)
            while len(group) < MOST_WAITING and self.calls.items:
                yield from self._take_call(group)
            yield from self._commit(len(group))
            for call in group:
                self._cluster.answer(call)

    def _take_call(self, group: list[_Call]) -> Steps:
        group.append((yield self.calls.get()))
        yield from self.processor.serve(self._ask())

    def _ask(self) -> float:
        """Seconds of processor for a call."""
        costs, context = self._cluster.setting.costs, self._cluster.random.choice(contexts())
        self.asked += 1
        if context in self._contexts:
            self.known += 1
            return costs.known
        self._contexts.add(context)
        return costs.unknown

    def _commit(self, count: int) -> Steps:
        """The head is taken when the statement has reached the database, and let go before its answer leaves."""
        costs, network = self._cluster.setting.costs, self._cluster.setting.network
        with self._connection.request() as turn:
            yield turn
            yield from self.processor.serve(costs.commit + count * costs.commit_each)
            yield self._env.timeout(network / 2)
            yield from self._cluster.head.serve(self._cluster.hold(count))
            yield self._env.timeout(network / 2)
        self._cluster.groups.append(count)

    def _load_models(self) -> Steps:
        """Each worker at its own time."""
        left = self._cluster.setting.experiments * self._cluster.setting.costs.new_model
        yield self._env.timeout(self._cluster.random.random() / 2)
        while left:
            whole, rest = divmod(left, SWITCH)
            for part in [SWITCH] * int(whole) + [rest]:
                yield from self.processor.serve(part)
            self._contexts.clear()
            yield self._env.timeout(0.5)


def simulate(setting: Setting) -> Found:
    """One run; the same setting gives the same figures."""
    return _Cluster(setting).run()


NETWORK = 0.2 * MILLI
"""Seconds to the database and back, within one building: an estimate."""


class Disk(NamedTuple):
    """What a commit waits for. seconds: on average; spread: see Costs."""

    seconds: float
    spread: float


NO_DISK = Disk(0.0, 0.0)
"""A commit that waits for nothing."""

THIS_DISK = Disk(0.23 * MILLI, 1.3)
"""Of the machine where this was measured: p50 0.15 ms, p99 some 3 ms."""

SLOW_DISK = Disk(2 * MILLI, 0.5)
"""A network disk, or a standby that each commit waits for: an estimate."""

DISKS = (NO_DISK, THIS_DISK, SLOW_DISK)


def costs_of(disk: Disk) -> Costs:
    """Those of a log in PostgreSQL on that disk."""
    return Costs(disk=disk.seconds, disk_spread=disk.spread)


RATES = (1_000, 2_000, 2_500, 3_000)
"""Calls a second of one worker."""

WORKERS = (1, 4, 8, 16, 32)
ENOUGH = 64
"""Calls in flight for each worker, so that both threads always find a full group."""

USED = 0.7
"""Of the largest rate."""


def load_rows(rates: Sequence[int] = RATES, disks: Sequence[Disk] = DISKS) -> Iterator[str]:
    """One worker: how long calls wait, by load and commit."""
    for rate in rates:
        found = [simulate(Setting(rate=rate, network=NETWORK, costs=costs_of(disk))) for disk in disks]
        cells = [f"{rate:,}", f"{100 * found[0].worker:.0f} %", *map(_waits, found)]
        yield f"| {' | '.join(cells)} |"


def worker_rows(workers: Sequence[int] = WORKERS, disks: Sequence[Disk] = DISKS) -> Iterator[str]:
    """Many workers on one log: what it takes at most, and how long calls wait at 70 % of that."""
    for count in workers:
        cells = [str(count)]
        for disk in disks:
            full = Setting(workers=count, in_flight=ENOUGH, network=NETWORK, costs=costs_of(disk))
            most = simulate(full).rate
            cells += [f"{most:,.0f}", _waits(simulate(replace(full, in_flight=0, rate=USED * most)))]
        yield f"| {' | '.join(cells)} |"


PLANNED = (4, 5, 6)
"""Workers on a log of LOG_RATE decisions a second."""


def plan_rows(workers: Sequence[int] = PLANNED, disks: Sequence[Disk] = DISKS) -> Iterator[str]:
    """A log as SCALING.md plans it: how long calls wait."""
    for count in workers:
        found = [
            simulate(Setting(workers=count, rate=LOG_RATE, network=NETWORK, costs=costs_of(disk))) for disk in disks
        ]
        cells = [str(count), f"{100 * found[0].worker:.0f} %", *map(_waits, found), f"{found[1].group:.1f}"]
        yield f"| {' | '.join(cells)} |"


def _waits(found: Found) -> str:
    return f"{found.quantile(0.5) / MILLI:.1f}; {found.quantile(0.99) / MILLI:.1f}"


SQLITE = Costs(commit=84 * MICRO, commit_each=9 * MICRO, hold=0.0, hold_each=0.0, round_trips=0, new_model=24 * MILLI)
"""One process on a file: a commit is work of its own processor, nobody else has the head row, and it makes its models
itself (48 ms of processor a second, by `make growth`)."""

REAL_IN_FLIGHT = (8, 32, 64)
GIVEN = 32
"""Calls in flight at which the processor time of a call is taken from the real server; the rest is foretold."""


def fitted(processor: float) -> Costs:
    """Those of one process on a file whose call takes so many seconds of processor, commits included."""
    costs = SQLITE
    for _ in range(3):  # groups depend on the costs, which depend on the groups
        found = simulate(Setting(in_flight=GIVEN, costs=costs, calls=8_000))
        less = costs.call(found.known, found.group) + 2 * costs.new_model / found.rate - processor
        costs = replace(costs, known=costs.known - less, unknown=costs.unknown - less)
    return costs


def real_rows(folder: Path, *, seconds: float, rounds: int) -> Iterator[str]:
    """One process on a file, on a core of its own, beside what the simulation says. Linux only."""
    db = folder / "log.db"
    whole = rounds * seconds * len(REAL_IN_FLIGHT) + START_UP
    write_log(db, storefront_visitor, actions=10, window=FROZEN, trickle=whole)
    messages = [one.SerializeToString() for one in requests(storefront_visitor, actions=10, count=DIFFERENT)]
    calls = [frames(f"{METHOD}Decide", message) for message in messages]
    found: dict[int, list[Figures]] = {count: [] for count in REAL_IN_FLIGHT}
    with serving(db) as server:
        contestants = {count: Contestant(server.pid, server.port, calls, 1, count, count) for count in found}
        contestants[GIVEN].measure(min(1.0, seconds))
        for _ in range(rounds):
            for count, one in contestants.items():
                found[count].append(one.measure(seconds))
    real = {count: medians(several) for count, several in found.items()}
    costs = fitted(real[GIVEN].cpu * MICRO)
    for count, of in real.items():
        said = simulate(Setting(in_flight=count, costs=costs))
        yield _beside(count, of, said)


def _beside(count: int, of: Figures, said: Found) -> str:
    pairs = (of.rate, said.rate), (of.p50, said.quantile(0.5) / MILLI), (of.p99, said.quantile(0.99) / MILLI)
    cells = [f"{one:,.{digits}f}; {other:,.{digits}f}" for (one, other), digits in zip(pairs, (0, 1, 1), strict=True)]
    errors = [f"{100 * (other / one - 1):+.0f} %" for one, other in pairs]
    return f"| {' | '.join([str(count), f'{of.cpu:.0f}', *cells, *errors])} |"


def _table(heads: Sequence[str], lines: Iterator[str]) -> str:
    table = [f"| {' | '.join(heads)} |", f"|{'--:|' * len(heads)}"]
    click.echo("\n".join(table))
    for line in lines:
        click.echo(line)
        table.append(line)
    click.echo()
    return "\n".join(table) + "\n"


@click.command()
@click.option("--real", is_flag=True, help="Beside a real server as well, on two cores.")
@click.option("--seconds", default=2.5, show_default=True, help="Seconds of each real load.")
@click.option("--rounds", default=3, show_default=True, help="Rounds of the real loads; medians are shown.")
@click.option("--publish", is_flag=True, help="Write the tables into RESULTS.md and SCALING.md.")
def main(real: bool, seconds: float, rounds: int, publish: bool) -> None:
    """How long calls wait: one worker by load, and many workers on one log; and how many so many calls need."""
    tables = {LOAD_MARKERS: _table(LOAD_HEADS, load_rows()), WORKER_MARKERS: _table(WORKER_HEADS, worker_rows())}
    sizes = {PLAN_MARKERS: _table(PLAN_HEADS, plan_rows()), SIZES_MARKERS: _table(SIZE_HEADS, size_rows())}
    if real:
        os.sched_setaffinity(0, LOAD_CORE)
        with tempfile.TemporaryDirectory() as name:
            tables[REAL_MARKERS] = _table(REAL_HEADS, real_rows(Path(name), seconds=seconds, rounds=rounds))
    if publish:
        for markers, table in tables.items():
            write_results(table, markers)
        for markers, table in sizes.items():
            write_results(table, markers, SIZES_PAGE)


if __name__ == "__main__":
    main()
