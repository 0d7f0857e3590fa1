"""A request over the web port and its reply, as everything in this folder passes them on."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

from decider.errors import Cancelled, LimitReached
from decider.log.protocol import Caller
from decider.server.pages import LARGEST

SMALL = 65_536
"""Bytes of a request that uvicorn keeps by itself: of larger ones there may be few at once before they are whole."""

Headers = Sequence[tuple[bytes, bytes]]


PACKING = frozenset({b"content-encoding", b"connect-content-encoding", b"grpc-encoding"})
"""Headers that name a compression."""


class Reply(NamedTuple):
    """status: of HTTP. headers: names in lower case; the length of the body is added. body: whole, or in pieces that
    are sent as they come."""

    status: int
    headers: Headers
    body: bytes | AsyncIterator[bytes] = b""


class Request:
    """What a page or a program asks. headers: by name in lower case, the last of several. rest: of the path, behind a
    prefix that is answered as a whole. protocol: in which it asks, one of few words; empty: that of its route. failed:
    whether it got an error."""

    __slots__ = ("_after", "_receive", "failed", "headers", "method", "path", "protocol", "rest", "scope")

    def __init__(self, scope: Any, receive: Callable[[], Any]) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.rest = ""
        self.protocol = ""
        self.failed = False
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self._receive = receive
        self._after: list[Callable[[], object]] = []

    def after(self, callback: Callable[[], object]) -> None:
        """Called in the loop once the reply has left, or never will."""
        self._after.append(callback)

    async def wait_until_read(self) -> None:
        """Until its caller has read the reply but for a little, as far as the connection knows; then what waited for
        that is called."""
        try:
            if self._after:
                await self.scope["state"]["drain"]()
        finally:
            for callback in self._after:
                callback()

    @property
    def address(self) -> str:
        """Of who has connected, without the port."""
        client = self.scope.get("client")
        return str(client[0]) if client else "unknown"

    @property
    def certificate(self) -> str | None:
        """The name in the caller's certificate, which TLS has verified."""
        found: str | None = self.scope.get("state", {}).get("certificate")
        return found

    @property
    def query(self) -> bytes:
        """Behind the question mark of the address."""
        found: bytes = self.scope.get("query_string", b"")
        return found

    @property
    def is_packed(self) -> bool:
        """Whether its body, or messages in it, may be compressed."""
        return not PACKING.isdisjoint(self.headers)

    async def body(self, most: int, grows: Callable[[], object]) -> bytes:
        """All of it. grows: called where it is large and not whole yet. Raises LimitReached above so many bytes,
        Cancelled where its caller goes before its end, and what `grows` raises."""
        length = self.headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > most:
            raise _too_large(most)
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body"):  # nearly every body comes in one piece
            whole: bytes = message.get("body", b"")
            if len(whole) <= most:
                return whole
        pieces, size, is_large = [], 0, False
        while message["type"] == "http.request":
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > most:
                raise _too_large(most)
            if not message.get("more_body"):
                return b"".join(pieces)
            if size > SMALL and not is_large:
                is_large = True
                grows()
            message = await self._receive()
        raise Cancelled("the caller went away before its request was here")

    def caller(self, seconds: float) -> Caller:
        """Who waits for the answer, for so many seconds."""
        return Caller(time.monotonic() + seconds, self.scope["state"]["is_there"])

    async def wait_until_gone(self) -> None:
        """Until its caller has gone away. After `body`."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _too_large(most: int) -> LimitReached:
    allowed = f"as many as --max-request-bytes allows, and a page's key {LARGEST:,}"
    return LimitReached(f"the body has more than {most:,} bytes, {allowed}")


def header(request: Request, name: bytes) -> str:
    """Its value; empty where there is none."""
    return request.headers.get(name, b"").decode("latin-1")
