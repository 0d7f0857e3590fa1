"""The port for pages and programs that speak HTTP: an event loop in a thread, beside gRPC's. Called by `worker.py`.

Calls end up in the same threads, handlers and limits' words as those of gRPC (`rpc.py`).
"""

from __future__ import annotations

import threading
from asyncio.base_events import Server
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from decider.log.group_commit import CommitExecutor
from decider.server.access import Access
from decider.server.connections import take_all_in
from decider.server.http.connection import Bounds
from decider.server.http.listen import open_socket
from decider.server.http.serving import believe, make_server
from decider.server.limits import Limit, share_of_descriptors
from decider.server.methods import Method, StreamMethod
from decider.server.settings import Settings, join_address, split_address
from decider.server.web.app import WebApp
from decider.server.web.calls import Calls
from decider.server.web.connection import WebConnection
from decider.server.web.files import File, file_routes
from decider.server.web.guard import Guard
from decider.server.web.intake import WebIntake
from decider.server.web.routes import Endpoint, endpoint_routes, rpc_routes
from decider.server.web.streams import Streams

IDLE = 60
"""Seconds that a connection stays open for a next request. Shorter than what clients in servers keep theirs for would
close it in the moment in which they send one."""

LAST_ANSWERS = 0.5
"""Seconds for answers under way where a stop has no time of its own."""

MOST_LARGE, MOST_LARGE_OF_ONE = 128, 32
"""Requests of more than 64 KiB at once, from their first bytes until their replies have left: with 4 MiB each half a
gigabyte."""

MOST_PAGE_STREAMS = 100
"""At once, with one page's key and from one address, which may be an office."""


class WebPort:
    """Listens from the first moment on, answers from `start` to `stop`; `port` is the real one, `most_connections` are
    possible at once. Raises AddressInUse.

    methods, endpoints, files: what there is. calls: runs handlers. access: says who calls. count: see WebApp. refused:
    see Guard. shared: other processes listen there, too.
    """

    def __init__(
        self,
        settings: Settings,
        methods: Iterable[Method | StreamMethod],
        *,
        calls: CommitExecutor,
        access: Access,
        endpoints: Sequence[Endpoint] = (),
        files: Sequence[File] = (),
        count: Callable[[str, bool], object] = lambda *_: None,
        refused: Callable[[str, str], object] = lambda *_: None,
        shared: bool = False,
    ) -> None:
        assert settings.web is not None
        host, port = split_address(settings.web)
        self._socket = open_socket(host, port, shared=shared)
        self.port: int = self._socket.getsockname()[1]
        self.address = join_address(host, self.port)
        self.most_connections = share_of_descriptors(4, most=settings.max_connections)
        limit = Limit("calls", most=settings.max_concurrent_rpcs, most_of_one=settings.max_caller_rpcs)
        open_ = Limit("streams", most=settings.max_streams, most_of_one=settings.max_caller_streams)
        of_pages = Limit("streams of pages", most=settings.max_streams, most_of_one=MOST_PAGE_STREAMS)
        guard = Guard(access, settings.web_origin, refused=refused, behind_proxy=bool(settings.web_proxy))
        self._streams = Streams(open_, of_pages=of_pages)
        self._limit = limit
        large = Limit("large requests", most=MOST_LARGE, most_of_one=MOST_LARGE_OF_ONE)
        intake = WebIntake(guard, Calls(calls, limit), self._streams, large, settings.max_request_bytes)
        routes = {**rpc_routes(methods, intake), **endpoint_routes(endpoints, intake), **file_routes(files)}
        app: Any = believe(settings.web_proxy, WebApp(routes, guard, count))
        self._bounds = Bounds(lambda: self.most_connections, idle=IDLE)
        self._server = make_server(
            app, certificates=access.certificates, bounds=self._bounds, http=WebConnection, lifespan="off"
        )
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="web", daemon=True)

    def start(self) -> None:
        """Take calls."""
        self._thread.start()

    @property
    def calls_in_flight(self) -> int:
        """Now."""
        return self._limit.count

    def leave(self, *, patient_until: float) -> None:
        """Let no new connection come to this process, see take_all_in; those that are there get their answers and are
        closed."""
        for server in getattr(self._server, "servers", ()):
            for one in server.sockets:
                take_all_in(one, self.port, patient_until=patient_until)
            loop = server.get_loop()
            # Two turns: the loop has accepted the last one, and drops it unless it is a connection by then.
            loop.call_soon_threadsafe(loop.call_soon, self._leave, server)

    def _leave(self, server: Server) -> None:
        server.close()
        self._bounds.leaving = True  # not before: whoever is sent away comes back at once

    def refuse(self) -> None:
        """Take no new calls: those in flight get their answers, and then their connections are closed; streams end."""
        self._streams.end_all()
        self._server.should_exit = True

    def wait_until_idle(self, seconds: float) -> None:
        """Wait until every call has its answer, at most so many seconds."""
        if self._thread.ident is not None:
            self._thread.join(max(0.0, seconds))

    def look(self) -> None:
        """End streams whose callers may no longer call."""
        self._streams.look()

    def stop(self) -> None:
        """Let go of the port. May be called again."""
        self.refuse()
        if self._thread.ident is None:
            self._socket.close()
        else:
            self._thread.join(LAST_ANSWERS)
