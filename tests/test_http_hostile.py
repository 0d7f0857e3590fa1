"""Callers of the HTTP port who are slow, gone, or send what is no HTTP, against a real server process: what they cost
is bounded, nobody else waits for them, and the output has no traceback.
"""

from __future__ import annotations

import asyncio
import http.client
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest
from starlette.requests import Request

from decider.server.http.connection import LARGEST_HEAD, MOST_CONNECTIONS, PATIENCE
from decider.server.http.port import THREADS
from decider.server.http.probes import Readiness, probes
from tests import rpc_clients
from tests.rpc_clients import ServerProcess, experiment, fetch, until

ON_THEIR_WAY = 64
"""Connections that are accepted, or about to be dropped."""

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
WHOLE = GET + b"\r\n"
SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that would wait a thousand seconds for calls under way; nobody here has any. It ends as one whom nobody
    troubles."""
    opened = ServerProcess(tmp_path / "log.db", "--grace", "1000")
    yield opened
    opened.process.terminate()
    try:
        until(lambda: opened.process.poll() is not None, what="the server ends")
        assert opened.process.returncode == 0
        assert opened.output.endswith("draining\nstopped\n")
        assert "Traceback" not in opened.output
    finally:
        opened.kill()


def connect(server: ServerProcess, *, receive: int | None = None) -> socket.socket:
    """A connection. receive: bytes that its buffer takes."""
    host, _, port = server.http.rpartition(":")
    sock = socket.socket()
    if receive is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    sock.settimeout(rpc_clients.PATIENCE)
    sock.connect((host, int(port)))
    return sock


def send(sock: socket.socket, *pieces: bytes) -> None:
    """To a server that may have hung up."""
    with suppress(OSError):
        for piece in pieces:
            sock.sendall(piece)


@contextmanager
def connections(server: ServerProcess, count: int, *begin: bytes) -> Iterator[list[socket.socket]]:
    """Many that have sent the same."""
    with ExitStack() as opened:
        found = []
        for _ in range(count):
            found.append(opened.enter_context(connect(server)))
            send(found[-1], *begin)
        yield found


def threads(server: ServerProcess) -> int:
    """Of the process."""
    return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))


def descriptors(server: ServerProcess) -> int:
    """Of the process."""
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def memory(server: ServerProcess) -> int:
    """Bytes that are resident."""
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()


def is_served(server: ServerProcess) -> bool:
    """Whether others are."""
    return [fetch(f"http://{server.http}{path}")[0] for path in ("/metrics", "/healthz", "/readyz")] == [200] * 3


SLOW: dict[str, Sequence[bytes]] = {
    "nothing": [],
    "half a line": [b"GET /heal"],
    "headers without end": [GET, b"X-A: b\r\n"],
    "a body that never comes": [b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n", b"x"],
    "pieces of a body": [b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"],
    "a second request without end": [WHOLE, b"GET"],
    "an upgrade": [GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"],
    "a greeting of TLS": [bytes.fromhex("16030100c8010000c40303")],
}


@pytest.mark.parametrize("kind", SLOW)
def test_slow_callers_cost_little_and_nobody_waits_for_them(server: ServerProcess, kind: str) -> None:
    """Four hundred who never finish: threads, memory and descriptors stay within bounds; scrapes and probes are
    answered at once; and the server ends (see the fixture) while they still hold on."""
    assert is_served(server)
    before = threads(server), descriptors(server), memory(server)
    with connections(server, 400, *SLOW[kind]) as slow:
        assert is_served(server)
        for sock in slow:
            send(sock, b"x")  # as drippers do
        assert is_served(server)
        assert threads(server) <= before[0] + THREADS + 1
        assert descriptors(server) <= before[1] + MOST_CONNECTIONS + ON_THEIR_WAY
        assert memory(server) - before[2] < 40_000_000
        server.process.terminate()
        until(lambda: server.process.poll() is not None, what="the server ends")


def test_a_caller_that_drips_is_dropped_though_it_never_pauses(server: ServerProcess) -> None:
    """A byte now and then must not buy more time."""
    with connect(server) as headers, connect(server) as body, connect(server) as again:
        send(headers, GET, b"X-A: ")
        send(body, b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n")
        send(again, WHOLE)
        left = {headers, body, again}
        begun = time.monotonic()

        def drip() -> None:
            time.sleep(0.2)
            for sock in tuple(left):
                try:
                    sock.sendall(b"x")
                except OSError:
                    left.discard(sock)

        until(lambda: not left, what="all are dropped", between=drip)
        assert time.monotonic() - begun >= PATIENCE / 2, "they had some time"
        assert is_served(server)


def test_a_caller_that_never_reads_is_dropped(server: ServerProcess) -> None:
    """Answers that nobody reads must not fill the memory, of the process or of the system."""
    assert is_served(server)
    before = descriptors(server), memory(server)
    with ExitStack() as opened:
        deaf = [opened.enter_context(connect(server, receive=4096)) for _ in range(30)]
        for sock in deaf:
            sock.setblocking(False)
            send(sock, *[SCRAPE] * 200)
        assert is_served(server)
        until(lambda: all(map(is_reset, deaf)), what="they are dropped")
    assert descriptors(server) <= before[0] + 5
    assert memory(server) - before[1] < 60_000_000


def is_reset(sock: socket.socket) -> bool:
    """Whether the server has dropped it; without reading."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == CLOSED


CLOSED = 7
"""A state of TCP, as Linux numbers them."""


def test_thousands_of_connections_make_room_for_a_scrape(server: ServerProcess) -> None:
    """Whoever comes now matters more than who has said nothing for longest."""
    before = descriptors(server)
    for _ in range(10):
        with connections(server, 1_000) as crowd:
            assert is_served(server)
            assert descriptors(server) <= before + MOST_CONNECTIONS + ON_THEIR_WAY
            for sock in crowd:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    until(lambda: descriptors(server) < before + 50, what="they are let go")


def test_few_descriptors_are_left_to_the_log_and_to_grpc(server: ServerProcess) -> None:
    """A port for metrics must not take what decisions need: connections keep to a quarter of what the process may."""
    with closing(server.client()) as client:
        client.apply(experiment("e"))
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (200, 200))
        with connections(server, 300):
            assert is_served(server)
            for unit in range(20):
                assert client.decide("e", f"unit-{unit}").decision_id
            assert descriptors(server) < 200


def test_a_process_without_a_free_descriptor_answers_as_soon_as_there_is_one(server: ServerProcess) -> None:
    """Somebody else may have taken them; the output says so in one line, without a traceback."""
    assert is_served(server)
    host, _, port = server.http.rpartition(":")
    before = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (1, before[1]))
    with socket.create_connection((host, int(port)), rpc_clients.PATIENCE) as sock:
        send(sock, WHOLE)
        until(lambda: "Too many open files" in server.output, what="the output says so")
        time.sleep(2)  # it has tried again
        assert server.output.count("Too many open files") == 1
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, before)
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
    assert is_served(server)


NO_HTTP: dict[str, Sequence[bytes]] = {
    "bytes": [bytes(range(256))],
    "zeros": [b"\0" * 1000],
    "a line without end": [b"GET /" + b"a" * 10 * LARGEST_HEAD],
    "a long header": [GET + b"X-A: " + b"a" * 10 * LARGEST_HEAD + b"\r\n\r\n"],
    "many headers": [GET + b"X-A: b\r\n" * LARGEST_HEAD + b"\r\n"],
    "a wrong length": [GET + b"Content-Length: -1\r\n\r\n"],
    "two lengths": [GET + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"],
    "a length and pieces": [GET + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"],
    "no host": [b"GET / HTTP/1.1\r\n\r\n"],
    "HTTP/2": [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    "HTTP/9": [b"GET / HTTP/9.9\r\nHost: x\r\n\r\n"],
    "a wrong piece at once": [GET + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n"],
    "a wrong piece": [GET + b"Transfer-Encoding: chunked\r\n\r\n", b"ZZ\r\n"],
    "a wrong piece of a scrape": [b"GET /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"ZZ\r\n"],
    "more than one request": [WHOLE, b"nonsense\r\n\r\n"],
    "a whole request and bytes": [WHOLE + b"\0\0\0\r\n\r\n"],
    "odd paths": [b"GET /%ff%00%0d%0aX:y?%zz=%\xff HTTP/1.0\r\n\r\n"],
    "odd headers": [GET + b"X\xe9: \xff\r\nAccept: \xff;q=\x00\r\n\r\n"],
    "an early wish": [GET + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"],
}


@pytest.mark.parametrize("kind", NO_HTTP)
@pytest.mark.parametrize("leave", ["at once", "by a reset", "after a look"])
def test_what_is_no_http_is_refused_or_dropped(shared: ServerProcess, kind: str, leave: str) -> None:
    """Scanners find every port. Whatever they send, and however they leave, others are served and nothing is logged
    that alarms."""
    with connect(shared) as sock:
        for piece in NO_HTTP[kind]:
            send(sock, piece)
            time.sleep(0.02)  # so that it arrives as a piece of its own
        if leave == "by a reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if leave == "after a look":
            with suppress(OSError):
                sock.recv(65_536)
    assert is_served(shared)
    assert "Traceback" not in shared.output
    assert "ERROR" not in shared.output


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for all who leave it as it was."""
    opened = ServerProcess(tmp_path_factory.mktemp("hostile") / "log.db")
    yield opened
    assert opened.terminate() == 0
    assert "Traceback" not in opened.output


def test_a_request_with_two_lengths_is_refused_and_nothing_behind_it_is_read(shared: ServerProcess) -> None:
    """A proxy may go by the other one: then what is behind it is somebody else's request."""
    lengths = b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    with closing(connect(shared)) as sock:
        send(sock, SCRAPE.replace(b"\r\n\r\n", b"\r\n") + lengths + WHOLE)
        answer = b"".join(iter(lambda: sock.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_asking_for_a_websocket_gives_the_operator_no_advice(shared: ServerProcess) -> None:
    """Anybody can ask."""
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    with closing(connect(shared)) as sock:
        send(sock, GET + upgrade)
        assert sock.recv(65_536).startswith(b"HTTP/1.1 200 ")
    assert "WebSocket" not in shared.output


def test_a_complaint_about_callers_is_logged_once(server: ServerProcess) -> None:
    """Anybody can send what is no HTTP, as often as they like: it must not fill a disk."""
    with connections(server, 200, b"nonsense\r\n\r\n") as senders:
        assert all(b"400 Bad Request" in sock.recv(1000) for sock in senders)
    assert server.output.count("WARNING Invalid HTTP request received.") == 1


HANG_UPS: dict[str, Callable[[socket.socket], object]] = {
    "after the request": lambda _: None,
    "after some bytes of the answer": lambda sock: sock.recv(10),
    "with its half closed": lambda sock: sock.shutdown(socket.SHUT_WR),
}


@pytest.mark.parametrize("kind", HANG_UPS)
@pytest.mark.parametrize("reset", [True, False])
def test_a_scraper_that_hangs_up_leaves_nothing(shared: ServerProcess, kind: str, reset: bool) -> None:
    """Prometheus does so at each scrape that takes too long."""
    before = descriptors(shared), shared.output
    for _ in range(20):
        with connect(shared) as sock:
            send(sock, SCRAPE * 3)
            HANG_UPS[kind](sock)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert is_served(shared)
    until(lambda: descriptors(shared) <= before[0] + 5, what="their connections are closed")
    assert shared.output == before[1]


def test_an_idle_connection_is_closed_politely(server: ServerProcess) -> None:
    """A scraper finds it closed, not reset, and opens another one."""
    with closing(http.client.HTTPConnection(server.http, timeout=rpc_clients.PATIENCE)) as connection:
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok\n"
        assert connection.sock.recv(1) == b""


def test_a_server_ends_while_callers_keep_coming(server: ServerProcess) -> None:
    """What is accepted in the last moment is waited for no longer than what came before. (The fixture ends it once
    more.)"""
    host, _, port = server.http.rpartition(":")
    with ExitStack() as opened:
        server.process.terminate()

        def come() -> None:
            with suppress(OSError):
                opened.enter_context(socket.create_connection((host, int(port)), 1))

        until(lambda: server.process.poll() is not None, what="the server ends", between=come)


def test_any_number_may_ask_whether_a_server_is_ready() -> None:
    """Nobody needs a token for that: with a bound a crowd of strangers made a probe's answer 503."""
    go = threading.Event()

    def ready() -> Readiness:
        go.wait(10)
        return Readiness(True, "ok")

    async def ask() -> list[int]:
        endpoint = probes(ready)[1].endpoint
        scope = {"type": "http", "method": "GET", "path": "/readyz", "headers": []}
        asked = [asyncio.create_task(endpoint(Request(scope))) for _ in range(200)]
        await asyncio.sleep(0.1)
        go.set()
        return [answer.status_code for answer in await asyncio.gather(*asked)]

    assert asyncio.run(ask()) == [200] * 200
