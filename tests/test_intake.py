"""Nobody's slowness costs anybody else a thread: calls whose requests do not come, and streams that stay open."""

from __future__ import annotations

import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from decider.errors import LimitReached
from decider.server import arrivals
from decider.server.arrivals import MOST_SLOW, SLOW, Arrivals
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import decider_service_pb2_grpc
from tests.rpc_clients import InProcessClient, ServerProcess, code_of, experiment, status_of, until

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
ANYBODY = health_pb2.HealthCheckRequest(service="")
DECIDE = "/decider.v1.DeciderService/Decide"
PAUSE = "/decider.v1.ExperimentService/PauseExperiment"


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[InProcessClient]:
    """A server with an experiment `e`."""
    client = InProcessClient(folder / "log.db", **settings)
    try:
        client.apply(experiment("e"))
        client.wait_until_idle()
        yield client
    finally:
        client.close()


@contextmanager
def own_channel(client: InProcessClient, *options: tuple[str, Any]) -> Iterator[grpc.Channel]:
    """A connection that nobody shares."""
    with grpc.insecure_channel(client.target, [("grpc.use_local_subchannel_pool", 1), *options]) as channel:
        yield channel


@contextmanager
def without_request(channel: grpc.Channel, number: int, method: str = DECIDE) -> Iterator[list[Any]]:
    """So many calls whose headers have come, and whose requests come at the end, if at all."""
    come = threading.Event()

    def request() -> Iterator[bytes]:
        come.wait()
        yield from ()

    stub = channel.stream_unary(method)
    calls = [stub.future(request()) for _ in range(number)]
    try:
        yield calls
    finally:
        come.set()
        for call in calls:
            call.cancel()


@pytest.mark.parametrize("method", [DECIDE, PAUSE])
def test_calls_whose_requests_do_not_come_keep_nobody_waiting(tmp_path: Path, method: str) -> None:
    """Headers and nothing more cost their sender nothing; with a thread each, two of them would stop the server."""
    with serving(tmp_path, threads=2) as client, own_channel(client) as other:
        with without_request(other, 20, method):
            until(lambda: len(arriving(client)) == 20, what="their headers are there")
            assert client.decide("e").action.id
            assert client.pause("e").version
            client.resume("e")
        until(lambda: not arriving(client), what="they are forgotten")


def arriving(client: InProcessClient) -> Arrivals[Any, Any]:
    """The calls that a server waits for."""
    return client.server.grpc_port._intake._arriving


def test_where_many_requests_do_not_come_the_calls_of_their_caller_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls that never begin take memory, too: 200 with most of their 4 MB took 800 MB. A burst of honest calls may
    all wait for a moment, so few are left only after a while; then there is room again for the same caller."""
    monkeypatch.setattr(arrivals, "SLOW", 0.1)
    with (
        serving(tmp_path, max_caller_rpcs=50) as client,
        own_channel(client) as other,
        without_request(other, 80) as calls,
    ):
        until(lambda: sum(call.done() for call in calls) == 80 - MOST_SLOW, what="all but a few are refused")
        assert {call.code() for call in calls if call.done()} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert not any(call.done() for call in calls[:MOST_SLOW])
        assert client.decide("e").action.id
        assert 'grpc_code="ResourceExhausted"' in client.fetch("/metrics")[1]


def test_a_burst_of_calls_as_large_as_a_caller_may_make_is_answered(tmp_path: Path) -> None:
    """That their headers come before their requests must not be held against them."""
    with serving(tmp_path, max_caller_rpcs=500) as client:
        requests = [pb.DecideRequest(experiment="e", unit_id=f"unit-{number}") for number in range(490)]
        calls = [client.future("Decide", request) for request in requests]
        assert all(call.result(timeout=30).action.id for call in calls)


def test_who_has_most_calls_without_requests_is_refused_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """One caller pushed out the slow uploads of others."""
    monkeypatch.setattr(arrivals, "MOST_ARRIVING", 4)
    held: Arrivals[int, str] = Arrivals(most_of_one=3)
    assert [held.add("crowd", number, "") for number in range(3)] == [None] * 3
    with pytest.raises(LimitReached, match="3 calls of this caller"):
        held.add("crowd", 9, "")
    assert held.add("slow", 3, "") is None
    assert held.add("slow", 4, "") == ("crowd", 2)
    assert held.take("crowd", 2) == ""
    with pytest.raises(LimitReached, match="most are this caller's"):
        held.add("slow", 5, "")
    assert len(held) == 4


def test_of_those_that_wait_long_the_newest_of_one_caller_have_to_leave() -> None:
    """The oldest ones are those that may soon be there."""
    times = iter([*range(MOST_SLOW + 2), MOST_SLOW + 2 + SLOW - 1.5])
    held: Arrivals[int, str] = Arrivals(most_of_one=100, clock=lambda: next(times))
    for number in range(MOST_SLOW + 2):
        held.add("crowd", number, "")
    assert held.too_slow() == [("crowd", MOST_SLOW)]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcessClient]:
    """A server with tokens that takes two streams of one caller."""
    folder = tmp_path_factory.mktemp("guarded")
    tokens = folder / "tokens.toml"
    tokens.write_text(
        f'[[tokens]]\nname = "shop"\nsha256 = "{sha256(b"secret").hexdigest()}"\nroles = ["decide"]\n', "utf-8"
    )
    client = InProcessClient(folder / "log.db", tokens=tokens, max_caller_streams=2)
    try:
        yield client
    finally:
        client.close()


def test_strangers_at_the_same_address_keep_no_token_from_watching_health(guarded: InProcessClient) -> None:
    """Behind one address there may be many: a client with health checking does not decide where it cannot watch."""
    stub = health_pb2_grpc.HealthStub(guarded.channel)
    watches = [stub.Watch(ANYBODY, metadata=sent) for sent in ((), (("authorization", "Bearer wrong"),))]
    assert [next(watch).status for watch in watches] == [SERVING] * 2
    assert code_of(status_of(lambda: next(stub.Watch(ANYBODY)))) == "RESOURCE_EXHAUSTED"
    token = (("authorization", "Bearer secret"),)
    own = [stub.Watch(ANYBODY, metadata=token) for _ in range(2)]
    assert [next(watch).status for watch in own] == [SERVING] * 2
    assert code_of(status_of(lambda: next(stub.Watch(ANYBODY, metadata=token)))) == "RESOURCE_EXHAUSTED"
    for watch in [*watches, *own]:
        watch.cancel()


def test_a_stop_does_not_wait_for_requests_that_do_not_come(tmp_path: Path) -> None:
    """A stranger must not hold up a deployment."""
    server = ServerProcess(tmp_path / "log.db", "--grace", "20")
    client = server.client()
    with grpc.insecure_channel(client.target) as other, without_request(other, 5):
        client.apply(experiment("e"))
        until(lambda: client.decide("e").action.id, what="it serves")
        client.close()
        assert server.terminate() == 0  # it has less time than the grace


def test_bytes_that_are_no_request_are_the_callers_fault(tmp_path: Path) -> None:
    """INTERNAL would page the operator, and what is not counted nobody sees."""
    with serving(tmp_path) as client:
        for method in (DECIDE, PAUSE):
            status = status_of(partial(client.channel.unary_unary(method), b"\xff\xff", timeout=10))
            assert code_of(status) == "INVALID_ARGUMENT"
            assert "no message of this method's type" in status.message
        counted = 'grpc_server_handled_total{grpc_code="InvalidArgument",grpc_method="Decide"'
        assert counted in client.fetch("/metrics")[1]
        stub = client.channel.unary_unary("/grpc.health.v1.Health/Check")
        assert code_of(status_of(lambda: stub(b"\xff\xff", timeout=10))) == "INVALID_ARGUMENT"
        ask = client.channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        assert code_of(status_of(lambda: next(ask(iter([b"\xff\xff"]), timeout=10)))) == "INVALID_ARGUMENT"


def test_a_thousand_watches_use_up_no_calls_and_all_hear_of_the_end(tmp_path: Path) -> None:
    """Clients with health checking watch for as long as they live."""
    with serving(tmp_path, max_concurrent_rpcs=5, threads=1) as client, own_channel(client) as other:
        stub = health_pb2_grpc.HealthStub(other)
        watches = [stub.Watch(ANYBODY) for _ in range(1_000)]
        assert {next(watch).status for watch in watches} == {SERVING}
        assert client.decide("e").action.id
        client.server.grpc_port._health.set(NOT_SERVING)
        assert {next(watch).status for watch in watches} == {NOT_SERVING}
        for watch in watches:
            watch.cancel()
        until(lambda: not client.server.grpc_port._health._watches, what="all watches are forgotten")
        until(lambda: not client.server.grpc_port._intake._streams.count, what="none counts")


def test_every_client_with_health_checking_is_served(tmp_path: Path) -> None:
    """Load balancing in gRPC's clients watches each server; the 33rd client must be served as the first is."""
    config = json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}})
    with serving(tmp_path) as client:
        channels = [
            grpc.insecure_channel(
                client.target, [("grpc.service_config", config), ("grpc.use_local_subchannel_pool", 1)]
            )
            for _ in range(64)
        ]
        try:
            for number, channel in enumerate(channels):
                request = pb.DecideRequest(experiment="e", unit_id=f"unit-{number}")
                stub = decider_service_pb2_grpc.DeciderServiceStub(channel)  # type: ignore[no-untyped-call]
                assert stub.Decide(request, timeout=20, wait_for_ready=True).action.id
        finally:
            for channel in channels:
                channel.close()


def test_health_is_answered_while_all_calls_wait(tmp_path: Path) -> None:
    """Who holds the log for a while makes calls wait; a probe that waits too has the server restarted."""
    with serving(tmp_path, max_concurrent_rpcs=4, threads=1) as client, writing(client):
        waiting = [client.future("Decide", pb.DecideRequest(experiment="e", unit_id="unit")) for _ in range(4)]
        until(lambda: client.server.grpc_port._intake._calls.count == 4, what="no more calls are possible")
        assert code_of(status_of(lambda: client.get("e"))) == "RESOURCE_EXHAUSTED"
        stub = health_pb2_grpc.HealthStub(client.channel)
        assert stub.Check(ANYBODY, timeout=10).status == SERVING
        assert stub.List(health_pb2.HealthListRequest(), timeout=10).statuses["decider.v1.DeciderService"]
        assert not any(call.done() for call in waiting)


@contextmanager
def writing(client: InProcessClient) -> Iterator[None]:
    """Somebody else's transaction."""
    with closing(sqlite3.connect(client.db, isolation_level=None)) as other:
        other.execute("begin immediate")
        try:
            yield
        finally:
            other.execute("rollback")


def test_open_reflection_streams_keep_no_other_waiting(tmp_path: Path) -> None:
    """A developer's tool may stay open all day; the next one must be answered all the same."""
    done = threading.Event()

    def ask(times: int) -> Iterator[reflection_pb2.ServerReflectionRequest]:
        for _ in range(times):
            yield reflection_pb2.ServerReflectionRequest(list_services="")
        done.wait()

    with serving(tmp_path) as client:
        stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
        streams = [stub.ServerReflectionInfo(ask(3)) for _ in range(100)]
        try:
            for stream in streams:
                assert len([next(stream).list_services_response for _ in range(3)]) == 3
        finally:
            done.set()
        assert [list(stream) for stream in streams] == [[]] * 100  # the end of the questions ends the stream


def test_streams_that_are_cancelled_at_any_moment_do_not_end_the_server(tmp_path: Path) -> None:
    """An event of a stream that grpcio has forgotten would end its thread: nobody would be answered any more."""
    question = reflection_pb2.ServerReflectionRequest(list_services="")

    def open_and_cancel(seconds: float) -> None:
        done = threading.Event()

        def ask() -> Iterator[reflection_pb2.ServerReflectionRequest]:
            yield question
            done.wait()

        with own_channel(client) as other:
            for number in range(400):
                stream = reflection_pb2_grpc.ServerReflectionStub(other).ServerReflectionInfo(ask())
                watch = health_pb2_grpc.HealthStub(other).Watch(ANYBODY)
                time.sleep(seconds * (number % 40))
                watch.cancel()
                stream.cancel()
            done.set()

    with serving(tmp_path) as client:
        threads = [threading.Thread(target=open_and_cancel, args=(1e-4,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.decide("e").action.id
        until(lambda: not client.server.grpc_port._intake._streams.count, what="all have ended")


@pytest.mark.parametrize(("most", "of_one"), [(4, 9), (9, 4)])
def test_streams_are_limited_and_what_is_refused_says_why(tmp_path: Path, most: int, of_one: int) -> None:
    """Each takes memory: strangers must not fill it, nor take the streams of everybody else."""
    with serving(tmp_path, max_streams=most, max_caller_streams=of_one) as client:
        stub = health_pb2_grpc.HealthStub(client.channel)
        watches = [stub.Watch(ANYBODY) for _ in range(4)]
        assert [next(watch).status for watch in watches] == [SERVING] * 4
        status = status_of(lambda: next(stub.Watch(ANYBODY)))
        assert code_of(status) == "RESOURCE_EXHAUSTED"
        assert "takes 4 streams at once" in status.message
        watches[0].cancel()
        until(lambda: answers(lambda: next(stub.Watch(ANYBODY))), what="there is room again")


def test_who_asks_for_health_once_is_answered_however_many_watch(tmp_path: Path) -> None:
    """Else a balancer behind the same address takes a healthy server for a dead one, and a probe ends it."""
    with serving(tmp_path, max_streams=3, max_caller_streams=2) as client:
        stub = health_pb2_grpc.HealthStub(client.channel)
        watches = [stub.Watch(ANYBODY) for _ in range(2)]
        assert [next(watch).status for watch in watches] == [SERVING] * 2
        assert code_of(status_of(lambda: next(stub.Watch(ANYBODY)))) == "RESOURCE_EXHAUSTED"
        for _ in range(5):
            assert stub.Check(ANYBODY, timeout=20).status == SERVING
            assert stub.List(health_pb2.HealthListRequest(), timeout=20).statuses[""].status == SERVING


def answers(call: Callable[[], object]) -> bool:
    """Whether a call is not refused."""
    try:
        return call() is not None
    except grpc.RpcError:
        return False


def test_one_caller_leaves_calls_to_the_others(tmp_path: Path) -> None:
    """Of one address; another one is served meanwhile."""
    with serving(tmp_path, max_caller_rpcs=2, threads=1) as client, writing(client):
        waiting = [client.future("Decide", pb.DecideRequest(experiment="e", unit_id="unit")) for _ in range(2)]
        until(lambda: client.server.grpc_port._intake._calls.count == 2, what="they wait")
        status = status_of(lambda: client.get("e"))
        assert code_of(status) == "RESOURCE_EXHAUSTED"
        assert "of one caller it takes 2 calls at once" in status.message
        assert not any(call.done() for call in waiting)


def test_a_reply_that_nobody_reads_counts_until_it_has_left(tmp_path: Path) -> None:
    """Each stays in memory: 400 callers that did not read replies of 2.7 MB took a gigabyte, and no limit."""
    with serving(tmp_path, max_caller_rpcs=3) as client:
        calls, streams = client.server.grpc_port._intake._calls, range(1, 11, 2)
        with socket.create_connection(("127.0.0.1", client.server.port)) as connection:
            connection.sendall(PREFACE.replace(PREFACE[-9:], _frame(4, 0, 0, b"\0\4\0\0\0\0")))  # reads nothing
            for stream in streams:
                connection.sendall(_frame(1, 4, stream, GET_HEAD) + _frame(0, 1, stream, b"\0\0\0\0\3\n\1e"))
            until(lambda: 'grpc_code="ResourceExhausted"' in client.fetch("/metrics")[1], what="the fourth is refused")
            until(lambda: calls.count == 3, what="three replies wait")
            assert not client.server.grpc_port._intake._running  # so a stop waits for none of them
            assert code_of(status_of(lambda: client.get("e"))) == "RESOURCE_EXHAUSTED"
        until(lambda: not calls.count, what="they are forgotten with their connection")
        assert client.get("e").version


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What an HTTP/2 client sends first (RFC 9113, 3.4): with empty settings."""


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content


GET_HEAD = b"".join(
    b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
    for name, value in (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/decider.v1.ExperimentService/GetExperiment"),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
)
"""Headers of a call, without Huffman's code and without an index (RFC 7541, 6.2.2)."""

PING, GOAWAY = bytes([0, 0, 8, 6, 0, 0, 0, 0, 0]) + bytes(8), 7
"""A frame, and the type of another."""


def test_connections_that_ping_each_ten_seconds_are_kept(tmp_path: Path) -> None:
    """Proxies ask so whether an idle connection lives; gRPC ends connections that do so more often than it is told."""
    with serving(tmp_path) as client, socket.create_connection(("127.0.0.1", client.server.port)) as connection:
        connection.sendall(PREFACE)
        for _ in range(4):  # two pings that come too early are forgiven
            connection.sendall(PING)
            time.sleep(5.2)
        connection.sendall(PING)
        kinds = [frame[3] for frame in _frames(connection, pings=5)]
        assert GOAWAY not in kinds


def _frames(connection: socket.socket, *, pings: int) -> Iterator[bytes]:
    """Until so many pings were answered, or the other side ends."""
    reader = connection.makefile("rb")
    while pings and (head := reader.read(9)):
        reader.read(int.from_bytes(head[:3], "big"))
        pings -= head[3] == PING[3]
        yield head
    assert not pings, "the connection has ended"
