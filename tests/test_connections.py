"""Connections that say nothing, begin no TLS, or have nothing to do: they fill neither memory nor descriptors, and keep
nobody out for long.
"""

from __future__ import annotations

import math
import resource
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from decider.channel import Credentials, open_channel
from decider.server.connections import attach_filter, open_connections, stop_listening, take_all_in
from decider.server.http.handshakes import MOST_HANDSHAKES
from decider.server.limits import raise_descriptors, share_of_descriptors
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_service_pb2 as experiments_pb
from decider.v1.decider_service_pb2_grpc import DeciderServiceStub
from decider.v1.experiment_service_pb2_grpc import ExperimentServiceStub
from simulator.studies.certificates import Pair, authority, issue
from tests.rpc_clients import InProcessClient, ServerProcess, code_of, experiment, rows, status_of, until

ON_THEIR_WAY = 40
"""Descriptors that a server has in the moment for other reasons."""

MOST = 60
"""Connections that the servers here take."""

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""With which a connection of HTTP/2 begins, and its settings."""

SO_DETACH_FILTER = 27

NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)
"""A packet filter that takes nothing: the handshake of whoever has it does not end."""

ANYBODY = health_pb2.HealthCheckRequest()


def descriptors(server: ServerProcess) -> int:
    """That a server has open."""
    return len([*Path(f"/proc/{server.process.pid}/fd").iterdir()])


@contextmanager
def connections(address: str, number: int, said: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many that have said this and nothing more."""
    host, _, port = address.rpartition(":")
    with ExitStack() as stack:
        opened = []
        for _ in range(number):
            opened.append(stack.enter_context(socket.create_connection((host, int(port)), 20)))
            with suppress(OSError):  # it was closed at once
                opened[-1].sendall(said)
        yield opened


def is_open(sock: socket.socket) -> bool:
    """Whether the server has not closed it."""
    sock.setblocking(False)
    try:
        while sock.recv(65_536):
            pass
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def few_are_open(crowd: list[socket.socket]) -> bool:
    """Not more than handshakes may be at once."""
    return sum(map(is_open, crowd)) <= MOST_HANDSHAKES


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Pair]:
    """An authority, and a server's certificate."""
    folder = tmp_path_factory.mktemp("certificates")
    made = authority(folder, "authority")
    return made.cert, issue(folder, "server", made)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory, pair: tuple[Path, Pair]) -> Iterator[ServerProcess]:
    """A server with TLS."""
    made = ("--tls-cert", str(pair[1].cert), "--tls-key", str(pair[1].key))
    options = (*made, "--max-connections", str(MOST))
    server = ServerProcess(tmp_path_factory.mktemp("tls") / "log.db", *options)
    try:
        yield server
    finally:
        server.terminate()


def status_over_tls(server: ServerProcess, ca: Path) -> bytes:
    """The first line of the answer of /healthz."""
    host, _, port = server.http.rpartition(":")
    with (
        socket.create_connection((host, int(port)), 20) as sock,
        ssl.create_default_context(cafile=str(ca)).wrap_socket(sock, server_hostname=host) as wrapped,
    ):
        wrapped.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return wrapped.recv(100).partition(b"\r\n")[0]


@pytest.mark.parametrize(
    "said", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], ids=["nothing", "half a hello"]
)
def test_handshakes_over_http_that_do_not_end_make_room(
    tls: ServerProcess, pair: tuple[Path, Pair], said: bytes
) -> None:
    """Each would have a descriptor and memory for as long as a handshake may take."""
    before = descriptors(tls)
    for _ in range(2):
        with connections(tls.http, 600, said) as crowd:
            assert status_over_tls(tls, pair[0]) == b"HTTP/1.1 200 OK"
            assert descriptors(tls) <= before + MOST_HANDSHAKES + ON_THEIR_WAY
            until(partial(few_are_open, crowd), what="the oldest were dropped")
    until(lambda: descriptors(tls) < before + ON_THEIR_WAY, what="they are let go")
    assert "Traceback" not in tls.output


def test_connections_over_http_that_are_in_use_are_no_handshakes(tls: ServerProcess, pair: tuple[Path, Pair]) -> None:
    """A scraper that stays connected is not dropped for strangers' sake."""
    host, _, port = tls.http.rpartition(":")
    ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with (
        socket.create_connection((host, int(port)), 20) as sock,
        ssl.create_default_context(cafile=str(pair[0])).wrap_socket(sock, server_hostname=host) as wrapped,
    ):
        for _ in range(3):
            wrapped.sendall(ask)
            until(lambda: wrapped.recv(4_096).endswith(b"ok\n"), what="it is answered")
            with connections(tls.http, 2 * MOST_HANDSHAKES):
                pass


def test_a_stop_waits_for_no_handshake(tmp_path: Path, pair: tuple[Path, Pair]) -> None:
    """Strangers must not hold up a deployment."""
    made = ("--tls-cert", str(pair[1].cert), "--tls-key", str(pair[1].key))
    server = ServerProcess(tmp_path / "log.db", *made, "--grace", "20")
    with connections(server.http, 50) as crowd, connections(server.target, 50):
        assert server.terminate() == 0
        assert not any(map(is_open, crowd))
    assert "still at work" not in server.output


def test_handshakes_of_grpc_are_connections_that_count(tls: ServerProcess, pair: tuple[Path, Pair]) -> None:
    """More than the setting are closed at once; whoever is connected is served meanwhile."""
    before = descriptors(tls)
    credentials = Credentials(ca=pair[0])
    with open_channel(tls.target, credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        assert check(ANYBODY, timeout=20).status
        with connections(tls.target, 300) as crowd:
            until(lambda: sum(map(is_open, crowd)) < MOST, what="all above the bound are closed")
            assert check(ANYBODY, timeout=20).status
            assert descriptors(tls) <= before + MOST + ON_THEIR_WAY
    with open_channel(tls.target, credentials, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        again = health_pb2_grpc.HealthStub(channel).Check
        assert until(lambda: code_of(status_of(lambda: again(ANYBODY, timeout=5))) == "OK", what="there is room")


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that closes connections after a second without calls."""
    options = ("--max-idle", "1", "--max-connections", str(MOST), "--operate-listen", "127.0.0.1:0")
    server = ServerProcess(tmp_path_factory.mktemp("idle") / "log.db", *options)
    try:
        yield server
    finally:
        server.terminate()


def operators(server: ServerProcess) -> str:
    """The address of the other listener."""
    (line,) = [one for one in server.output.splitlines() if one.startswith("ExperimentService on ")]
    return line.rpartition(" ")[2]


def test_idle_connections_leave_and_streams_stay(idle: ServerProcess) -> None:
    """A stranger cannot keep others out by being there; a client that watches health is not disturbed."""
    with grpc.insecure_channel(idle.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(ANYBODY)
        assert next(watch).status
        with connections(idle.target, 2 * MOST, PREFACE) as crowd, connections(operators(idle), 10):
            with grpc.insecure_channel(operators(idle), [("grpc.use_local_subchannel_pool", 1)]) as other:
                assert health_pb2_grpc.HealthStub(other).Check(ANYBODY, timeout=20).status  # has a bound of its own
            until(lambda: not any(map(is_open, crowd)), what="the idle ones are closed")
            with grpc.insecure_channel(idle.target, [("grpc.use_local_subchannel_pool", 1)]) as new:
                assert health_pb2_grpc.HealthStub(new).Check(ANYBODY, timeout=20).status
        assert not watch.done()
        assert health_pb2_grpc.HealthStub(channel).Check(ANYBODY, timeout=20).status


def test_connections_that_keep_new_clients_out_are_seen(tmp_path: Path) -> None:
    """No call is refused by them, so nothing else would show it."""
    client = InProcessClient(tmp_path / "log.db", max_connections=10)
    try:
        before = open_connections([client.server.port])[client.server.port]
        with connections(client.target, 9 - before, PREFACE):
            until(lambda: "9 of 10 connections to --listen are open" in client.fetch("/readyz")[1], what="it is said")
            _, text = client.fetch("/metrics")
            assert 'decider_connections{listener="--listen"} 9.0' in text
            assert 'decider_connections_limit{listener="--listen"} 10.0' in text
        until(lambda: "connections to --listen" not in client.fetch("/readyz")[1], what="there is room again")
    finally:
        client.close()


def test_who_has_connected_is_taken_in_before_a_process_stops_to_listen() -> None:
    """The system resets whoever waits then: a call, for whoever sent it on a new connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), 20) as caller:
            stops = threading.Thread(target=stop_listening, args=([port],), kwargs={"patient_until": math.inf})
            stops.start()
            stops.join(0.1)
            taken, _ = listening.accept()
            with taken:
                stops.join(20)
                taken.sendall(b"welcome")
                assert caller.recv(100) == b"welcome"
        assert not stops.is_alive()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 20)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_slow_handshake_ends_before_a_process_stops_to_listen(host: str) -> None:
    """As of callers far away."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening, socket.socket(family) as caller:
        port = listening.getsockname()[1]
        attach_filter(caller, NOTHING)
        caller.setblocking(False)
        caller.connect_ex((host, port))
        take_all_in(listening, port, patient_until=time.monotonic() + 0.2)
        stops = threading.Thread(target=take_all_in, args=(listening, port), kwargs={"patient_until": math.inf})
        stops.start()
        stops.join(0.1)
        assert stops.is_alive()
        caller.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        listening.settimeout(20)
        with listening.accept()[0] as taken:
            stops.join(20)
            taken.sendall(b"welcome")
            caller.settimeout(20)
            assert caller.recv(100) == b"welcome"
        assert not stops.is_alive()


def test_whoever_connects_while_a_process_stops_to_listen_comes_to_another_one() -> None:
    """A second later."""
    with (
        socket.create_server(("127.0.0.1", 0), reuse_port=True) as other,
        socket.create_server(address := other.getsockname(), reuse_port=True) as one,
        ThreadPoolExecutor(16) as pool,
    ):
        other.settimeout(20)
        take_all_in(one, address[1], patient_until=math.inf)
        callers = [pool.submit(socket.create_connection, address, 20) for _ in range(16)]
        time.sleep(0.2)
        one.close()
        for caller in callers:
            other.accept()[0].close()
            caller.result().close()


def test_without_a_file_to_spare_a_process_stops_to_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would take nobody in, and keep everybody."""
    monkeypatch.setattr("decider.server.connections.TABLES", (Path("/proc/self/mem"),))  # there, and not to be read
    with socket.create_server(("127.0.0.1", 0)) as listening:
        take_all_in(listening, listening.getsockname()[1], patient_until=math.inf)


def test_where_the_system_does_not_tell_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A zero would be an invention."""
    assert open_connections([1]) == {1: 0}
    monkeypatch.setattr("decider.server.connections.TABLES", (tmp_path / "none",))
    assert open_connections([1]) == {}


def test_a_call_at_the_end_of_idleness_is_answered(idle: ServerProcess) -> None:
    """The connection closes in the moment in which the client uses it: that must be no error, and nothing twice."""
    with grpc.insecure_channel(operators(idle)) as channel:
        apply = ExperimentServiceStub(channel).ApplyExperiment  # type: ignore[no-untyped-call]
        apply(experiments_pb.ApplyExperimentRequest(experiment=experiment("idle")), timeout=20)
    failed: list[BaseException] = []

    def call(number: int) -> None:
        pings = [("grpc.keepalive_time_ms", 10_000)] if number % 2 else []
        options = [("grpc.use_local_subchannel_pool", 1), *pings]
        try:
            with grpc.insecure_channel(idle.target, options) as channel:
                stub = DeciderServiceStub(channel)  # type: ignore[no-untyped-call]
                for turn in range(4):
                    request = pb.DecideRequest(experiment="idle", unit_id="unit", decision_id=f"{number}-{turn}")
                    stub.Decide(request, timeout=20)
                    time.sleep(0.9 + 0.01 * number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert rows(idle.db, "select count(*), count(distinct decision_id) from decisions") == [(80, 80)]


def test_a_process_takes_the_files_it_may_and_leaves_some_to_each(tmp_path: Path) -> None:
    """1,024 is what systems give at first, for programs of another time."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        assert [share_of_descriptors(one_of, most=100) for one_of in (2, 4, 16)] == [100, 64, 16]
        raise_descriptors()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 256
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        server = ServerProcess(tmp_path / "log.db")
        try:
            assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[0] > 256
        finally:
            server.terminate()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
