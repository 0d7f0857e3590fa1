"""`make bench`: how fast is it, as ratios measured in one run, since machines differ and are shared.

Decide against a bare grpcio echo server with the same messages, DecideBatch on one core, rewards, and the delay from
a reward to a served model that knows it. The load comes from h2load (Debian: nghttp2-client), which is written in C
and so does not compete with the server for Python's time. Everything on loopback and bounded in time.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random

import click
import grpc
from rich.console import Console
from rich.table import Table

from decider.client import Client
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_service_pb2 as experiment_pb
from decider.v1.experiment_service_pb2_grpc import ExperimentServiceStub
from simulator.worlds.scenes import storefront

ACTIONS = 10
BATCH = 100
LONG, SHORT = 600.0, 0.2
"""Seconds of reward windows: nothing is sealed during a load, or everything."""

_ACTION = """
[[actions]]
id = "action-{0}"
payload = {{ title = "Title {0}" }}
"""
_EXPERIMENT = f"""
id = "bench"
{"".join(map(_ACTION.format, range(ACTIONS)))}
[reward]
window = "{{0}}s"
weights = {{ click = 1.0 }}
"""
METHOD = "/decider.v1.DeciderService/"

ALL_CORES = os.sched_getaffinity(0)
ONE_CORE = {min(ALL_CORES)}
"""Of the servers; the load runs on another."""


def echo_server(port: int) -> None:
    """A bare server: a fixed reply of the size of ours, to the same request, with as many threads as ours."""
    reply = pb.DecideResponse(
        decision_id="01a1ffaa-9644-717d-b719-88b84227a447",
        action=pb.DecidedAction(id="action-1", kind="content", payload={"title": "Title 1"}),
        propensity=0.9,
        reason=pb.REASON_EXPLOIT,
        model=123_456,
        experiment_version=1,
    )
    handler = grpc.unary_unary_rpc_method_handler(
        lambda _, __: reply,
        request_deserializer=pb.DecideRequest.FromString,
        response_serializer=pb.DecideResponse.SerializeToString,
    )
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_registered_method_handlers("decider.v1.DeciderService", {"Decide": handler})
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _process(command: list[str], port: int, cores: set[int]) -> Iterator[None]:
    """A server on some of the cores, once its port answers; killed at the end."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, cores)
    )
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextmanager
def _echo(cores: set[int]) -> Iterator[int]:
    port = _free_port()
    with _process([sys.executable, "-m", "simulator.studies.bench", "--echo", str(port)], port, cores):
        yield port


@contextmanager
def _decider(folder: Path, cores: set[int], *, window: float) -> Iterator[int]:
    """Our server, with a model that has learned something."""
    port, file, db = _free_port(), folder / "bench.toml", folder / f"{time.monotonic_ns()}.db"
    file.write_text(experiment(SHORT))
    addresses = ["--listen", f"127.0.0.1:{port}", "--http", f"127.0.0.1:{_free_port()}"]
    command = [sys.executable, "-m", "decider.cli", "serve", "--experiments", str(file), "--db", str(db), *addresses]
    with _process(command, port, cores):
        _teach(port)
        file.write_text(experiment(window))
        _wait_for_version(port, 2 if window != SHORT else 1)
        yield port


def experiment(window: float) -> str:
    """The experiment file of the bench."""
    return _EXPERIMENT.replace("{0}", str(window))


def _wait_for_version(port: int, number: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        experiments = ExperimentServiceStub(channel)  # type: ignore[no-untyped-call]
        request = experiment_pb.GetExperimentRequest(id="bench")
        while experiments.GetExperiment(request).experiment.version < number:
            time.sleep(0.1)


def _teach(port: int) -> None:
    random = Random(1)
    with Client(f"127.0.0.1:{port}", timeout=30) as client:
        for _ in range(10):
            reply = client.stub.DecideBatch(_batch(random), timeout=30)
            ids = [result.response.decision_id for result in reply.results if random.random() < 0.1]
            requests = [pb.RewardRequest(decision_id=id_, name="click") for id_ in ids]
            client.stub.RewardBatch(pb.RewardBatchRequest(requests=requests), timeout=30)
    time.sleep(SHORT + 1)


def _request(random: Random) -> pb.DecideRequest:
    context = storefront.visitor(random)
    return pb.DecideRequest(
        experiment="bench",
        unit_id=f"visitor-{random.getrandbits(40):x}",
        context=pb.Context(
            segment=context.segment,
            device=context.device,
            channel=context.channel,
            location=context.location,
            intent_stage=context.intent_stage,
        ),
    )


def _batch(random: Random) -> pb.DecideBatchRequest:
    return pb.DecideBatchRequest(requests=[_request(random) for _ in range(BATCH)])


def _load(port: int, method: str, message: bytes, *, in_flight: int, seconds: int, folder: Path) -> float:
    """Calls per second by h2load on one connection. Raises RuntimeError if it measured nothing or a call failed."""
    body = folder / "body"
    body.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
    headers = ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    url = f"http://127.0.0.1:{port}{METHOD}{method}"
    load_core = str(max(ALL_CORES))
    command = [
        "taskset",
        "-c",
        load_core,
        "h2load",
        "-D",
        str(int(seconds)),
        "-c",
        "1",
        "-m",
        str(in_flight),
        *headers,
        "-d",
        str(body),
        url,
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"finished in [\d.]+\w+, ([\d.]+) req/s", output)
    if rate is None or not re.search(r" 0 failed, 0 errored, 0 timeout", output):
        raise RuntimeError(f"h2load said:\n{output}")
    return float(rate[1])


def _against_echo(
    folder: Path, cores: set[int], *, window: float = LONG, in_flight: int, seconds: int, rounds: int
) -> tuple[float, float, float]:
    """(decisions per second, echoes per second, their ratio): medians over rounds that take turns."""
    request = _request(Random(2)).SerializeToString()
    with _echo(cores) as echo, _decider(folder, cores, window=window) as ours:
        pairs = []
        for _ in range(rounds):
            rates = [
                _load(port, "Decide", request, in_flight=in_flight, seconds=seconds, folder=folder)
                for port in (ours, echo)
            ]
            pairs.append((rates[0], rates[1], rates[0] / rates[1]))
    decide, bare, ratio = (statistics.median(column) for column in zip(*pairs, strict=True))
    return decide, bare, ratio


def _batches(folder: Path, *, seconds: int, rounds: int) -> tuple[float, float, float]:
    """As `_against_echo`, for DecideBatch: an echo of one decision a call is what it is compared with."""
    one, message = _request(Random(2)).SerializeToString(), _batch(Random(3)).SerializeToString()
    with _echo(ONE_CORE) as echo, _decider(folder, ONE_CORE, window=LONG) as port:
        pairs = []
        for _ in range(rounds):
            ours = BATCH * _load(port, "DecideBatch", message, in_flight=2, seconds=seconds, folder=folder)
            bare = _load(echo, "Decide", one, in_flight=32, seconds=seconds, folder=folder)
            pairs.append((ours, bare, ours / bare))
    decide, bare, ratio = (statistics.median(column) for column in zip(*pairs, strict=True))
    return decide, bare, ratio


def _rewards(folder: Path, *, seconds: int) -> tuple[float, float]:
    """(rewards per second, one per call; the same through RewardBatch)."""
    with (
        _decider(folder, ONE_CORE, window=LONG) as port,
        Client(f"127.0.0.1:{port}", timeout=30) as client,
    ):
        id_ = client.stub.Decide(_request(Random(4))).decision_id
        one = pb.RewardRequest(decision_id=id_, name="click")
        many = pb.RewardBatchRequest(requests=[one] * BATCH)
        single = _load(port, "Reward", one.SerializeToString(), in_flight=32, seconds=seconds, folder=folder)
        batch = _load(port, "RewardBatch", many.SerializeToString(), in_flight=2, seconds=seconds, folder=folder)
    return single, BATCH * batch


def _delays(folder: Path, *, times: int) -> list[float]:
    """Seconds from the end of a rewarded decision's window to a served model that has learned it."""
    delays = []
    with (
        _decider(folder, ONE_CORE, window=SHORT) as port,
        Client(f"127.0.0.1:{port}", timeout=30) as client,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        experiments = ExperimentServiceStub(channel)  # type: ignore[no-untyped-call]
        for turn in range(times):
            time.sleep(0.137 * (turn % 5))
            delays.append(_delay(client, experiments))
    return delays


def _delay(client: Client, experiments: ExperimentServiceStub) -> float:
    def model() -> int:
        return int(experiments.GetExperiment(experiment_pb.GetExperimentRequest(id="bench")).experiment.model)

    before = model()
    decided = client.decide("bench", "visitor-1", segment="vip")
    sealed_at = time.monotonic() + SHORT
    client.reward(decided.decision_id, "click")
    while model() == before:
        time.sleep(0.002)
    return time.monotonic() - sealed_at


@click.command()
@click.option("--seconds", type=int, default=5, show_default=True, help="Seconds of each load.")
@click.option("--rounds", default=3, show_default=True, help="Rounds of each comparison.")
@click.option("--echo", type=int, hidden=True)
def main(seconds: int, rounds: int, echo: int | None) -> None:
    """Speed, as ratios measured in one run."""
    if echo is not None:
        echo_server(echo)
        return
    if shutil.which("h2load") is None:
        raise click.ClickException("h2load is needed for the load: apt-get install nghttp2-client")
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        console.print(_measured(Path(name), seconds=seconds, rounds=rounds))


def _measured(folder: Path, *, seconds: int, rounds: int) -> Table:
    table = Table(title=f"{ACTIONS} actions, 5 context fields, answers after the commit; medians of {rounds} rounds")
    table.add_column("what")
    for heading in ("ours", "bare echo", "ratio"):
        table.add_column(heading, justify="right")
    cases = (
        ("Decide/s, 1 in flight, one core", ONE_CORE, LONG, 1),
        ("Decide/s, 32 in flight, one core", ONE_CORE, LONG, 32),
        ("the same, while it learns all of them", ONE_CORE, SHORT, 32),
        ("Decide/s, 32 in flight, all cores", ALL_CORES, LONG, 32),
    )
    for name, cores, window, in_flight in cases:
        measured = _against_echo(folder, cores, window=window, in_flight=in_flight, seconds=seconds, rounds=rounds)
        _add(table, name, measured)
    _add(table, f"decisions/s, DecideBatch of {BATCH}, one core", _batches(folder, seconds=seconds, rounds=rounds))
    single, batch = _rewards(folder, seconds=seconds)
    table.add_row("rewards/s, 32 in flight, one core", f"{single:,.0f}")
    table.add_row(f"rewards/s, RewardBatch of {BATCH}, one core", f"{batch:,.0f}")
    delays = sorted(_delays(folder, times=20))
    table.add_row("window's end to served model, median", f"{statistics.median(delays):.2f} s")
    table.add_row("window's end to served model, worst of 20", f"{delays[-1]:.2f} s")
    return table


def _add(table: Table, name: str, measured: tuple[float, float, float]) -> None:
    ours, bare, ratio = measured
    table.add_row(name, f"{ours:,.0f}", f"{bare:,.0f}", f"{ratio:.2f}")


if __name__ == "__main__":
    main()
