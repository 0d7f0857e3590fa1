"""The listening socket of HTTP with TLS: how many connections may be in their handshake at once. Called by `port.py`.

asyncio tells nobody of a connection before its handshake is over, and gives it memory: strangers who open connections
and say nothing would fill that, however short the time is that a handshake may take.
"""

from __future__ import annotations

import socket
from asyncio import sslproto
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from decider.server.http.connection import RESET
from decider.server.limits import share_of_descriptors

MOST_HANDSHAKES = 128
"""At once. One more takes the place of the oldest: an honest one lasts some milliseconds."""


sslproto.SSLProtocol.max_size = 16_384
"""Bytes of a buffer that every connection has, as much as a record of TLS. asyncio's own are 256 KiB, and those of
connections that have ended stay until the interpreter collects garbage."""


class HandshakeSocket(socket.socket):
    """Takes the place of `listening`. connected: the descriptors of connections whose handshakes are over."""

    def __init__(self, listening: socket.socket, connected: Callable[[], Collection[int]]) -> None:
        super().__init__(fileno=listening.detach())
        self._connected = connected
        self._accepted: deque[socket.socket] = deque()  # some are connected or closed by now

    def accept(self) -> tuple[socket.socket, Any]:
        """Called by asyncio."""
        accepted, address = super().accept()
        self._accepted.append(accepted)
        if len(self._accepted) > share_of_descriptors(16, most=MOST_HANDSHAKES):
            self._make_room()
        return accepted, address

    def drop_all(self) -> None:
        """End every handshake: asyncio's server waits for them when it closes (from Python 3.12 on)."""
        for one in self._unfinished():
            _drop(one)

    def _make_room(self) -> None:
        self._accepted = self._unfinished()
        if len(self._accepted) > share_of_descriptors(16, most=MOST_HANDSHAKES):
            _drop(self._accepted.popleft())

    def _unfinished(self) -> deque[socket.socket]:
        others = {-1, *self._connected()}  # -1: it is closed
        return deque([one for one in self._accepted if one.fileno() not in others])


def _drop(accepted: socket.socket) -> None:
    """asyncio reads its end then, and closes it."""
    with suppress(OSError):  # its caller was quicker
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        accepted.shutdown(socket.SHUT_RDWR)
