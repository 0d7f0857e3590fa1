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


_THERE = "_ReadyAwaitable"
"""h2corn's type of what need not be waited for; under another name every call takes the longer way, and nothing else
changes."""


class Messages:
    """Of one call, as they come; each with its head. most: bytes of one."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most = receive, most
        self._content, self._more = bytearray(), True
        self._first: Awaitable[Any] | None = None

    async def at_once(self) -> bytes | None:
        """The first message, without its head, where it is there in one piece and is not packed, as nearly every one.
        Else nothing has happened. Raises Cancelled where the caller has gone."""
        first = self._receive()
        if type(first).__name__ != _THERE:
            self._first = first
            return None
        message = await first
        if message["type"] != "http.request":
            raise _gone()
        piece: bytes = message.get("body", b"")
        size = len(piece) - HEAD
        if size >= 0 and not piece[0] and int.from_bytes(piece[1:HEAD]) == size <= self._most:
            return piece[HEAD:]
        self._content += piece
        self._more = message.get("more_body", False)
        return None

    async def next(self) -> bytes | None:
        """The next one, with its head; None where no more come. Raises LimitReached, and Cancelled where the caller
        goes."""
        while (size := self._size()) is None or len(self._content) < size:
            if not self._more:
                return None
            await self._take_piece()
        whole = bytes(self._content[:size])
        del self._content[:size]
        return whole

    def _size(self) -> int | None:
        """Of the next one with its head; None where that is not there yet."""
        if len(self._content) < HEAD:
            return None
        size = int.from_bytes(self._content[1:HEAD])
        if size > self._most:
            raise LimitReached(f"the request has {size:,} bytes; --max-request-bytes allows {self._most:,}")
        return HEAD + size

    async def _take_piece(self) -> None:
        first, self._first = self._first, None
        message = await (self._receive() if first is None else first)
        if message["type"] != "http.request":
            raise _gone()
        self._more = message.get("more_body", False)
        self._content += message.get("body", b"")


def _gone() -> Cancelled:
    return Cancelled("the caller went away before its request was here")


async def send_reply(send: Send, content: bytes) -> None:
    """The only reply, and that all is well."""
    await send(START)
    await send({"type": "http.response.body", "body": b"\0" + len(content).to_bytes(HEAD - 1) + content})
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
