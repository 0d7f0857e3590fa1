"""One HTTP connection, and what a caller may cost. Called by uvicorn for every connection of `port.py`; that of
`web/connection.py` is bounded by the same class, over another parser.

uvicorn bounds how long a connection may be idle after an answer. It does not bound how long a request may take to
arrive, how long an answer may take to be read, or how many connections there are: this does.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from decider.server.certificates import certificate_name

if TYPE_CHECKING:
    _Base = H11Protocol  # what is used of it, other parsers of uvicorn have as well
else:
    _Base = object

PATIENCE = 10.0
"""Seconds that a caller may take to send a whole request, or to read a whole answer."""

LAST_BYTES = 0.2
"""Of these, where the server stops."""

MOST_CONNECTIONS = 256
"""At once. One more takes the place of the one whose caller has kept us waiting longest."""

AT_ONCE = 1
"""Connections that are accepted before what earlier ones have sent is read, so that nobody is dropped before. With
more, asyncio would try again for each of them where no descriptor is free, each time as often: soon all the time."""

LARGEST_HEAD = 16_384
"""Bytes of a request's first line and headers."""

RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: what was not read is not kept for minutes, with nobody left to send it."""

SAY_AGAIN = 60.0
"""Seconds until the same complaint about callers is logged again."""


class Bounds:
    """Of the connections of one port. most: at once, by the files that the process may open. idle: seconds that one may
    be open without a next request; None: as many as a request may take. leaving: whether each is to be closed after its
    answer."""

    def __init__(self, most: Callable[[], int], *, idle: int | None = None) -> None:
        self.most, self.idle = most, idle
        self.leaving = False
        self.owing: dict[Bounded, None] = {}  # whose caller has kept us waiting longest comes first

    def drop_one(self) -> None:
        """Make room for another one."""
        for first in self.owing:
            first.drop()
            return


class Bounded(_Base):
    """Over a connection of uvicorn's. A caller *owes* while we wait for the rest of its request, or for it to read our
    answer. Nothing that arrives begins that time anew, so a byte now and then does not help."""

    bounds: Bounds
    """Of its port; `serving.py` makes a class for each port."""

    _over: asyncio.TimerHandle | None = None
    """Runs while the caller owes."""

    _patience = PATIENCE

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """One more connection."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        # A session of TLS 1.2 that is taken up again: whether its certificate still holds was not looked at.
        name = None if tls is not None and tls.session_reused else certificate_name(tls and tls.getpeercert())
        # uvicorn gives it to each request as `state`
        self.app_state = {**self.app_state, "certificate": name, "is_there": self.is_there, "drain": self.flow.drain}
        self.watch()
        if len(self.connections) > self.bounds.most():
            self.bounds.drop_one()

    def is_there(self) -> bool:
        """Whether the caller has not gone; any thread may ask."""
        return not self.transport.is_closing()

    @property
    def descriptor(self) -> int:
        """Of its socket; -1 once it is closed."""
        sock = self.transport.get_extra_info("socket")
        return -1 if sock is None else int(sock.fileno())

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        super().connection_lost(exc)
        self.stop_watching()

    def _unsupported_upgrade_warning(self) -> None:
        """Anybody can ask for WebSockets; uvicorn would advise the operator to install some."""

    def send_400_response(self, msg: str) -> None:
        """What arrived is no HTTP."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # its answer has no place any more
            self.cycle.message_event.set()
        super().send_400_response(msg)

    def on_response_complete(self) -> None:
        """All of an answer is written, though perhaps not read."""
        super().on_response_complete()
        self.watch()

    def pause_writing(self) -> None:
        """The caller does not read as fast as we write."""
        super().pause_writing()
        self.watch()

    def resume_writing(self) -> None:
        """It has read."""
        super().resume_writing()
        self.watch()

    def shutdown(self) -> None:
        """The server stops: answers under way get finished, nobody who owes is waited for."""
        self._patience = LAST_BYTES
        if self.owes():
            self.stop_watching()
            self.transport.close()  # after what is still to be read
            self.watch()
        else:
            self.cycle.keep_alive = False

    def owes(self) -> bool:
        """See above."""
        return self.cycle is None or self.cycle.response_complete or self.cycle.more_body or self.flow.write_paused

    def watch(self) -> None:
        """Something may have changed that its caller owes."""
        if not self.owes():
            self.stop_watching()
        elif self not in self.bounds.owing and self in self.connections:
            self.bounds.owing[self] = None
            if self.bounds.idle is None or not self.is_idle():
                self._over = self.loop.call_later(self._patience, self.drop)

    def is_idle(self) -> bool:
        """Whether nothing but a next request is missing: uvicorn bounds how long that may take."""
        return self.cycle is not None and self.cycle.response_complete and not self.flow.write_paused

    def stop_watching(self) -> None:
        """Its caller owes nothing."""
        self.bounds.owing.pop(self, None)
        if self._over is not None:
            self._over.cancel()
            self._over = None

    def drop(self) -> None:
        """End it at once."""
        self.stop_watching()
        self.connections.discard(self)
        if self.descriptor != -1:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.abort()


class Connection(Bounded, H11Protocol):
    """Of the page and of /metrics."""

    def handle_events(self) -> None:
        """Something arrived, or can be looked at now."""
        try:
            super().handle_events()
        except h11.LocalProtocolError:  # what arrived is no HTTP, and an answer has begun: nothing more can be said
            self.drop()
        else:
            self.watch()

    def eof_received(self) -> bool:  # type: ignore[override]
        """A caller that has closed its half, as `nc -N` does, still gets its answer."""
        if self.owes():
            return False
        self.cycle.keep_alive = False
        return True


class SayOnce(logging.Filter):
    """Anybody can send what is no HTTP, as often as they like: each such warning is logged once a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log it. The texts are uvicorn's, so they are few."""
        return record.levelno != logging.WARNING or self.is_due(str(record.msg))

    def is_due(self, text: str) -> bool:
        """Whether to say this; then it is not due for a minute."""
        now = time.monotonic()
        if now - self._said.get(text, -SAY_AGAIN) < SAY_AGAIN:
            return False
        self._said = {said: at for said, at in self._said.items() if now - at < SAY_AGAIN} | {text: now}
        return True


logging.getLogger("uvicorn.error").addFilter(SayOnce())
