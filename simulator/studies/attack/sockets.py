"""Connections that are written to by hand, with and without TLS. Called by `web.py`, `wire.py`
and their like."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress

PATIENCE = 5.0
"""Seconds."""

STRANGER = ("127.0.0.66", 0)
"""Their machine, where a port counts by address."""

REFUSED = (OSError, EOFError)
"""How a connection ends that is refused: TLS alerts, resets, nothing within the time."""


def context_of(ca: str, cert: str = "", key: str = "", protocol: str = "http/1.1") -> ssl.SSLContext:
    """A client's side of TLS, which presents a certificate or none."""
    context = ssl.create_default_context(cafile=ca)
    if cert:
        context.load_cert_chain(cert, key)
    context.set_alpn_protocols([protocol])
    return context


def connect(
    address: str, context: ssl.SSLContext | None = None, *, source: tuple[str, int] | None = None
) -> socket.socket:
    """address: HOST:PORT. context: with a handshake of TLS. source: from which address. Raises OSError."""
    host, _, port = address.rpartition(":")
    plain = socket.create_connection((host, int(port)), timeout=PATIENCE, source_address=source)
    if context is None:
        return plain
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


def read_all(connection: socket.socket, most: int) -> bytes:
    """What comes until the other side closes, or `most` bytes have come. Raises OSError where nothing came before."""
    parts, size = [], 0
    try:
        while size < most and (part := connection.recv(65_536)):
            parts.append(part)
            size += len(part)
    except OSError:
        if not parts:
            raise
    return b"".join(parts)


def send(connection: socket.socket, data: bytes) -> None:
    """As far as the other side takes it."""
    with suppress(*REFUSED):
        connection.sendall(data)


def read_some(connection: socket.socket, seconds: float) -> bytes:
    """What is there within the time."""
    connection.settimeout(seconds)
    try:
        return connection.recv(65_536)
    except REFUSED:
        return b""


def close(connection: socket.socket) -> None:
    """Without a word."""
    with suppress(OSError):
        connection.close()
