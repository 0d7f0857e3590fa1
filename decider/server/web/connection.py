"""One connection to the web port. Called by uvicorn for every connection of `port.py`.

Bounded as those of the page are, over a parser in C: that saves a third of what a call costs (DECISIONS.md).
"""

from __future__ import annotations

import asyncio

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from decider.server.http.connection import LARGEST_HEAD, Bounded

AT_ONE_TIME = 65_536
"""Bytes that are read at once, instead of asyncio's 262,144: requests behind one that is not answered stay in memory
until it is, and behind a stream that is hours."""

MOST_AHEAD = 8
"""Requests that a connection may send before the answer to the one before them is there."""


class WebConnection(Bounded, HttpToolsProtocol):  # type: ignore[misc]
    """See above. Whoever closes its half of it has gone: browsers and clients do so when they give up a call."""

    _in_head = False
    _head_bytes = 0
    """That have come of a head which is not whole."""

    _head_again = b""
    """Of a request that wants another protocol: it is parsed anew without that wish."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See Bounded."""
        transport.max_size = AT_ONE_TIME  # type: ignore[attr-defined]
        super().connection_made(transport)

    def is_idle(self) -> bool:
        """See Bounded."""
        return super().is_idle() and not self._in_head

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
        if self.parser.should_upgrade():
            self._head_again = self._without_upgrade()
            return
        super().on_headers_complete()
        self.headers = []  # fields behind a body are no headers
        if self.bounds.leaving:
            self.cycle.keep_alive = False

    def _without_upgrade(self) -> bytes:
        """The same head, of a request that wants no other protocol: a server may ignore that wish. Java's client has
        it in its first request. Raises ValueError."""
        method = self.parser.get_method()
        if method == b"CONNECT":
            raise ValueError("this is no proxy")
        lines = [b"%s: %s" % one for one in self.headers if one[0] != b"upgrade"]
        return b"\r\n".join([b"%s %s HTTP/1.1" % (method, self.url), *lines, b"", b""])

    def on_message_complete(self) -> None:
        """All of a request is here."""
        if not self._head_again:
            super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        """Something arrived."""
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse("Invalid HTTP request received.")
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
        if self._head_bytes > LARGEST_HEAD or (self.headers and not self._in_head):
            self._refuse("The head is too large, or there are fields behind the body.")
        else:
            self.watch()

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as wish:  # the parser takes what follows for the other protocol
                data = self._head_again + data[wish.args[0] :]
                self._head_again = b""
                self.parser = httptools.HttpRequestParser(self)

    def _refuse(self, text: str) -> None:
        self.logger.warning(text)
        self.send_400_response(text)

    def eof_received(self) -> None:
        """Its caller has gone: asyncio closes it."""
