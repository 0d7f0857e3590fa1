"""uvicorn's server with our bounds around it: how it listens, shakes hands, and ends. Called by `port.py` and by
`web/port.py`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from decider.server.certificates import Certificates
from decider.server.http.connection import (
    AT_ONCE,
    LARGEST_HEAD,
    MOST_CONNECTIONS,
    PATIENCE,
    Bounded,
    Bounds,
    Connection,
    SayOnce,
)
from decider.server.http.handshakes import HandshakeSocket
from decider.server.http.listen import BACKLOG
from decider.server.limits import share_of_descriptors

logger = logging.getLogger(__name__)

KEEP_ALIVE = 5
"""Seconds that a connection stays open for a next request."""


def make_server(
    app: ASGIApp,
    *,
    certificates: Certificates | None,
    bounds: Bounds | None = None,
    http: type[Bounded] = Connection,
    lifespan: Literal["on", "off"] = "on",
) -> BoundedServer:
    """A server of this application. certificates: it speaks TLS alone. bounds: of its connections, by default the
    page's; http: what one is."""
    bounds = bounds or Bounds(lambda: share_of_descriptors(4, most=MOST_CONNECTIONS))
    return BoundedServer(
        uvicorn.Config(
            refuse_two_lengths(app),
            http=type(http.__name__, (http,), {"bounds": bounds}),
            ws="none",
            loop="asyncio",
            lifespan=lifespan,
            interface="asgi3",
            log_config=None,  # its lines go where the server's go
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=AT_ONCE,
            timeout_keep_alive=KEEP_ALIVE if bounds.idle is None else bounds.idle,
            h11_max_incomplete_event_size=LARGEST_HEAD,
            ssl_context_factory=None if certificates is None else lambda *_: certificates.http,
        )
    )


class BoundedServer(uvicorn.Server):
    """Runs in any thread; uvicorn takes signals in the main one alone."""

    _handshakes: Sequence[HandshakeSocket] = ()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, with a bound on handshakes."""
        if self.config.is_ssl:  # asyncio's own bound is a minute, and uvicorn sets none
            loop = asyncio.get_running_loop()
            loop.create_server = partial(loop.create_server, ssl_handshake_timeout=PATIENCE)  # type: ignore[method-assign]
            self._handshakes = [HandshakeSocket(one, self._connected) for one in sockets or []]
            sockets = [*self._handshakes]
        await super().startup(sockets)
        for one in sockets or []:
            one.listen(BACKLOG)  # for asyncio, `backlog` is also how many it accepts in one go

    def _connected(self) -> set[int]:
        return {one.descriptor for one in self.server_state.connections if isinstance(one, Bounded)}

    async def main_loop(self) -> None:
        """Serve until a stop; then let go of the port before what is under way ends."""
        await super().main_loop()
        for server in self.servers:
            server.close()
        for one in self._handshakes:
            one.drop_all()
        await asyncio.sleep(0.01)  # what was accepted in this moment becomes a connection, which `shutdown` closes


def believe(proxies: Sequence[str], app: Any) -> Any:
    """The same application, called as if by those for whom these proxies call. proxies: addresses and networks; of
    `X-Forwarded-For` the last address counts that is none of them, since anybody can send what stands before it."""
    return ProxyHeadersMiddleware(app, [*proxies]) if proxies else app


def refuse_two_lengths(app: ASGIApp) -> ASGIApp:
    """A request that says its length twice ends elsewhere for a proxy than for us: what is behind it would be somebody
    else's request (RFC 9112, 6.1)."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope.get("headers", ())}:
            text = "Content-Length and Transfer-Encoding: send one of them\n"
            await PlainTextResponse(text, 400, {"Connection": "close"})(scope, receive, send)
        else:
            await app(scope, receive, send)

    return serve


_complaints = SayOnce()


def log_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Without a descriptor for one more connection the loop tries again each second: a line a minute, no traceback."""
    if isinstance(error := context.get("exception"), OSError):
        text = f"HTTP: {context['message']}: {error}"
        if _complaints.is_due(text):
            logger.error("%s", text)
    else:
        loop.default_exception_handler(context)
