"""Streams of replies over HTTP: what a method sends is sent on as it comes, as long as its caller reads. Called by
`frames.py`.

A stream takes no thread: a method gets a `Stream` and says through it what it has to say, from whatever thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import NamedTuple

import grpc
from google.rpc import code_pb2, status_pb2

from decider.errors import DeadlineExceeded, DeciderError
from decider.server.limits import Limit
from decider.server.pages import PageRights
from decider.server.roles import Rights
from decider.server.rpc import to_status
from decider.server.web.exchange import Request

_OK = status_pb2.Status()

STOPS = status_pb2.Status(code=code_pb2.UNAVAILABLE, message="the server stops; connect anew")


class _Message(NamedTuple):
    content: bytes
    then: Callable[[], object]


class WebStream:
    """See `methods.Stream`; made in the loop. caller: its name, for the limits."""

    def __init__(self, caller: str, rights: Rights, check: Callable[[], object]) -> None:
        self.caller, self.rights, self._check = caller, rights, check
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[_Message | status_pb2.Status] = asyncio.Queue()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], object]] | None = []

    def send(self, message: bytes, then: Callable[[], object]) -> None:
        """See Stream."""
        self._put(_Message(message, then))

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK, details: str = "") -> None:
        """See Stream."""
        self.end_with(status_pb2.Status(code=code.value[0], message=details))

    def end_with(self, status: status_pb2.Status) -> None:
        """With this status; where it has ended, nothing happens."""
        self._put(status)

    def _put(self, item: _Message | status_pb2.Status) -> None:
        with suppress(RuntimeError):  # the loop has ended, and every stream with it
            self._loop.call_soon_threadsafe(self._queue.put_nowait, item)

    def end_after(self, seconds: float) -> None:
        """Its caller waits no longer than this."""
        late = DeadlineExceeded("the deadline passed before the stream's end")
        self.on_end(self._loop.call_later(seconds, self._queue.put_nowait, to_status(late)).cancel)

    def on_end(self, callback: Callable[[], object]) -> None:
        """See Stream."""
        with self._lock:
            if self._callbacks is not None:
                self._callbacks.append(callback)
                return
        callback()

    def look(self) -> None:
        """End it where its caller may no longer call."""
        try:
            self._check()
        except DeciderError as error:
            self.end_with(to_status(error))

    async def pieces(
        self, request: Request, frame: Callable[[bytes], bytes], last: Callable[[status_pb2.Status], bytes]
    ) -> AsyncGenerator[bytes, None]:
        """What is sent, piece by piece. frame: of a message. last: of the end."""
        watch = asyncio.create_task(self._end_without(request))
        try:
            while isinstance(item := await self._queue.get(), _Message):
                yield frame(item.content)
                item.then()
            yield last(item)
        finally:
            watch.cancel()
            self._tell_end()

    async def _end_without(self, request: Request) -> None:
        await request.wait_until_gone()
        self._queue.put_nowait(_OK)

    def _tell_end(self) -> None:
        with self._lock:
            callbacks, self._callbacks = self._callbacks or [], None
        for callback in callbacks:
            callback()


class Streams:
    """All that are open. limit: of them. of_pages: of those with a page's key, which everybody has: beside them there
    is always room for others."""

    def __init__(self, limit: Limit, *, of_pages: Limit) -> None:
        self._limit, self._of_pages = limit, of_pages
        self._open: set[WebStream] = set()

    def open(self, caller: str, rights: Rights, check: Callable[[], object]) -> WebStream:
        """A new one. check: raises where its caller may no longer call. Raises LimitReached."""
        limit = self._of_pages if isinstance(rights, PageRights) else self._limit
        limit.enter(caller)
        stream = WebStream(caller, rights, check)
        self._open.add(stream)
        stream.on_end(lambda: self._forget(stream, limit))
        return stream

    def _forget(self, stream: WebStream, limit: Limit) -> None:
        self._open.discard(stream)
        limit.leave(stream.caller)

    def look(self) -> None:
        """End those whose callers may no longer call."""
        for stream in self._open.copy():
            stream.look()

    def end_all(self) -> None:
        """The server stops."""
        for stream in self._open.copy():
            stream.end_with(STOPS)
