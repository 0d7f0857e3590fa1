"""The HTTP port: a list of routes, served by one event loop in a thread of its own. Called by `server/leading.py`.

An endpoint that blocks is a plain function: Starlette runs it in one of THREADS threads. What many ask at once, and
what must not wait behind the others, takes turns of its own (`turns.py`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio.to_thread
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from decider.errors import DeciderError, PermissionDenied
from decider.server.certificates import Certificates
from decider.server.http.connection import AT_ONCE, LARGEST_HEAD, PATIENCE, Connection, SayOnce
from decider.server.http.handshakes import HandshakeSocket
from decider.server.http.listen import BACKLOG, open_socket

logger = logging.getLogger(__name__)

THREADS = 4
"""For endpoints that block, all together."""

KEEP_ALIVE = 5
"""Seconds that a connection stays open for a next request."""

LARGEST_BODY = 65_536
"""Bytes of a request's body; larger ones get 413."""

LAST_ANSWERS = 1.0
"""Seconds for answers under way where a stop has no time of its own."""


class HttpPort:
    """Listens from the first moment on, answers from `start` to `stop`. `port`: the real one, also where 0 was asked
    for. listening: the socket, where it is open already. certificates: it speaks TLS alone. Raises AddressInUse."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        routes: Sequence[Route],
        listening: socket.socket | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        self._socket = listening or open_socket(host, port)
        self.port: int = self._socket.getsockname()[1]
        self._server = _Server(
            uvicorn.Config(
                _refuse_two_lengths(_app(routes)),
                http=Connection,
                ws="none",
                loop="asyncio",
                lifespan="on",
                interface="asgi3",
                log_config=None,  # its lines go where the server's go
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=AT_ONCE,
                timeout_keep_alive=KEEP_ALIVE,
                h11_max_incomplete_event_size=LARGEST_HEAD,
                ssl_context_factory=None if certificates is None else lambda *_: certificates.http,
            )
        )
        # Outside of the main thread uvicorn takes no signals. A daemon, since an answer may never be ready.
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="http", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self, seconds: float = LAST_ANSWERS) -> bool:
        """Let go of the port and finish what was asked. Returns whether all has ended within so many seconds; if not,
        an endpoint is still at work. May be called again."""
        self._server.should_exit = True
        if self._thread.ident is None:
            self._socket.close()
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()


class _Server(uvicorn.Server):
    _handshakes: Sequence[HandshakeSocket] = ()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self.config.is_ssl:  # asyncio's own bound is a minute, and uvicorn sets none
            loop = asyncio.get_running_loop()
            loop.create_server = partial(loop.create_server, ssl_handshake_timeout=PATIENCE)  # type: ignore[method-assign]
            self._handshakes = [HandshakeSocket(one, self._connected) for one in sockets or []]
            sockets = [*self._handshakes]
        await super().startup(sockets)
        for one in sockets or []:
            one.listen(BACKLOG)  # for asyncio, `backlog` is also how many it accepts in one go

    def _connected(self) -> set[int]:
        return {one.descriptor for one in self.server_state.connections if isinstance(one, Connection)}

    async def main_loop(self) -> None:
        await super().main_loop()
        for server in self.servers:
            server.close()
        for one in self._handshakes:
            one.drop_all()
        await asyncio.sleep(0.01)  # what was accepted in this moment becomes a connection, which `shutdown` closes


def _app(routes: Sequence[Route]) -> Starlette:
    known = dict.fromkeys([route.path.partition("{")[0] for route in routes])
    *others, last = [path for path in known if f"{path}/" not in known]
    paths = f"{', '.join(others)} and {last}" if others else last

    async def say_paths(_: Request, __: Exception) -> Response:
        return PlainTextResponse(f"there are {paths}\n", 404)

    app = Starlette(
        routes=routes,
        lifespan=_limit_loop,
        max_body_size=LARGEST_BODY,
        exception_handlers={
            404: say_paths,
            HTTPException: _refuse,
            PermissionDenied: _deny,
            DeciderError: _fail,
            ClientDisconnect: _give_up,
            Exception: _fail_unexpectedly,
        },
    )
    app.router.redirect_slashes = False  # it would send people to whatever `Host` says
    return app


def _refuse_two_lengths(app: ASGIApp) -> ASGIApp:
    """A request that says its length twice ends elsewhere for a proxy than for us: what is behind it would be somebody
    else's request (RFC 9112, 6.1)."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in scope.get("headers", ())}:
            text = "Content-Length and Transfer-Encoding: send one of them\n"
            await PlainTextResponse(text, 400, {"Connection": "close"})(scope, receive, send)
        else:
            await app(scope, receive, send)

    return serve


@asynccontextmanager
async def _limit_loop(_: Starlette) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    asyncio.get_running_loop().set_exception_handler(_log_failure)
    yield


_complaints = SayOnce()


def _log_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Without a descriptor for one more connection the loop tries again each second: a line a minute, no traceback."""
    if isinstance(error := context.get("exception"), OSError):
        text = f"HTTP: {context['message']}: {error}"
        if _complaints.is_due(text):
            logger.error("%s", text)
    else:
        loop.default_exception_handler(context)


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)


async def _deny(_: Request, error: Exception) -> Response:
    return PlainTextResponse(f"{error}\n", 403)


async def _fail(request: Request, error: Exception) -> Response:
    logger.error("%s: %s", request.url.path, error)
    return PlainTextResponse(f"{error}\n", 500)


async def _give_up(_: Request, __: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it


async def _fail_unexpectedly(_: Request, __: Exception) -> Response:
    return PlainTextResponse("this failed; the server's output says why\n", 500)  # uvicorn logs it, with the traceback
