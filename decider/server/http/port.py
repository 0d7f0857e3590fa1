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

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from decider.errors import DeciderError, PermissionDenied
from decider.server.certificates import Certificates
from decider.server.http.listen import open_socket
from decider.server.http.serving import log_failure, make_server

logger = logging.getLogger(__name__)

THREADS = 4
"""For endpoints that block, all together."""

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
        self._server = make_server(_app(routes), certificates=certificates)
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


@asynccontextmanager
async def _limit_loop(_: Starlette) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    asyncio.get_running_loop().set_exception_handler(log_failure)
    yield


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
