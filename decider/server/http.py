"""The HTTP port: /metrics for Prometheus, /healthz (the process lives), /readyz (it takes calls)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from decider.errors import AddressInUse, DeciderError


class Readiness(NamedTuple):
    """Whether calls are taken, and a text for people: warnings, or why not."""

    ready: bool
    text: str


Ready = Callable[[], Readiness]


class HttpPort:
    """Serves in a thread of its own until `stop`. `port`: the real one, also where 0 was asked for."""

    def __init__(self, host: str, port: int, *, registry: CollectorRegistry, ready: Ready) -> None:
        handler = type("Handler", (_Handler,), {"registry": registry, "ready": staticmethod(ready)})
        try:
            self._server = ThreadingHTTPServer((host, port), handler)
        except OSError as error:
            raise AddressInUse(f"cannot listen on {host}:{port} for HTTP: {error}") from error
        self._server.daemon_threads = False  # `stop` waits for answers under way: they read the log
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="http", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and let go of the port."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    registry: CollectorRegistry
    ready: Ready
    timeout = 5.0
    """Seconds that a caller may take to send its request."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer_metrics()
        elif path == "/healthz":
            self._answer(200, b"ok\n")
        elif path == "/readyz":
            ready, text = self.ready()
            self._answer(200 if ready else 503, f"{text}\n".encode())
        else:
            self._answer(404, b"there are /metrics, /healthz and /readyz\n")

    def _answer_metrics(self) -> None:
        try:
            metrics = generate_latest(self.registry)
        except DeciderError as error:
            self._answer(500, f"{error}\n".encode())
        else:
            self._answer(200, metrics, CONTENT_TYPE_LATEST)

    def _answer(self, status: int, body: bytes, content_type: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Scrapes are not logged."""
