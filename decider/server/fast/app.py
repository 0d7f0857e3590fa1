"""The application of a gRPC port under an ASGI server that speaks HTTP/2 (h2corn): takes calls and streams in, as
`intake.py` does under grpcio. Called by `port.py`.

Everything here runs in one event loop, which a server of its own feeds; the work of calls runs in the threads that
share commits. h2corn cancels a call's task where its caller goes away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from google.rpc import code_pb2, status_pb2

from decider.errors import DeciderError, LimitReached, NotAnsweredHere
from decider.log.protocol import Caller
from decider.server.access import Access
from decider.server.arrivals import MOST_SLOW, Arrivals
from decider.server.fast.calls import Returns
from decider.server.fast.messages import (
    HEAD,
    Headers,
    Messages,
    Receive,
    Send,
    deadline_of,
    is_grpc,
    send_reply,
    send_status,
)
from decider.server.fast.names import certificate_of
from decider.server.fast.streams import FastStream
from decider.server.intake import Run, Streaming
from decider.server.limits import Limit
from decider.server.methods import Method
from decider.server.roles import ALL, Rights, Role
from decider.server.rpc import Refused, to_status, unexpected
from decider.server.web.frames import only_message
from decider.server.web.streams import STOPS

_UNKNOWN = status_pb2.Status(code=code_pb2.UNIMPLEMENTED, message="Method not found!")
"""The words of grpcio's server."""

_NO_GRPC = b"this port speaks gRPC: application/grpc over HTTP/2\n"


@dataclass(frozen=True, slots=True)
class Unary:
    """run: gives its calls to their threads."""

    method: Method
    run: Run


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another listener answers it. refused: is told so."""

    error: NotAnsweredHere
    refused: Callable[[DeciderError], object]


Known = Unary | Streaming | Elsewhere


class _Arriving:
    """A call whose request is not there yet. refuse: from any thread."""

    __slots__ = ("_loop", "_task", "check", "error")

    def __init__(self, check: Callable[[], object]) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self.check = check
        self.error: DeciderError | None = None

    def refuse(self, error: DeciderError) -> None:
        """With this error, unless its request has come meanwhile."""
        self._loop.call_soon_threadsafe(self._refuse, error)

    def _refuse(self, error: DeciderError) -> None:
        assert self._task is not None
        self.error = error
        self._task.cancel()


class FastApp:
    """known: by path. calls, streams, checks, most_arriving, access: as of Intake. most_bytes: of a request."""

    def __init__(
        self,
        known: Mapping[str, Known],
        *,
        calls: Limit,
        streams: Limit,
        checks: Limit,
        most_arriving: int,
        access: Access | None,
        most_bytes: int,
    ) -> None:
        self._known, self._access, self._most_bytes = known, access, most_bytes
        self._calls, self._streams, self._checks = calls, streams, checks
        self._arriving: Arrivals[_Arriving, _Arriving] = Arrivals(most_of_one=most_arriving)
        self._open_streams: set[FastStream] = set()
        self._returns: Returns | None = None

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        one = self._known.get(scope["path"])
        try:
            if not is_grpc(headers) or scope["method"] != "POST":
                await _refuse_http(send)
            elif isinstance(one, Unary):
                await self._call(one, scope, headers, receive, send)
            elif isinstance(one, Streaming):
                await self._stream(one, scope, headers, receive, send)
            elif isinstance(one, Elsewhere):
                one.refused(one.error)
                await send_status(send, to_status(one.error))
            else:
                await send_status(send, _UNKNOWN)
        except OSError:
            pass  # h2corn's word for a caller that has left

    async def _call(self, one: Unary, scope: Any, headers: Headers, receive: Receive, send: Send) -> None:
        method, loop = one.method, asyncio.get_running_loop()
        future: asyncio.Future[bytes] = loop.create_future()
        try:
            name, rights = self._identify(scope, headers, method.role)
            caller = Caller(deadline_of(headers), lambda: not future.cancelled())
            body = await self._request(name, receive, partial(self._identify, scope, headers, method.role))
            self._calls.enter(name)
        except DeciderError as error:
            method.refused(error)
            await send_status(send, to_status(error))
            return
        leave = partial(self._calls.leave, name)
        work = self._work(method, body, headers, caller, rights)
        if self._returns is None:
            self._returns = Returns(loop)
        self._returns.start(future, work, one.run, leave)
        try:
            await _answer(future, send)
        finally:
            if not future.cancelled():  # else its work still runs, and leaves when it ends
                leave()

    def _work(
        self, method: Method, body: bytes, headers: Headers, caller: Caller, rights: Rights
    ) -> Callable[[], bytes]:
        parse: Callable[[bytes], Any] = method.request.FromString
        if len(body) >= HEAD and not body[0] and int.from_bytes(body[1:HEAD]) == len(body) - HEAD:
            content = body[HEAD:]
        else:
            content, parse = body, partial(_parse, parse, headers.get(b"grpc-encoding", b""), self._most_bytes)

        def work() -> bytes:
            reply: bytes = method.answer(content, parse, caller, rights).SerializeToString()
            return reply

        return work

    async def _request(self, name: str, receive: Receive, check: Callable[[], object]) -> bytes:
        """All that its caller sends. Raises DeciderError."""
        arriving = _Arriving(check)
        leaves = self._arriving.add(name, arriving, arriving)
        if leaves is not None:
            self._turn_away(*leaves, LimitReached("the request did not come, and many other calls wait"))
        try:
            return await Messages(receive, self._most_bytes).only()
        except asyncio.CancelledError:
            if arriving.error is None:
                raise
            raise arriving.error from None
        finally:
            self._arriving.take(name, arriving)

    def _turn_away(self, name: str, call: _Arriving, error: DeciderError) -> None:
        held = self._arriving.take(name, call)
        if held is not None:
            held.refuse(error)

    async def _stream(self, one: Streaming, scope: Any, headers: Headers, receive: Receive, send: Send) -> None:
        limit, most = self._checks if one.brief else self._streams, self._most_bytes
        encoding = headers.get(b"grpc-encoding", b"")
        check = partial(self._identify, scope, headers, one.role)
        try:
            name, rights = check()
            limit.enter(name)
        except DeciderError as error:
            await send_status(send, to_status(error))
            return
        stream = FastStream(name, rights, check, Messages(receive, most), encoding, most)
        self._open_streams.add(stream)
        try:
            stream.receive(partial(one.answer, stream))
            await stream.run(send)
        finally:
            self._open_streams.discard(stream)
            limit.leave(name)

    def _identify(self, scope: Any, headers: Headers, role: Role | None) -> tuple[str, Rights]:
        """As Intake's."""
        access = self._access
        if access is None:
            return scope["client"][0], ALL
        sent = headers.get(b"authorization")
        token = None if sent is None else sent.decode("latin-1")
        certificate = certificate_of(scope) if access.asks_certificates else None
        try:
            rights = access.identify(token, certificate)
        except DeciderError:
            if role is not None:
                raise
            return scope["client"][0], ALL
        if role is not None:
            rights.check_role(role)
        return f"token:{rights.name}", rights

    def look(self) -> None:
        """As Intake's. Called by another thread, now and then."""
        for stream in self._open_streams.copy():
            stream.look()
        for name, call, held in self._arriving.all():
            try:
                held.check()
            except DeciderError as error:
                self._turn_away(name, call, error)
        late = LimitReached(f"the request did not come, and {MOST_SLOW} calls of this caller wait longer for theirs")
        for name, call in self._arriving.too_slow():
            self._turn_away(name, call, late)

    def is_idle(self) -> bool:
        """No call runs, or has a reply on its way."""
        return not self._calls.count

    def is_quiet(self) -> bool:
        """Nor does the request of any come."""
        return self.is_idle() and not self._arriving

    def end_streams(self) -> None:
        """The server stops. Called by another thread."""
        for stream in self._open_streams.copy():
            stream.end_with(STOPS)


def _parse(parse: Callable[[bytes], Any], encoding: bytes, most: int, body: bytes) -> Any:
    return parse(only_message(body, encoding, most))


async def _answer(future: asyncio.Future[bytes], send: Send) -> None:
    try:
        content = await future
    except Refused as refused:
        await send_status(send, refused.status)
    except Exception as error:
        await send_status(send, to_status(unexpected(error)))
    else:
        await send_reply(send, content)


async def _refuse_http(send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(_NO_GRPC))]
    await send({"type": "http.response.start", "status": 415, "headers": headers})
    await send({"type": "http.response.body", "body": _NO_GRPC})


def paths(service: str, handlers: Mapping[str, Any]) -> Iterable[tuple[str, Streaming]]:
    """Of the streaming methods of a service, from grpcio's table of its handlers."""
    for name, handler in handlers.items():
        yield f"/{service}/{name}", handler.unary_unary or handler.unary_stream or handler.stream_stream
