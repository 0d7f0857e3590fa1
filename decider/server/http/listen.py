"""The socket of the HTTP port: given by a service manager, or opened here. Called by `server/command.py` before it
imports what takes long, so that callers in the first moments of a start wait, and are not refused.

A service manager (systemd, or any that knows its protocol) keeps a socket open over restarts: then nobody is ever
refused, and a deploy is no gap for a scraper. See sd_listen_fds(3).
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from typing import NamedTuple

from decider.errors import AddressInUse
from decider.server.settings import join_address, split_address

BACKLOG = 1024
"""Connections that wait to be accepted; the system lets more callers wait for a second and try again."""

FIRST_GIVEN = 3
"""Descriptor of the first socket that a service manager gives."""


class Listening(NamedTuple):
    """address: where, as people write it."""

    socket: socket.socket
    address: str


def listen(address: str, environment: MutableMapping[str, str] = os.environ) -> Listening:
    """The socket that was given to this process, or else a new one at this address. Raises AddressInUse.

    >>> opened, where = listen("127.0.0.1:0")
    >>> with opened:
    ...     where == f"127.0.0.1:{opened.getsockname()[1]}"
    True
    """
    if count := _count_given(environment):
        given = _given(count)
        return Listening(given, join_address(*given.getsockname()[:2]))
    host, port = split_address(address)
    opened = open_socket(host, port)
    return Listening(opened, join_address(host, opened.getsockname()[1]))


def _count_given(environment: MutableMapping[str, str]) -> int:
    # Taken out: they are meant for this process alone, not for those that it starts.
    pid, count, _ = (environment.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    return int(count) if pid == str(os.getpid()) and count.isascii() and count.isdigit() else 0


def _given(count: int) -> socket.socket:
    try:
        found = socket.socket(fileno=FIRST_GIVEN)
    except OSError as error:
        raise AddressInUse(f"the socket that the service manager gives cannot be used: {error}") from error
    listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if count != 1 or found.family not in (socket.AF_INET, socket.AF_INET6) or not listens:
        found.close()
        raise AddressInUse(
            "the service manager gives other sockets than one for HTTP: declare a single ListenStream=HOST:PORT (the "
            "port of gRPC cannot be given)"
        )
    found.set_inheritable(False)
    _send_at_once(found)
    return found


def _send_at_once(listening: socket.socket) -> None:
    """What is accepted inherits it. Head and body of an answer are written apart: on a connection that has had another
    one, the body would wait 40 ms for the caller's acknowledgement. asyncio asks for it only where the socket names its
    protocol."""
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def open_socket(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket of IPv4 or IPv6; of both for `::`, as gRPC's. A name that has addresses of both is its IPv4 one. shared:
    other processes listen there, too. Raises AddressInUse."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        opened = socket.create_server(
            address,
            family=family,
            backlog=BACKLOG,
            reuse_port=shared,
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
        _send_at_once(opened)
        return opened
    except (OSError, UnicodeError) as error:
        reason = str(error).partition(" (while")[0]
        raise AddressInUse(f"cannot listen on {join_address(host, port)} for HTTP: {reason}") from error
