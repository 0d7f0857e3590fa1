"""The load of HTTP/1.1: every request is sent whole, answered once, and judged by its status and its text."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from simulator.studies.load import play_on
from simulator.studies.load_http1 import Http1Load, answered, request

BODIES: Counter[bytes] = Counter()


class Answering(BaseHTTPRequestHandler):
    """/chunked, /sized, /close, or 404 with a body."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Note the body, and answer."""
        BODIES[self.rfile.read(int(self.headers["Content-Length"]))] += 1
        self.send_response(200 if self.path in ("/chunked", "/sized") else 404)
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nhello\r\n")
            self.wfile.write(b"d\r\ngrpc-status:0\r\n0\r\n\r\n")
            return
        self.send_header("Content-Length", "70000")
        self.end_headers()
        self.wfile.write(b"x" * 70_000)
        self.close_connection = self.path == "/close"

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of the server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join()


def test_every_request_arrives_once_and_is_answered_once(port: int) -> None:
    """More in flight than there are connections: some wait."""
    BODIES.clear()
    calls = [request("/sized", f"body {number}".encode(), "text/plain") for number in range(7)]
    with Http1Load(port, connections=3) as load:
        played = play_on(load, calls, in_flight=5, seconds=0.1)
        assert load.in_flight == 0
    assert played.calls == BODIES.total() > 10
    assert played.statuses == {0: played.calls}
    assert set(BODIES) == {call.data.partition(b"\r\n\r\n")[2] for call in calls}


def test_an_answer_counts_by_its_status_and_by_what_a_good_one_says(port: int) -> None:
    """gRPC-Web tells an error with 200."""
    good = request("/chunked", b"", "text/plain", good=b"grpc-status:0")
    assert answered(port, good).status == 0
    assert answered(port, good._replace(good=b"grpc-status:9")).status == 200
    assert answered(port, request("/nothing", b"", "text/plain")).status == 404


def test_a_server_that_closes_is_an_error(port: int) -> None:
    """Nothing would be measured."""
    with Http1Load(port, connections=1) as load, pytest.raises(ConnectionError, match="closed"):
        play_on(load, [request("/close", b"", "text/plain")], in_flight=1, seconds=5)
