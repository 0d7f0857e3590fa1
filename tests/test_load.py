"""The load of the bench and of the soak: every call is sent whole, answered once and counted with its status."""

from __future__ import annotations

import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from decider.v1 import decider_service_pb2 as pb
from simulator.studies.certificates import authority, issue
from simulator.studies.load import LARGEST_FRAME, LARGEST_MESSAGE, Frames, Load, NotAnswered, frames, play, quantile

METHOD = "/decider.v1.DeciderService/Decide"
MANY = 500


class Recorder:
    """What a small grpcio server got; `unit_id` "refuse" is refused, "wait" waits for `go`."""

    def __init__(self, reply_bytes: int = 10) -> None:
        self.units: Counter[str] = Counter()
        self.sizes: set[int] = set()
        self.go = threading.Event()
        self._lock = threading.Lock()
        self._reply = pb.DecideResponse(decision_id="x" * reply_bytes)

    def decide(self, request: pb.DecideRequest, context: grpc.ServicerContext) -> pb.DecideResponse:
        """The method."""
        with self._lock:
            self.units[request.unit_id] += 1
            self.sizes.add(request.ByteSize())
        if request.unit_id == "refuse":
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no")
        if request.unit_id == "wait":
            self.go.wait(30)
        return self._reply


@dataclass(frozen=True)
class Tls:
    """server: what its port needs. load: what a load of it needs."""

    server: grpc.ServerCredentials
    load: ssl.SSLContext


def encrypted(folder: Path) -> Tls:
    """With new certificates."""
    ca = authority(folder, "authority")
    own = issue(folder, "server", ca)
    load = ssl.create_default_context(cafile=ca.cert)
    load.set_alpn_protocols(["h2"])
    return Tls(grpc.ssl_server_credentials([(own.key.read_bytes(), own.cert.read_bytes())]), load)


@contextmanager
def serving(recorder: Recorder, tls: Tls | None = None) -> Iterator[int]:
    """Its port."""
    server = grpc.server(ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(
        recorder.decide,
        request_deserializer=pb.DecideRequest.FromString,
        response_serializer=pb.DecideResponse.SerializeToString,
    )
    server.add_registered_method_handlers("decider.v1.DeciderService", {"Decide": handler})
    address = "127.0.0.1:0"
    port = server.add_insecure_port(address) if tls is None else server.add_secure_port(address, tls.server)
    server.start()
    try:
        yield port
    finally:
        recorder.go.set()
        server.stop(None).wait()


def call(unit: str, *, decision_id: str = "") -> Frames:
    """A Decide."""
    return frames(METHOD, pb.DecideRequest(unit_id=unit, decision_id=decision_id).SerializeToString())


def answers(load: Load, count: int) -> Counter[tuple[object, int]]:
    """The first so many, or those of 30 seconds."""
    found: Counter[tuple[object, int]] = Counter()
    end = time.monotonic() + 30
    while found.total() < count and time.monotonic() < end:
        found.update(load.answers(0.1))
    return found


@pytest.mark.parametrize("connections", [1, 32])
def test_every_call_arrives_once_and_is_answered_once(connections: int) -> None:
    """A bench that counts answers of calls that were not made, or not whole, measures nothing."""
    recorder = Recorder()
    with serving(recorder) as port, Load(port, connections=connections) as load:
        for number in range(MANY):
            load.call(call(f"unit-{number}"), number)
        found = answers(load, MANY)
        assert load.in_flight == 0
    assert found == Counter({(number, 0): 1 for number in range(MANY)})
    assert recorder.units == Counter({f"unit-{number}": 1 for number in range(MANY)})


def test_calls_over_tls_arrive_once_and_one_look_reads_all_answers(tmp_path: Path) -> None:
    """TLS gives one record at a time: one new call for each would make servers with TLS look slower than they are."""
    recorder, tls = Recorder(), encrypted(tmp_path)
    with serving(recorder, tls) as port, Load(port, tls=tls.load) as load:
        for number in range(20):
            load.call(call(f"unit-{number}"), number)
        found = load.answers(0)
        end = time.monotonic() + 30
        while recorder.units.total() < 20 and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.3)  # for the last replies to leave
        found += load.answers(1)
    assert Counter(found) == Counter({(number, 0): 1 for number in range(20)})
    assert recorder.units == Counter({f"unit-{number}": 1 for number in range(20)})


def test_different_calls_are_played_in_turn_until_the_time_is_over() -> None:
    """One repeated request flatters a cache; and a load must end with its last answer."""
    recorder = Recorder()
    with serving(recorder) as port:
        played = play(port, [call(f"unit-{number}") for number in range(50)], in_flight=8, seconds=0.5, connections=2)
    assert played.calls == sum(recorder.units.values()) == played.statuses[0]
    assert played.calls > 50
    assert max(recorder.units.values()) - min(recorder.units.values()) <= 1
    assert sorted(played.latencies) == list(played.latencies)


def test_a_refused_call_is_counted_by_its_status() -> None:
    """A server that refuses quickly would look fast."""
    with serving(Recorder()) as port:
        played = play(port, [call("unit"), call("refuse")], in_flight=2, seconds=0.3)
    refused = played.statuses[grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]]
    assert refused >= 1
    assert refused + played.statuses[0] == played.calls


@pytest.mark.parametrize("size", [1, LARGEST_FRAME, 2 * LARGEST_FRAME + 1, LARGEST_MESSAGE - 100])
def test_long_messages_arrive_whole(size: int) -> None:
    """A message longer than a frame is sent in several, and together they exceed the connection's first window."""
    recorder = Recorder()
    with serving(recorder) as port, Load(port) as load:
        for number in range(20):
            load.call(call("unit", decision_id="x" * size), number)
        assert answers(load, 20) == Counter({(number, 0): 1 for number in range(20)})
    assert len(recorder.sizes) == 1
    assert recorder.sizes.pop() > size


def test_a_message_that_does_not_fit_is_refused() -> None:
    """It would wait for ever for the window of its stream."""
    with pytest.raises(ValueError, match="at most 60,000"):
        frames(METHOD, bytes(LARGEST_MESSAGE + 1))


def test_long_replies_do_not_stop_the_load() -> None:
    """The server may send only as much as our windows allow: 65,535 bytes, if we did not open them."""
    with serving(Recorder(reply_bytes=100_000)) as port, Load(port) as load:
        for number in range(30):
            load.call(call("unit"), number)
        assert answers(load, 30).total() == 30


def test_a_call_without_an_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that were swallowed must not be missing from the latencies without a word."""
    monkeypatch.setattr("simulator.studies.load.PATIENCE", 0.2)
    with serving(Recorder()) as port, pytest.raises(NotAnswered, match="2 of 2 calls"):
        play(port, [call("wait")], in_flight=2, seconds=0.1)


def test_a_server_that_ends_is_an_error() -> None:
    """Not a load with few calls."""
    recorder = Recorder()
    with serving(recorder) as port:
        load = Load(port)
        load.call(call("unit"), 1)
        assert answers(load, 1).total() == 1
    load.call(call("unit"), 2)
    with load, pytest.raises(ConnectionError):
        answers(load, 1)


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.01, 1.0), (0.5, 50.0), (0.99, 99.0), (1.0, 100.0)])
def test_a_quantile_is_the_value_that_so_many_do_not_exceed(share: float, value: float) -> None:
    """p99 of a hundred calls is the longest but one, not the longest."""
    assert quantile([float(number) for number in range(1, 101)], share) == value
