"""A Decide by every way in, flags among them, beside what a user would write instead of this service. The fourth part
of `make bench`.

One server answers gRPC and what pages and OpenFeature speak (`--web`); each way gets the same requests in turns, so
that both are of one process. A bare grpcio echo has a process of its own, and so has the rival: FastAPI, Vowpal Wabbit
and SQLite, as one writes it in an afternoon (`rivals/with_fastapi.py`). Ratios are to gRPC's in the same round. An
HTTP/1.1 connection has one call in flight, so those ways have as many connections as calls; gRPC is measured on one
connection and on as many. Linux only.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from google.protobuf import json_format
from rich.console import Console
from rich.progress import Progress

from decider.flagd.v2 import evaluation_pb2 as flagd
from decider.v1 import decider_service_pb2 as pb
from simulator.studies.bench import (
    DIFFERENT,
    FROZEN,
    METHOD,
    MICRO,
    MILLI,
    START_UP,
    WARM,
    CallFailed,
    Figures,
    check_statuses,
    medians,
    serving_echo,
)
from simulator.studies.bench_access import Spread, spread
from simulator.studies.load import Caller, Frames, Load, frames, play_on
from simulator.studies.load_http1 import Http1Load, Request, answered, request
from simulator.studies.prepared import requests, storefront_visitor, write_log
from simulator.studies.served import LOAD_CORE, SERVER_CORE, cpu_seconds, free_port, serving, start
from simulator.studies.side_by_side import INTERPRETER

ACTIONS = 10
IN_FLIGHT = 32

JSON = "application/json"

A_FEW_CALLS = 0.03
"""Seconds."""

RIVAL = "FastAPI, VW and SQLite"
ECHO = "a bare grpcio echo"
LEAST = 2.5
"""Times the rival: what a Decide over gRPC should reach."""

Translate = Callable[[pb.DecideRequest], Request]
"""A Decide as a way in takes it."""


def connect_binary(asked: pb.DecideRequest) -> Request:
    """Connect with protobuf's bytes."""
    return request(METHOD + "Decide", asked.SerializeToString(), "application/proto")


def connect_json(asked: pb.DecideRequest) -> Request:
    """Connect with JSON, as a page or curl sends it."""
    return request(METHOD + "Decide", _json(json_format.MessageToDict(asked)), JSON)


def grpc_web(asked: pb.DecideRequest) -> Request:
    """gRPC-Web; its status stands behind the message."""
    message = asked.SerializeToString()
    body = b"\0" + len(message).to_bytes(4, "big") + message
    return request(METHOD + "Decide", body, "application/grpc-web+proto", good=b"grpc-status: 0")


def ofrep(asked: pb.DecideRequest) -> Request:
    """OFREP: the experiment as a flag."""
    return request(f"/ofrep/v1/evaluate/flags/{asked.experiment}", _json({"context": _flag_context(asked)}), JSON)


def flagd_json(asked: pb.DecideRequest) -> Request:
    """The same as pages' flagd provider asks it."""
    body = {"flagKey": asked.experiment, "context": _flag_context(asked)}
    return request("/flagd.evaluation.v1.Service/ResolveString", _json(body), JSON)


def flagd_grpc(asked: pb.DecideRequest) -> Frames:
    """The same as servers' flagd providers ask it, over gRPC."""
    message = flagd.ResolveStringRequest(flag_key=asked.experiment)
    message.context.update(_flag_context(asked))
    return frames("/flagd.evaluation.v2.Service/ResolveString", message.SerializeToString())


def _flag_context(asked: pb.DecideRequest) -> dict[str, str]:
    return {"targetingKey": asked.unit_id, **_fields(asked)}


def _fields(asked: pb.DecideRequest) -> dict[str, str]:
    return {field.name: text for field, text in asked.context.ListFields()}


def rival(asked: pb.DecideRequest) -> Request:
    """As the rival's models have it."""
    body = {"experiment": asked.experiment, "unit_id": asked.unit_id, "context": _fields(asked)}
    return request("/decide", _json(body), JSON)


def _json(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Way:
    """A way in over HTTP/1.1."""

    name: str
    translate: Translate


GRPC, GRPC_MANY = "gRPC, one connection", f"gRPC, {IN_FLIGHT} connections"
WAYS: Sequence[Way] = (
    Way("Connect, binary", connect_binary),
    Way("Connect, JSON", connect_json),
    Way("gRPC-Web", grpc_web),
    Way("OFREP", ofrep),
    Way("flagd v1 over Connect, JSON", flagd_json),
)
FLAGD = "flagd v2 over gRPC, one connection"


@dataclass(frozen=True, slots=True)
class Contestant:
    """A way in of a server. connect: opens connections to it, which servers close that get no call for seconds."""

    name: str
    pid: int
    connect: Callable[[], Load | Http1Load]
    calls: Sequence[Any]

    def measure(self, seconds: float) -> Figures:
        """On new connections, which have had some calls. Raises CallFailed, NotAnswered and ConnectionError."""
        with self.connect() as load:
            play_on(load, self.calls, in_flight=IN_FLIGHT, seconds=A_FEW_CALLS)
            return self._measure(load, seconds)

    def _measure(self, load: Caller[Any], seconds: float) -> Figures:
        before = cpu_seconds(self.pid)
        played = play_on(load, self.calls, in_flight=IN_FLIGHT, seconds=seconds)
        spent = cpu_seconds(self.pid) - before
        check_statuses(played)
        return Figures(
            rate=played.rate,
            cpu=MICRO * spent / played.calls,
            p50=MILLI * played.latency(0.5),
            p99=MILLI * played.latency(0.99),
            load_cpu=MICRO * played.load_cpu / played.calls,
        )


@contextmanager
def serving_rival(folder: Path) -> Iterator[tuple[int, int]]:
    """(process id, port), once it answers. Raises CallFailed where it does not."""
    port = free_port()
    command = [str(INTERPRETER), "-m", "simulator.studies.rivals.with_fastapi", str(port), str(folder)]
    output = folder / "rival.output"
    process = start(command, SERVER_CORE, output)
    try:
        _wait_until_open(port, output)
        yield process.pid, port
    finally:
        process.kill()
        process.wait()


def _wait_until_open(port: int, output: Path) -> None:
    end = time.monotonic() + START_UP
    while time.monotonic() < end:
        try:
            Http1Load(port, connections=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise CallFailed(f"the rival is not there: {output.read_text(encoding='utf-8')[-500:]}")


@contextmanager
def contestants(ways: Sequence[Way], folder: Path, *, seconds: float, beside: bool) -> Iterator[Sequence[Contestant]]:
    """All, warm, gRPC on one connection first. seconds: how long they will be measured, in all. beside: with the echo
    and the rival."""
    db, web = folder / "bench.db", free_port()
    write_log(db, storefront_visitor, actions=ACTIONS, window=FROZEN, trickle=seconds + START_UP)
    asked = requests(storefront_visitor, actions=ACTIONS, count=DIFFERENT)
    calls = [frames(METHOD + "Decide", one.SerializeToString()) for one in asked]
    with ExitStack() as opened:
        enter = opened.enter_context

        def over_http(name: str, pid: int, port: int, translate: Translate) -> Contestant:
            made = [translate(one) for one in asked]
            if answered(port, made[0]).status != 0:
                raise CallFailed(f"{name}: the first call failed")
            return Contestant(name, pid, partial(Http1Load, port, connections=IN_FLIGHT), made)

        server = enter(serving(db, "--web", f"127.0.0.1:{web}", cores=SERVER_CORE))
        found = [
            Contestant(GRPC, server.pid, partial(Load, server.port), calls),
            Contestant(GRPC_MANY, server.pid, partial(Load, server.port, connections=IN_FLIGHT), calls),
            Contestant(FLAGD, server.pid, partial(Load, server.port), [flagd_grpc(one) for one in asked]),
            *(over_http(way.name, server.pid, web, way.translate) for way in ways),
        ]
        if beside:
            pid, port = enter(serving_echo(SERVER_CORE, folder))
            found.append(Contestant(ECHO, pid, partial(Load, port), calls))
            pid, port = enter(serving_rival(folder))
            found.append(over_http(RIVAL, pid, port, rival))
        for one in found:
            one.measure(WARM)
        yield found


Rounds = Mapping[str, Sequence[Figures]]
"""By contestant; the same number of rounds each."""


def measure(ways: Sequence[Way], folder: Path, *, seconds: float, rounds: int, beside: bool) -> Rounds:
    """All of them in turns; every other round from the last to the first."""
    whole = (len(ways) + 5) * (rounds * seconds + WARM)
    with contestants(ways, folder, seconds=whole, beside=beside) as all_:
        found: dict[str, list[Figures]] = {one.name: [] for one in all_}
        for number in range(rounds):
            for one in all_ if number % 2 else reversed(all_):
                found[one.name].append(one.measure(seconds))
    return found


@dataclass(frozen=True, slots=True)
class Compared:
    """A contestant's medians; cpu, p99: over gRPC's on one connection. rival_cpu, rival_rate: how many times the rival
    takes the processor time of it, and how many times its rate it has; None without the rival."""

    figures: Figures
    cpu: Spread
    p99: Spread
    rival_cpu: Spread | None
    rival_rate: Spread | None


def compare(found: Rounds, name: str) -> Compared:
    """Round by round.

    >>> def one(cpu): return [Figures(rate=1e6 / cpu, cpu=cpu, p50=1.0, p99=cpu / 50, load_cpu=9.0)] * 2
    >>> compared = compare({GRPC: one(100.0), "other": one(50.0), RIVAL: one(150.0)}, "other")
    >>> compared.cpu.median, compared.p99.median, compared.rival_cpu.median, compared.rival_rate.median
    (0.5, 0.5, 3.0, 3.0)
    """
    own, base, beside = found[name], found[GRPC], found.get(RIVAL)

    def ratios(of: Callable[[Figures, Figures], float], other: Sequence[Figures]) -> Spread:
        return spread([of(one, two) for one, two in zip(own, other, strict=True)])

    return Compared(
        figures=medians(own),
        cpu=ratios(lambda one, grpc: one.cpu / grpc.cpu, base),
        p99=ratios(lambda one, grpc: one.p99 / grpc.p99, base),
        rival_cpu=ratios(lambda one, rival: rival.cpu / one.cpu, beside) if beside else None,
        rival_rate=ratios(lambda one, rival: one.rate / rival.rate, beside) if beside else None,
    )


HEADINGS = (
    "Decide over", "/s", "cpu, us", "cpu to gRPC's (95 %)", "p50, ms", "p99, ms", "p99 to gRPC's (95 %)",
    "the rival's cpu over it (95 %)", "its rate over the rival's (95 %)", "target",
)  # fmt: skip


def heading() -> str:
    """The first two lines of the table, in Markdown."""
    return f"| {' | '.join(HEADINGS)} |\n|---|{'--:|' * (len(HEADINGS) - 2)}---|"


def line(name: str, of: Compared) -> str:
    """A row of the table."""
    ours = of.figures
    cells = (
        name, f"{ours.rate:,.0f}", f"{ours.cpu:,.0f}", _ratio(of.cpu), f"{ours.p50:.2f}", f"{ours.p99:.2f}",
        _ratio(of.p99), _ratio(of.rival_cpu), _ratio(of.rival_rate), _target(name, of),
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _ratio(of: Spread | None) -> str:
    return f"{of.median:.2f} ({of.low:.2f} to {of.high:.2f})" if of else ""


def _target(name: str, of: Compared) -> str:
    if name != GRPC or of.rival_cpu is None:
        return ""
    return f"{LEAST:g} x the rival's: {'yes' if of.rival_cpu.median >= LEAST else 'NO'}"


@click.command()
@click.option("--seconds", default=1.0, show_default=True, help="Seconds of each turn.")
@click.option("--rounds", default=10, show_default=True, help="Rounds of a start; in each, every way has a turn.")
@click.option("--starts", default=2, show_default=True, help="How often all servers are started.")
@click.option("--quick", is_flag=True, help="One start and two rounds: is everything there?")
def main(seconds: float, rounds: int, starts: int, quick: bool) -> None:
    """A Decide over gRPC, Connect and gRPC-Web, and what one would write oneself, in turns."""
    rounds, starts = (2, 1) if quick else (rounds, starts)
    os.sched_setaffinity(0, LOAD_CORE)
    click.echo(f"{starts} starts, {rounds} rounds of {seconds:g} s for each, {IN_FLIGHT} in flight, medians\n")
    found: dict[str, list[Figures]] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for _ in progress.track(range(starts), description="starts"):
            with tempfile.TemporaryDirectory() as folder:
                measured = measure(WAYS, Path(folder), seconds=seconds, rounds=rounds, beside=True)
                for name, figures in measured.items():
                    found.setdefault(name, []).extend(figures)
    click.echo(heading())
    for name in found:
        click.echo(line(name, compare(found, name)))
    load_cpu = max(statistics.median(one.load_cpu for one in figures) for figures in found.values())
    click.echo(f"\nprocessor time of the load itself: at most {load_cpu:.0f} us for a call, on another core")


if __name__ == "__main__":
    main()
