"""The application of the web port (ASGI): an exact path or a prefix of it says what answers. Called by `port.py`."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.rpc import code_pb2, error_details_pb2, status_pb2

from decider.server.rpc import Refused, to_status
from decider.server.web.connect import ConnectUnary
from decider.server.web.exchange import Headers, Reply, Request
from decider.server.web.guard import Guard

logger = logging.getLogger(__name__)

Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    """What answers at a path. methods: of HTTP. answer: may raise DeciderError or Refused; fail: says that in the words
    of its protocol. public: every page may read it, whoever's it is. protocol: for the metrics."""

    methods: Sequence[str]
    answer: Callable[[Request], Awaitable[Reply]]
    fail: Callable[[status_pb2.Status], Reply] = ConnectUnary.fail
    public: bool = False
    protocol: str = "http"


class WebApp:
    """routes: by path; one that ends with a slash answers all that is behind it, up to the next slash. count: is told
    of each request its protocol, and whether it failed."""

    def __init__(
        self, routes: Mapping[str, Route], guard: Guard, count: Callable[[str, bool], object] = lambda *_: None
    ) -> None:
        self._routes, self._guard, self._count = routes, guard, count
        self._nothing = Route(EVERY_METHOD, self._say_paths, protocol="none")

    async def __call__(self, scope: dict[str, Any], receive: Callable[[], Any], send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        route = self._route(request)
        allowed: Headers = ()
        try:
            allowed = (PUBLIC,) if route.public else self._guard.check_origin(request)
            reply = await self._reply(route, request)
        except Exception as error:
            reply = told(error, route.fail)
        self._count(request.protocol or route.protocol, request.failed or reply.status >= LEAST_ERROR)
        try:
            await _send(reply, allowed, send)
        finally:
            await request.wait_until_read()

    def _route(self, request: Request) -> Route:
        path = request.path
        if (route := self._routes.get(path)) is not None:
            return route
        prefix, slash, request.rest = path.rpartition("/")
        return self._routes.get(prefix + slash, self._nothing) if request.rest else self._nothing

    async def _reply(self, route: Route, request: Request) -> Reply:
        if request.method in route.methods:
            return await route.answer(request)
        methods = ", ".join(route.methods).encode()
        if request.method == "OPTIONS":
            request.protocol = "preflight"
            return Reply(204, self._guard.preflight(methods))
        return Reply(405, [(b"allow", methods), TEXT], b"this takes " + methods + b"\n")

    async def _say_paths(self, _: Request) -> Reply:
        """A call that there is not is `unimplemented` in Connect's words; `not_found` is what a call did not find."""
        text = f"there are {', '.join(self._routes)}"
        return ConnectUnary.fail(status_pb2.Status(code=code_pb2.UNIMPLEMENTED, message=text))._replace(status=404)


EVERY_METHOD = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")

LEAST_ERROR = 400
"""Of HTTP's statuses."""

PUBLIC = (b"access-control-allow-origin", b"*")

TEXT = (b"content-type", b"text/plain; charset=utf-8")


def told(error: Exception, fail: Callable[[status_pb2.Status], Reply]) -> Reply:
    """The reply that tells of it; of an error that nobody raises on purpose, nothing but that it is in the server's
    log."""
    status = error.status if isinstance(error, Refused) else to_status(error)
    reply, info = fail(status), error_details_pb2.RetryInfo()
    if any(one.Unpack(info) for one in status.details):
        seconds = math.ceil(info.retry_delay.ToTimedelta().total_seconds())
        return reply._replace(headers=[*reply.headers, (b"retry-after", b"%d" % seconds)])
    return reply


async def _send(reply: Reply, allowed: Headers, send: Send) -> None:
    body, headers = reply.body, [*reply.headers, *allowed]
    whole = isinstance(body, bytes)
    if whole and reply.status != 204:
        headers.append((b"content-length", b"%d" % len(body)))  # type: ignore[arg-type]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    if whole:
        await send({"type": "http.response.body", "body": body})
    else:
        await _send_pieces(body, send)  # type: ignore[arg-type]


async def _send_pieces(pieces: AsyncIterator[bytes], send: Send) -> None:
    async for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
