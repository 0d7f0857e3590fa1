"""One connection to the web port. Called by uvicorn for every connection of `port.py`.

Bounded as those of the page are, over a parser in C: that saves a third of what a call costs (DECISIONS.md).
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from decider.server.http.connection import LARGEST_HEAD, Bounded

MOST_AHEAD = 8
"""Requests that a connection may send before the answer to the one before them is there."""


class WebConnection(Bounded, HttpToolsProtocol):  # type: ignore[misc]
    """See above. Whoever closes its half of it has gone: browsers and clients do so when they give up a call."""

    _in_head = False
    _head_bytes = 0
    """That have come of a head which is not whole."""

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        self.stop_watching()

    def on_headers_complete(self) -> None:
        """Its head is here. Raises ValueError, which is answered with 400."""
        self._in_head = False
        if sum([len(name) + len(value) for name, value in self.headers]) + len(self.url) > LARGEST_HEAD:
            raise ValueError("the head is too large")
        if len(self.pipeline) >= MOST_AHEAD:
            raise ValueError("too many requests before an answer")
        super().on_headers_complete()
        self.headers = []  # fields behind a body are no headers
        if self.bounds.leaving:
            self.cycle.keep_alive = False

    def data_received(self, data: bytes) -> None:
        """Something arrived."""
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
        if self._head_bytes > LARGEST_HEAD or (self.headers and not self._in_head):
            self.send_400_response("The head is too large, or there are fields behind the body.")
        else:
            self.watch()

    def eof_received(self) -> None:
        """Its caller has gone: asyncio closes it."""
