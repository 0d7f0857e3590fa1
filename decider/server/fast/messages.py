"""gRPC over HTTP/2 as an ASGI server gives it: requests are read, replies and statuses are sent. Called by `app.py`.

See PROTOCOL-HTTP2.md of grpc/grpc. A status travels in trailers; without a reply before it, in the only header block.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from google.rpc import status_pb2

from decider.errors import Cancelled, LimitReached
from decider.server.web.frames import frame, grpc_headers, parse_timeout

Headers = Mapping[bytes, bytes]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

HEAD = 5
"""Bytes before a message: whether it is packed, and its length."""

KIND = (b"content-type", b"application/grpc")
TAKEN = (b"grpc-accept-encoding", b"identity, deflate, gzip")

START = {"type": "http.response.start", "status": 200, "headers": [KIND], "trailers": True}
OK = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}


def is_grpc(headers: Headers) -> bool:
    """Whether it is a call with messages of protobuf.

    >>> is_grpc({b"content-type": b"application/grpc+proto"}), is_grpc({b"content-type": b"application/grpc-web"})
    (True, False)
    """
    kind = headers.get(b"content-type", b"")
    return kind == KIND[1] or kind.partition(b";")[0].strip().lower() in (KIND[1], b"application/grpc+proto")


def deadline_of(headers: Headers) -> float:
    """Until when its caller waits, on the monotonic clock. Raises InvalidArgument."""
    text = headers.get(b"grpc-timeout")
    return math.inf if text is None else time.monotonic() + parse_timeout(text.decode("latin-1"))


class Messages:
    """Of one call, as they come; each with its head. most: bytes of one."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most = receive, most
        self._rest, self._more = b"", True

    async def only(self) -> bytes:
        """All that is sent, up to its end. Raises LimitReached above one message, Cancelled where the caller goes."""
        content = await self._next_piece()
        while self._more:
            self._check(content)
            piece = await self._next_piece()
            content = content + piece if piece else content
        self._check(content)
        return content

    async def next(self) -> bytes | None:
        """The next one; None where no more come. Raises as `only`."""
        while not self._is_whole(self._rest):
            self._check(self._rest[: self._size()])
            if not self._more:
                return None
            self._rest += await self._next_piece()
        size = self._size()
        whole, self._rest = self._rest[:size], self._rest[size:]
        return whole

    def _size(self) -> int:
        return HEAD + int.from_bytes(self._rest[1:HEAD])

    def _is_whole(self, content: bytes) -> bool:
        return len(content) >= HEAD and len(content) >= self._size()

    def _check(self, content: bytes) -> None:
        if len(content) - HEAD > self._most or int.from_bytes(content[1:HEAD]) > self._most:
            raise LimitReached(f"the request has more than {self._most:,} bytes, as many as --max-request-bytes allows")

    async def _next_piece(self) -> bytes:
        message = await self._receive()
        if message["type"] != "http.request":
            raise Cancelled("the caller went away before its request was here")
        self._more = message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece


async def send_reply(send: Send, content: bytes) -> None:
    """The only reply, and that all is well."""
    await send(START)
    await send({"type": "http.response.body", "body": frame(content)})
    await send(OK)


async def send_status(send: Send, status: status_pb2.Status) -> None:
    """Of a call without a reply."""
    headers = [KIND, TAKEN, *grpc_headers(status)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body"})


async def send_piece(send: Send, content: bytes) -> None:
    """One of several replies."""
    await send({"type": "http.response.body", "body": frame(content), "more_body": True})


async def send_end(send: Send, status: status_pb2.Status) -> None:
    """Behind several replies."""
    await send({"type": "http.response.body"})
    await send({"type": "http.response.trailers", "headers": grpc_headers(status)})
