"""The shop's own small HTTP server: the page, its style and script, and what the log says. Called by the demo.

It is another origin than the decision service, as a real shop's server is: the page calls that one from the browser.
Nothing can be changed here.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from decider.errors import DeciderError
from decider.log.open import open_reader
from simulator.drive.shop.crowd import Crowd
from simulator.drive.shop.shares import shares

PAGE = Path(__file__).parent / "page"
FILES = {
    "/shop": ("shop.html", "text/html; charset=utf-8"),
    "/shop/shop.css": ("shop.css", "text/css; charset=utf-8"),
    "/shop/shop.js": ("shop.js", "text/javascript; charset=utf-8"),
    "/shop/panel.js": ("panel.js", "text/javascript; charset=utf-8"),
}
STATE = "/shop/state"
AS_OF = 0.8
"""Seconds for which what was read from the log is given to all who ask."""


class ShopFailed(DeciderError):
    """The shop's port cannot be listened on."""

    reason = "SHOP_FAILED"


@dataclass
class Shop:
    """web, page: addresses of the decision service for browsers and of its page for people. db: its log."""

    web: str
    page: str
    db: Path
    crowd: Crowd
    _read: tuple[float, bytes] = (-AS_OF, b"")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def file(self, path: str) -> tuple[bytes, str] | None:
        """Content and type of what the page consists of."""
        if path not in FILES:
            return None
        name, kind = FILES[path]
        text = (PAGE / name).read_text(encoding="utf-8")
        if name.endswith(".html"):
            text = text.replace("{{web}}", escape(self.web)).replace("{{page}}", escape(self.page))
        return text.encode(), kind

    def state(self) -> bytes:
        """JSON of what the log says; whoever asks looks at the shop."""
        self.crowd.look()
        with self._lock:
            if time.monotonic() - self._read[0] >= AS_OF:
                with closing(open_reader(self.db)) as log:
                    self._read = time.monotonic(), json.dumps(shares(log)).encode()
            return self._read[1]

    @property
    def headers(self) -> Mapping[str, str]:
        """Of every answer: nothing is loaded but from here and from the decision service."""
        own, theirs = "'self'", self.web
        policy = {
            "default-src": "'none'", "script-src": f"{own} {theirs}", "connect-src": f"{own} {theirs}",
            "style-src": own, "img-src": "data:", "base-uri": "'none'", "form-action": "'none'",
        }  # fmt: skip
        return {
            "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }


class _Handler(BaseHTTPRequestHandler):
    """GET alone. The server has the shop."""

    timeout = 30

    def do_GET(self) -> None:
        """The page's files and its state."""
        shop: Shop = self.server.shop  # type: ignore[attr-defined]
        path = urlsplit(self.path).path
        if path == "/":
            self._send(HTTPStatus.FOUND, b"", "text/plain", {"Location": "/shop"})
        elif path == STATE:
            self._send(HTTPStatus.OK, shop.state(), "application/json")
        elif found := shop.file(path):
            self._send(HTTPStatus.OK, *found)
        else:
            self._send(HTTPStatus.NOT_FOUND, b"not found: the shop is at /shop\n", "text/plain; charset=utf-8")

    def _send(self, status: HTTPStatus, body: bytes, kind: str, more: Mapping[str, str] | None = None) -> None:
        shop: Shop = self.server.shop  # type: ignore[attr-defined]
        self.send_response(status)
        for name, value in {**shop.headers, **(more or {}), "Content-Type": kind}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Nothing: the demo's output is for people."""


class ShopPort:
    """Its socket, open from the beginning, so that its address is known before the decision service starts."""

    def __init__(self, listen: str) -> None:
        """listen: HOST:PORT, port 0 for a free one. Raises ShopFailed."""
        host, _, port = listen.rpartition(":")
        try:
            self._server = ThreadingHTTPServer((host, int(port)), _Handler)
        except (OSError, ValueError) as error:
            raise ShopFailed(f"--shop {listen}: cannot listen there ({error}); name another HOST:PORT") from error
        self._server.daemon_threads = True
        self.host, self.port = host, self._server.server_address[1]

    @property
    def address(self) -> str:
        """For people."""
        return f"http://{self.host}:{self.port}/shop"

    @property
    def origins(self) -> tuple[str, ...]:
        """That the page has, as browsers say it: a person may type the host's other name."""
        names = (self.host, "localhost") if self.host == "127.0.0.1" else (self.host,)
        return tuple(f"http://{name}:{self.port}" for name in names)

    @contextmanager
    def serving(self, shop: Shop) -> Iterator[None]:
        """Answers, until the block ends; then the crowd goes, too."""
        self._server.shop = shop  # type: ignore[attr-defined]
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            shop.crowd.end()
            self._server.shutdown()
            thread.join()

    def close(self) -> None:
        """Of a shop that has served, or that never did."""
        self._server.server_close()
