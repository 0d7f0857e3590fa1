"""`make bench`: how fast is it, as ratios measured in one run, since machines differ and are shared.

Each row plays many different requests against our server and against a bare grpcio echo server with the same messages,
in turns: calls per second, processor time of the server per decision, p50 and p99. The load comes from another core and
measures itself. Where nothing else is said, nothing of the load is learned, but 20 older decisions a second are, so
that a new model serves every half second and no cache gets old. Everything on loopback, bounded in time; Linux only.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import click
import grpc
from rich.console import Console
from rich.progress import Progress

from decider.channel import Credentials, open_channel
from decider.client import Client
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_service_pb2 as experiment_pb
from decider.v1.decider_service_pb2_grpc import DeciderServiceStub
from decider.v1.experiment_service_pb2_grpc import ExperimentServiceStub
from simulator.studies.load import Frames, Played, frames, play
from simulator.studies.pmf_cost import pmf_costs
from simulator.studies.prepared import (
    ID,
    Ask,
    never_twice,
    priced_actions,
    requests,
    storefront_visitor,
    three_numbers,
    write_log,
)
from simulator.studies.served import ALL_CORES, LOAD_CORE, SERVER_CORE, cpu_seconds, free_port, serving, start

METHOD = "/decider.v1.DeciderService/"
DIFFERENT = 4_000
"""Requests of a load; more than a server answers while one model serves."""

BATCH = 100
BATCHES = 400
OPEN = 20_000
"""Decisions that wait for a reward."""

FROZEN, LEARNING = 900.0, 0.2
"""Seconds of reward windows: nothing of the load is learned, or everything."""

AT_ONCE = (1, 10, 100)
"""Contexts whose pmfs are asked for together."""

START_UP = 30.0
"""Seconds for starts and warm-ups, in which a new model is made, too."""

NOTHING = Credentials()
"""Calls are not encrypted, and say not who calls."""

WARM = 0.5
MICRO, MILLI = 1e6, 1e3


@dataclass(frozen=True, slots=True)
class Target:
    """What issue and README promise: `least` or `most`, of one figure of a row."""

    text: str
    reached: Callable[[Measured], bool]


@dataclass(frozen=True, slots=True)
class Row:
    """decisions: of a call. method: of ours; the echo's is `Decide` or `Reward`. cores: of both servers."""

    name: str
    actions: int = 10
    ask: Ask = storefront_visitor
    method: str = "Decide"
    decisions: int = 1
    in_flight: int = 32
    connections: int = 1
    window: float = FROZEN
    trickle: bool = True
    cores: frozenset[int] = SERVER_CORE
    targets: Sequence[Target] = ()


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one contestant and row. rate: decisions (or rewards) per second. cpu: microseconds of the server for each.
    p50, p99: ms of a call. load_cpu: microseconds of the load for each call."""

    rate: float
    cpu: float
    p50: float
    p99: float
    load_cpu: float


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians over the rounds; ratios are medians of each round's ratio. cpu_ratio: the echo's time over ours."""

    ours: Figures
    echo: Figures
    rate_ratio: float
    cpu_ratio: float
    p99_ratio: float


def of_echo(least: float) -> Target:
    """Processor time: the echo's over ours."""
    return Target(f"cpu >= {least:g} of the echo", lambda row: row.cpu_ratio >= least)


def at_least(rate: float) -> Target:
    """Decisions per second."""
    return Target(f">= {rate:,.0f}/s", lambda row: row.ours.rate >= rate)


def p99_within(most: float) -> Target:
    """The echo's p99, times so much."""
    return Target(f"p99 <= {most:g} x the echo's", lambda row: row.p99_ratio <= most)


ROWS: Sequence[Row] = (
    Row("Decide, 1 in flight", in_flight=1),
    Row("Decide", targets=(of_echo(0.62), p99_within(2))),
    Row("Decide, learning all of it", window=LEARNING, targets=(of_echo(0.50),)),
    Row("Decide, 32 connections", connections=32),
    Row("Decide, all cores", cores=ALL_CORES),
    Row("Decide, 3 actions", actions=3),
    Row("Decide, 50 actions", actions=50),
    Row("Decide, 200 actions", actions=200),
    Row("Decide, 1,000 actions", actions=1_000),
    Row("Decide, contexts never twice", ask=never_twice),
    Row("Decide, three numbers", ask=three_numbers),
    Row("Decide, per-call features of 10 actions", ask=priced_actions),
    Row("Decide, per-call features of 200 actions", ask=priced_actions, actions=200),
    Row(f"DecideBatch of {BATCH}", method="DecideBatch", decisions=BATCH, in_flight=2, targets=(at_least(25_000),)),
    Row(
        f"DecideBatch of {BATCH}, contexts never twice",
        method="DecideBatch",
        ask=never_twice,
        decisions=BATCH,
        in_flight=2,
        targets=(at_least(14_000),),
    ),
    Row("Reward", method="Reward", targets=(of_echo(0.8),)),
    Row(f"RewardBatch of {BATCH}", method="RewardBatch", decisions=BATCH, in_flight=2),
)


def messages(
    row: Row,
) -> list[pb.DecideRequest] | list[pb.DecideBatchRequest] | list[pb.RewardRequest] | list[pb.RewardBatchRequest]:
    """The different requests of a row."""
    rewards = [pb.RewardRequest(decision_id=f"open-{number}", name="click") for number in range(OPEN)]
    if row.method == "Reward":
        return rewards
    if row.method == "RewardBatch":
        return [pb.RewardBatchRequest(requests=rewards[at : at + BATCH]) for at in range(0, OPEN, BATCH)]
    if row.method == "DecideBatch":
        many = requests(row.ask, actions=row.actions, count=BATCH * BATCHES)
        return [pb.DecideBatchRequest(requests=many[at : at + BATCH]) for at in range(0, len(many), BATCH)]
    return requests(row.ask, actions=row.actions, count=DIFFERENT)


def echo_messages(row: Row) -> list[pb.DecideRequest] | list[pb.RewardRequest]:
    """What the echo gets in that row: the same, but one decision or reward a call."""
    if row.method.startswith("Reward"):
        return [pb.RewardRequest(decision_id=f"open-{number}", name="click") for number in range(DIFFERENT)]
    return requests(row.ask, actions=row.actions, count=DIFFERENT)


class CallFailed(Exception):
    """A call of a load was answered with an error: what was measured is not what should be."""


def check_statuses(played: Played) -> None:
    """Raises CallFailed."""
    if set(played.statuses) != {0}:
        raise CallFailed(f"statuses of the answers: {dict(played.statuses)}")


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server under load. pid, port: of it. decisions: of a call."""

    pid: int
    port: int
    calls: Sequence[Frames]
    decisions: int
    in_flight: int
    connections: int

    def measure(self, seconds: float) -> Figures:
        """Raises CallFailed, NotAnswered and ConnectionError."""
        before = cpu_seconds(self.pid)
        played = play(self.port, self.calls, in_flight=self.in_flight, seconds=seconds, connections=self.connections)
        spent = cpu_seconds(self.pid) - before
        check_statuses(played)
        return Figures(
            rate=self.decisions * played.rate,
            cpu=MICRO * spent / played.calls / self.decisions,
            p50=MILLI * played.latency(0.5),
            p99=MILLI * played.latency(0.99),
            load_cpu=MICRO * played.load_cpu / played.calls,
        )


@contextmanager
def serving_echo(
    cores: frozenset[int], folder: Path, *files: Path, credentials: Credentials = NOTHING
) -> Iterator[tuple[int, int]]:
    """(process id, port), once it answers. files: as of `echo.py`. credentials: let a client in."""
    port = free_port()
    command = [sys.executable, "-m", "simulator.studies.echo", str(port), *map(str, files)]
    process = start(command, cores, folder / f"echo-{port}.output")
    try:
        with open_channel(f"127.0.0.1:{port}", credentials) as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
        yield process.pid, port
    finally:
        process.kill()
        process.wait()


@contextmanager
def contestants(row: Row, folder: Path, seconds: float) -> Iterator[tuple[Contestant, Contestant]]:
    """(ours, the echo), ready. seconds: how long they will be measured, in all."""
    db = folder / f"{time.monotonic_ns()}.db"
    open_decisions = OPEN if row.method.startswith("Reward") else 0
    trickle = seconds + START_UP if row.trickle else 0.0
    write_log(db, row.ask, actions=row.actions, window=row.window, trickle=trickle, open_decisions=open_decisions)
    first, *_ = sent = messages(row)
    ours = [frames(METHOD + row.method, message.SerializeToString()) for message in sent]
    method = "Reward" if row.method.startswith("Reward") else "Decide"
    bare = [frames(METHOD + method, message.SerializeToString()) for message in echo_messages(row)]
    in_flight = row.in_flight if row.decisions == 1 else 32
    with serving(db, cores=row.cores) as server, serving_echo(row.cores, folder) as (pid, port):
        check_answers(server.port, row.method, first)
        yield (
            Contestant(server.pid, server.port, ours, row.decisions, row.in_flight, row.connections),
            Contestant(pid, port, bare, 1, in_flight, row.connections),
        )


def check_answers(port: int, method: str, message: object, credentials: Credentials = NOTHING) -> None:
    """That each part of a batch is answered without an error: the load looks at the status of the call alone."""
    with open_channel(f"127.0.0.1:{port}", credentials) as channel:
        stub = DeciderServiceStub(channel)  # type: ignore[no-untyped-call]
        reply = getattr(stub, method)(message, timeout=30)
    errors = [result.error.message for result in getattr(reply, "results", ()) if result.HasField("error")]
    if errors:
        raise CallFailed(f"{method}: {errors[0]}")


def measure(row: Row, folder: Path, *, seconds: float, rounds: int) -> Measured:
    """Both, in turns."""
    whole = 2 * (rounds * seconds + WARM)
    with contestants(row, folder, whole) as both:
        for one in both:
            one.measure(WARM)
        pairs = [(both[0].measure(seconds), both[1].measure(seconds)) for _ in range(rounds)]
    return summary(pairs)


def summary(pairs: Sequence[tuple[Figures, Figures]]) -> Measured:
    """The medians of (ours, the echo's).

    >>> one = Figures(rate=100.0, cpu=200.0, p50=1.0, p99=3.0, load_cpu=9.0)
    >>> summary([(one, Figures(rate=200.0, cpu=100.0, p50=1.0, p99=2.0, load_cpu=9.0))]).cpu_ratio
    0.5
    """
    median = statistics.median
    return Measured(
        ours=medians([ours for ours, _ in pairs]),
        echo=medians([echo for _, echo in pairs]),
        rate_ratio=median(ours.rate / echo.rate for ours, echo in pairs),
        cpu_ratio=median(echo.cpu / ours.cpu for ours, echo in pairs),
        p99_ratio=median(ours.p99 / echo.p99 for ours, echo in pairs),
    )


def medians(of: Sequence[Figures]) -> Figures:
    """Of each figure by itself."""
    names = ("rate", "cpu", "p50", "p99", "load_cpu")
    return Figures(*(statistics.median(getattr(one, name) for one in of) for name in names))


HEADINGS = (
    "what", "/s", "echo's", "ratio", "cpu, us", "echo's", "ratio", "p50, ms", "echo's", "p99, ms", "echo's", "ratio",
    "target",
)  # fmt: skip


def line(row: Row, of: Measured) -> str:
    """A row of the table, in Markdown."""
    ours, echo = of.ours, of.echo
    cells = (
        row.name, f"{ours.rate:,.0f}", f"{echo.rate:,.0f}", f"{of.rate_ratio:.2f}",
        f"{ours.cpu:,.0f}", f"{echo.cpu:,.0f}", f"{of.cpu_ratio:.2f}",
        f"{ours.p50:.2f}", f"{echo.p50:.2f}",
        f"{ours.p99:.2f}", f"{echo.p99:.2f}", f"{of.p99_ratio:.2f}",
        "; ".join(f"{one.text}: {'yes' if one.reached(of) else 'NO'}" for one in row.targets),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def heading() -> str:
    """The first two lines of the table."""
    return f"| {' | '.join(HEADINGS)} |\n|---|{'--:|' * (len(HEADINGS) - 2)}---|"


def delays(folder: Path, *, times: int) -> list[float]:
    """Seconds from the end of a rewarded decision's window to a served model that has learned it; rising."""
    db = folder / "delays.db"
    write_log(db, storefront_visitor, actions=10, window=LEARNING, trickle=0)
    with (
        serving(db) as server,
        Client(f"127.0.0.1:{server.port}", timeout=30) as client,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        experiments = ExperimentServiceStub(channel)  # type: ignore[no-untyped-call]
        return sorted(_delay(client, experiments, pause=0.137 * (turn % 5)) for turn in range(times))


def _delay(client: Client, experiments: ExperimentServiceStub, *, pause: float) -> float:
    def model() -> int:
        return int(experiments.GetExperiment(experiment_pb.GetExperimentRequest(id=ID)).experiment.model)

    time.sleep(pause)
    before = model()
    decided = client.decide(ID, "visitor-1", segment="vip")
    sealed_at = time.monotonic() + LEARNING
    client.reward(decided.decision_id, "click")
    while model() == before:
        time.sleep(0.002)
    return time.monotonic() - sealed_at


@click.command()
@click.option("--seconds", default=5.0, show_default=True, help="Seconds of each load.")
@click.option("--rounds", default=3, show_default=True, help="Rounds of each comparison.")
@click.option("--connections", default=1, show_default=True, help="At least 32 where several workers share a port.")
@click.option("--only", default="", help="Only the rows with this in their name.")
@click.option("--quick", is_flag=True, help="One round of a second: is everything there?")
def main(seconds: float, rounds: int, connections: int, only: str, quick: bool) -> None:
    """Speed, as ratios measured in one run."""
    rows = [row for row in ROWS if only in row.name]
    seconds, rounds = (1.0, 1) if quick else (seconds, rounds)
    os.sched_setaffinity(0, LOAD_CORE)
    click.echo(f"answers after the commit, {rounds} rounds of {seconds:g} s each, medians\n\n{heading()}")
    load_cpu = 0.0
    with tempfile.TemporaryDirectory() as name, Progress(console=Console(stderr=True), transient=True) as progress:
        for row in progress.track(rows, description="rows"):
            of = measure(_connected(row, connections), Path(name), seconds=seconds, rounds=rounds)
            load_cpu = max(load_cpu, of.ours.load_cpu, of.echo.load_cpu)
            click.echo(line(row, of))
        found = delays(Path(name), times=5 if quick else 20)
    click.echo(f"\nwindow's end to served model: median {statistics.median(found):.2f} s, worst {found[-1]:.2f} s")
    costs = ", ".join([f"{cost:.0f}" for cost in pmf_costs(AT_ONCE)])
    sizes = ", ".join(map(str, AT_ONCE))
    click.echo(f"pmf of a context that its model has not seen, {sizes} at once, without a server: {costs} us each")
    click.echo(f"processor time of the load itself: at most {load_cpu:.0f} us for a call, on another core")


def _connected(row: Row, connections: int) -> Row:
    return row if row.connections > connections else replace(row, connections=connections)


if __name__ == "__main__":
    main()
