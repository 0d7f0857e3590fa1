"""Callers of the web port who are slow, gone, or send what is no HTTP: what they cost is bounded, nobody else waits."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from decider.errors import DeciderError
from decider.log.group_commit import CommitExecutor
from decider.log.protocol import Caller
from decider.server.access import Access
from decider.server.methods import Method
from decider.server.roles import Rights, Role
from decider.server.rpc import Parse
from decider.server.settings import Settings
from decider.server.web.connection import AT_ONE_TIME, MOST_AHEAD, WebConnection
from decider.server.web.port import WebPort
from decider.v1 import decider_service_pb2 as pb
from tests.rpc_clients import PATIENCE, until
from tests.test_web import send

PATH = "/decider.v1.DeciderService/Decide"
BODY = b'{"experiment": "home", "unitId": "u"}'
MOST_CONNECTIONS = 6


class Handler:
    """Answers at once; for the unit `wait`, when it may or when nobody waits for it any more."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.waiting = threading.Event()
        self.gave_up = threading.Event()

    def answer(self, request: bytes, parse: Parse, caller: Caller, _: Rights) -> pb.DecideResponse:
        """As Method has it."""
        unit = parse(request).unit_id
        if unit == "wait":
            self.waiting.set()
            end = time.monotonic() + PATIENCE
            while not self.free.is_set() and time.monotonic() < end:
                if not caller.is_there():
                    self.gave_up.set()
                    break
                time.sleep(0.01)
        return pb.DecideResponse(decision_id="x" * 8_000_000 if unit == "large" else unit)


class Opened:
    """A port of its own."""

    def __init__(self, max_request_bytes: int = 10_000) -> None:
        self.handler = Handler()
        self.refused: list[DeciderError] = []
        method = Method(
            "decider.v1.DeciderService", "Decide", Role.DECIDE, pb.DecideRequest, pb.DecideResponse,
            self.handler.answer, self.refused.append,
        )  # fmt: skip
        self.calls = CommitExecutor(lambda _: [], threads=2)
        settings = Settings(
            web="127.0.0.1:0",
            max_connections=MOST_CONNECTIONS,
            max_concurrent_rpcs=2,
            max_request_bytes=max_request_bytes,
        )
        self.port = WebPort(settings, [method], calls=self.calls, access=Access(settings))
        self.port.start()
        self.address = ("127.0.0.1", self.port.port)

    def connect(self) -> socket.socket:
        """A connection."""
        return socket.create_connection(self.address, PATIENCE)

    def close(self) -> None:
        """Ends what waits, too."""
        self.handler.free.set()
        self.port.stop()
        self.calls.shutdown()


@pytest.fixture
def opened() -> Iterator[Opened]:
    """A port for one test."""
    one = Opened()
    yield one
    one.close()


@pytest.fixture(scope="module")
def common() -> Iterator[Opened]:
    """A port for several tests, which all leave it as it was."""
    one = Opened()
    yield one
    one.close()


def post(*, body: bytes = BODY, path: str = PATH, more: bytes = b"") -> bytes:
    """A request."""
    length = b"Content-Length: %d\r\n" % len(body) if b"Transfer-Encoding" not in more else b""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n".encode()
    return head + length + more + b"\r\n" + body


def answers(opened: Opened, *pieces: bytes, most: int = 1_000) -> list[int]:
    """The statuses that come, until the connection is closed or so many are there."""
    with closing(opened.connect()) as sock:
        with suppress(OSError):  # it may be closed before all has been said
            for piece in pieces:
                sock.sendall(piece)
                time.sleep(0.02)
        received = b""
        with suppress(ConnectionError):
            while received.count(b"HTTP/1.1 ") < most and (piece := sock.recv(65_536)):
                received += piece
    return [int(one[:3]) for one in received.split(b"HTTP/1.1 ")[1:]]


def test_what_waits_behind_an_answer_is_bounded() -> None:
    """Requests ahead of it stay in memory, behind a stream for hours: one piece is read, and not all eight."""
    opened = Opened(max_request_bytes=MOST_AHEAD * AT_ONE_TIME)
    try:
        with closing(opened.connect()) as sock:
            sock.sendall(post(body=BODY.replace(b'"u"', b'"wait"')))
            assert opened.handler.waiting.wait(PATIENCE)
            sock.setblocking(False)
            for _ in range(10):
                with suppress(BlockingIOError):
                    sock.send(post(body=b"x" * (AT_ONE_TIME - 500)) * (MOST_AHEAD - 1))
                time.sleep(0.05)
            (connection,) = opened.port._server.server_state.connections
            assert isinstance(connection, WebConnection)
            held = sum([len(cycle.body) for cycle, _ in connection.pipeline])
            assert 0 < held <= AT_ONE_TIME
    finally:
        opened.close()


CHUNKED = post(more=b"Transfer-Encoding: chunked\r\n", body=b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY))
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"


@pytest.mark.parametrize(
    ("pieces", "statuses"),
    [
        ([post()], [200]),
        ([CHUNKED + b"\r\n"], [200]),
        ([post() * 3], [200] * 3),
        ([post(more=H2C)], [200]),
        ([post(more=H2C), post()], [200] * 2),
        ([post(more=H2C) * 2], [200] * 2),
        ([post(more=b"Content-Length: 5\r\n")], [400]),
        ([post().replace(b"Host", b"Transfer-Encoding: chunked\r\nHost")], [400]),
        ([post(more=b"Transfer-Encoding: identity\r\n")], [400]),
        ([CHUNKED, b"Origin: https://stranger.example\r\n", b"A: b\r\n", b"\r\n"], [200, 400]),
        ([post(more=b"X: " + b"a" * 20_000 + b"\r\n")], [400]),
        ([post().partition(b"\r\n\r\n")[0], *[b"a" * 5_000] * 5], [400]),
        ([post(more=b" folded\r\n")], [400]),
        ([post().replace(b"\r\n", b"\n")], [400]),
        ([b"CONNECT stranger:80 HTTP/1.1\r\nHost: x\r\n\r\n"], [400]),
        ([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], [400]),
        ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 100], [400]),
        ([post(body=b" " * 20_000)], [429]),
    ],
)
def test_what_is_no_request_is_refused(pieces: list[bytes], statuses: list[int], common: Opened) -> None:
    """And what a proxy could take for another request than we do. Java's client wishes for HTTP/2 in its first one."""
    got = answers(common, *pieces, most=len(statuses))
    assert got == statuses or got == statuses[-1:]  # the second one may come before the first is answered
    assert send(common.port.address, PATH, BODY, content_type="application/json").status == 200


def test_requests_ahead_of_answers_are_few(common: Opened) -> None:
    """Each costs memory before it is answered."""
    assert answers(common, post() * (MOST_AHEAD * 10))[-1] == 400


def reply(sock: socket.socket) -> bytes:
    """One answer, whose head and body come apart."""
    received = b""
    while not received.endswith(b"}") and (piece := sock.recv(65_536)):
        received += piece
    return received


def test_the_slow_are_dropped(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who send a head or a body byte by byte, and those who say nothing; who has called may be silent longer."""
    whole = post()
    with ExitStack() as stack:
        idle = stack.enter_context(closing(opened.connect()))
        idle.sendall(whole)
        assert reply(idle).startswith(b"HTTP/1.1 200")
        monkeypatch.setattr(WebConnection, "_patience", 0.3)
        silent, head, body = [stack.enter_context(closing(opened.connect())) for _ in range(3)]
        with suppress(OSError):  # on a busy machine they are dropped by now
            head.sendall(whole[:20])
            body.sendall(whole[:-5])
        began = time.monotonic()
        for sock in (silent, head, body):
            sock.settimeout(PATIENCE)
            with pytest.raises(ConnectionResetError):
                sock.recv(10)
        assert time.monotonic() - began < 5
        monkeypatch.undo()
        idle.sendall(whole)
        assert reply(idle).startswith(b"HTTP/1.1 200")


def test_many_connections_keep_nobody_out(opened: Opened) -> None:
    """One more takes the place of the one that has kept us waiting longest."""
    with ExitStack() as stack:
        silent = [stack.enter_context(closing(opened.connect())) for _ in range(MOST_CONNECTIONS * 2)]
        assert send(opened.port.address, PATH, BODY, content_type="application/json").status == 200
        with pytest.raises(ConnectionResetError):
            silent[0].recv(1)


def test_who_goes_away_has_given_up(opened: Opened) -> None:
    """What was decided for nobody is not written: the handler sees that its caller has gone."""
    with closing(opened.connect()) as sock:
        sock.sendall(post(body=BODY.replace(b'"u"', b'"wait"')))
        assert opened.handler.waiting.wait(PATIENCE)
    assert opened.handler.gave_up.wait(PATIENCE)


def test_more_calls_than_the_limit_are_refused(opened: Opened) -> None:
    """As over gRPC, in the words of Connect, before anything is done."""
    waits = post(body=BODY.replace(b'"u"', b'"wait"'))
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(closing(opened.connect())).sendall(waits)
        until(lambda: opened.port.calls_in_flight == 2, what="two calls wait")
        refused = send(opened.port.address, PATH, BODY, content_type="application/json")
        assert (refused.status, refused.json["code"]) == (429, "resource_exhausted")
        assert len(opened.refused) == 1
        opened.handler.free.set()
    until(lambda: not opened.port.calls_in_flight, what="both have left")


def test_a_call_in_flight_is_answered_when_the_port_ends(opened: Opened) -> None:
    """Its connection is closed then, and so are those that are silent; nobody new is let in."""
    host, port = opened.address
    with closing(http.client.HTTPConnection(host, port, timeout=PATIENCE)) as asking, closing(opened.connect()) as idle:
        asking.request("POST", PATH, BODY.replace(b'"u"', b'"wait"'), {"content-type": "application/json"})
        assert opened.handler.waiting.wait(PATIENCE)
        opened.port.refuse()
        assert idle.recv(1) == b""
        until(lambda: is_refused(opened), what="nobody is let in")
        opened.handler.free.set()
        answer = asking.getresponse()
        assert (answer.status, answer.getheader("connection")) == (200, "close")
    began = time.monotonic()
    opened.port.wait_until_idle(PATIENCE)
    assert time.monotonic() - began < 5


def is_refused(opened: Opened) -> bool:
    """Whether a new connection is. Not asked so fast that these are too many for the port."""
    time.sleep(0.05)
    try:
        opened.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_worker_that_leaves_closes_each_connection_after_its_answer(opened: Opened) -> None:
    """Else a client that keeps its connection busy would keep its worker for ever."""
    host, port = opened.address
    with closing(http.client.HTTPConnection(host, port, timeout=PATIENCE)) as asking:
        for leaving in (False, True):
            if leaving:
                opened.port.leave(patient_until=time.monotonic() + PATIENCE)
                until(lambda: is_refused(opened), what="nobody is let in")
            asking.request("POST", PATH, BODY, {"content-type": "application/json"})
            answer = asking.getresponse()
            answer.read()
            assert (answer.getheader("connection") == "close") == leaving


def test_who_has_connected_before_a_worker_leaves_is_answered(opened: Opened) -> None:
    """Though it has not had the time to take them in."""
    assert answers(opened, post(), most=1) == [200]
    (server,) = opened.port._server.servers
    server.get_loop().call_soon_threadsafe(time.sleep, 0.3)
    with ExitStack() as stack:
        callers = [stack.enter_context(closing(opened.connect())) for _ in range(20)]
        for one in callers:
            one.sendall(post())
        opened.port.leave(patient_until=time.monotonic() + PATIENCE)
        until(lambda: is_refused(opened), what="nobody is let in")
        assert {one.recv(65_536)[:12] for one in callers} <= {b"HTTP/1.1 200", b"HTTP/1.1 429"}


def test_large_requests_that_are_not_whole_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs what has come of it, for as long as its caller may take to send the rest."""
    monkeypatch.setattr("decider.server.web.port.MOST_LARGE_OF_ONE", 2)
    with closing(Opened(max_request_bytes=1_000_000)) as opened, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(closing(opened.connect())).sendall(post(body=b" " * 500_000)[:-1])
        until(lambda: answers(opened, post(body=b" " * 500_000)[:-1], most=1) == [429], what="a third one is refused")
        assert send(opened.port.address, PATH, BODY, content_type="application/json").status == 200


def test_a_reply_that_is_not_read_counts_as_its_call(opened: Opened) -> None:
    """It stays in memory."""
    with closing(socket.socket()) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.connect(opened.address)
        sock.sendall(post(body=BODY.replace(b'"u"', b'"large"')))
        sock.recv(1)
        time.sleep(0.1)
        assert opened.port.calls_in_flight == 1
        while sock.recv(1_000_000):
            if not opened.port.calls_in_flight:
                break
