"""A load of many different gRPC calls that costs so little that it does not compete with the server.

A gRPC client in Python takes as long for a call as our server. Here the frames of HTTP/2 are made before the load and
only get their stream's id; of the answers nothing is read but the heads of frames and the status. It speaks as much
HTTP/2 as grpcio's server needs, no more. Called by `bench.py`, `soak` and `attack`.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from array import array
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM = ACK = 1
END_HEADERS = 4

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FIRST_WINDOW, LARGEST_WINDOW = 65_535, 2**31 - 1
RENEW_WINDOW = 2**30
"""Bytes after which a connection's window for answers is opened again."""

LARGEST_FRAME = 16_384
LARGEST_MESSAGE = 60_000
"""Bytes; more would have to wait for the window of its stream."""

AT_ONCE = 2**20
"""Bytes for one call of the system."""

RESET = -1
"""The status of a call that the server reset."""

WOULD_WAIT = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

Call = TypeVar("Call", contravariant=True)

_HEAD = struct.Struct(">HBBBI")
_OK = b"\x0bgrpc-status\x010"
_STATUS = b"\x0bgrpc-status"


class Frames(NamedTuple):
    """A call: what stands between the stream's ids in its frames. size: bytes of its DATA frames."""

    pieces: tuple[bytes, ...]
    size: int


def _literal(text: str) -> bytes:
    encoded = text.encode()
    assert len(encoded) < 127, "a longer one has a length of several bytes in HPACK"
    return bytes([len(encoded)]) + encoded


def _header_block(method: str, token: str) -> bytes:
    """Literals that leave the server's table alone, so that every call can be the first one of its connection."""
    post, http, authority, path, content_type = b"\x83", b"\x86", b"\x01", b"\x04", b"\x0f\x10"
    names = authority + _literal("localhost") + path + _literal(method) + content_type + _literal("application/grpc")
    sent = b"\x00" + _literal("authorization") + _literal(f"Bearer {token}") if token else b""
    return post + http + names + b"\x00" + _literal("te") + _literal("trailers") + sent


def _frame_head(kind: int, flags: int, size: int) -> bytes:
    """The five bytes before the stream's id."""
    return size.to_bytes(3, "big") + bytes([kind, flags])


def frames(method: str, message: bytes, *, token: str = "") -> Frames:
    """The frames of a unary call. method: "/package.Service/Method". token: sent with it. Raises ValueError for too
    long a message."""
    if len(message) > LARGEST_MESSAGE:
        raise ValueError(f"a message of {len(message):,} bytes; at most {LARGEST_MESSAGE:,} fit into a stream's window")
    body = b"\0" + len(message).to_bytes(4, "big") + message
    parts = [body[at : at + LARGEST_FRAME] for at in range(0, len(body), LARGEST_FRAME)]
    heads = [_frame_head(DATA, END_STREAM if part is parts[-1] else 0, len(part)) for part in parts]
    block = _header_block(method, token)
    before = [_frame_head(HEADERS, END_HEADERS, len(block)), *(b"".join(pair) for pair in _pairs(block, parts, heads))]
    return Frames((*before, parts[-1]), len(body))


def _pairs(block: bytes, parts: Sequence[bytes], heads: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip([block, *parts[:-1]], heads, strict=True)


def control(kind: int, flags: int, payload: bytes, stream: int = 0) -> bytes:
    """A whole frame."""
    return _frame_head(kind, flags, len(payload)) + stream.to_bytes(4, "big") + payload


def opening() -> bytes:
    """What a connection begins with. No table for headers, so that the status stands in every answer as it is; windows
    as large as there are."""
    settings = b"".join(struct.pack(">HI", *pair) for pair in ((1, 0), (2, 0), (4, LARGEST_WINDOW)))
    return PREFACE + control(SETTINGS, 0, settings) + _more_window(LARGEST_WINDOW - FIRST_WINDOW)


def _more_window(size: int) -> bytes:
    return control(WINDOW_UPDATE, 0, size.to_bytes(4, "big"))


class Answer(NamedTuple):
    """tag: what `call` was given. status: gRPC's number, or RESET."""

    tag: Any
    status: int


class _Connection:
    """A connection; nothing in it waits, once it is open."""

    def __init__(self, port: int, tls: ssl.SSLContext | None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self.socket.setblocking(False)
        self.tags: dict[int, Any] = {}
        self._stream = 1
        self._calls: deque[tuple[bytes, int]] = deque()
        self._window = FIRST_WINDOW
        self._unsent = opening()
        self._unread = b""
        self._received = 0

    def call(self, call: Frames, tag: Any) -> None:
        """Queue a call."""
        self.tags[self._stream] = tag
        self._calls.append((self._stream.to_bytes(4, "big").join(call.pieces), call.size))
        self._stream += 2  # up to 2**31: a week at 3,000 calls a second

    def flush(self) -> bool:
        """Send what window and socket take; whether that was all."""
        taken = [self._unsent]
        while self._calls and self._calls[0][1] <= self._window:
            call, size = self._calls.popleft()
            self._window -= size
            taken.append(call)
        data = b"".join(taken)
        try:
            self._unsent = data[self.socket.send(data) :] if data else b""
        except WOULD_WAIT:
            self._unsent = data
        return not self._unsent and not self._calls

    def receive(self) -> list[Answer]:
        """The calls that have ended. Raises ConnectionError where the server ends the connection."""
        data = self._read()
        return self._parse(self._unread + data) if data else []

    def _read(self) -> bytes:
        """All that is there: TLS gives one record at a time, and one answer for each wake-up would be another load."""
        parts: list[bytes] = []
        try:
            while part := self.socket.recv(AT_ONCE):
                parts.append(part)
        except WOULD_WAIT:
            return b"".join(parts)
        if not parts:
            raise ConnectionError("the server closed the connection")
        return b"".join(parts)

    def _parse(self, data: bytes) -> list[Answer]:
        answers: list[Answer] = []
        at, end, tags = 0, len(data), self.tags
        while end - at >= _HEAD.size:
            high, low, kind, flags, stream = _HEAD.unpack_from(data, at)
            after = at + _HEAD.size + (high << 8 | low)
            if after > end:
                break
            if kind == HEADERS:
                if flags & END_STREAM:
                    answers.append(Answer(tags.pop(stream), _status(data[at + _HEAD.size : after])))
            elif kind != DATA:
                answers += self._obey(kind, flags, stream, data[at + _HEAD.size : after])
            at = after
        self._unread = data[at:]
        self._count_received(at)
        return answers

    def _count_received(self, size: int) -> None:
        # Heads of frames are counted, too: the window only opens a little earlier than it has to.
        self._received += size
        if self._received >= RENEW_WINDOW:
            self._unsent += _more_window(RENEW_WINDOW // 2)
            self._received -= RENEW_WINDOW // 2

    def _obey(self, kind: int, flags: int, stream: int, payload: bytes) -> list[Answer]:
        if kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self._unsent += control(kind, ACK, payload if kind == PING else b"")
        elif kind == RST_STREAM and stream in self.tags:
            return [Answer(self.tags.pop(stream), RESET)]
        elif kind == GOAWAY:
            raise ConnectionError(f"the server ends the connection: {payload[8:].decode(errors='replace')}")
        elif kind == CONTINUATION:
            raise ConnectionError("an answer's headers do not fit into one frame, which this load cannot read")
        return []


def _status(block: bytes) -> int:
    if _OK in block:
        return 0
    at = block.find(_STATUS) + len(_STATUS)
    if at < len(_STATUS):
        raise ConnectionError(f"no grpc-status in the trailers {block!r}")
    return int(block[at + 1 : at + 1 + block[at]])


class Load:
    """Connections to a server on this machine; calls go to them in turns. tls: encrypts. also: ports of other servers,
    which get as many connections each. Also a context manager."""

    def __init__(
        self, port: int, *, connections: int = 1, tls: ssl.SSLContext | None = None, also: Sequence[int] = ()
    ) -> None:
        ports = [port, *also]
        self._all = [_Connection(ports[number % len(ports)], tls) for number in range(connections)]
        self._by_number = {connection.socket.fileno(): connection for connection in self._all}
        self._poll = select.epoll()
        for number in self._by_number:
            self._poll.register(number, select.EPOLLIN)
        self._unsent = set(self._all)
        self._turn = 0

    def call(self, call: Frames, tag: Any) -> None:
        """Send a call, at the next `answers`; `tag` comes back with its answer."""
        connection = self._all[self._turn]
        self._turn = (self._turn + 1) % len(self._all)
        connection.call(call, tag)
        self._unsent.add(connection)

    def answers(self, seconds: float) -> list[Answer]:
        """Send what is queued, wait for answers so long, and return them. Raises ConnectionError."""
        self._unsent = {connection for connection in self._unsent if not connection.flush()}
        wait = min(seconds, 0.001) if self._unsent else seconds
        found: list[Answer] = []
        for number, _ in self._poll.poll(max(0.0, wait)):
            connection = self._by_number[number]
            found += connection.receive()
            self._unsent.add(connection)  # it may have to acknowledge something, or its window has opened
        return found

    @property
    def in_flight(self) -> int:
        """Calls without an answer yet."""
        return sum(len(connection.tags) for connection in self._all)

    def close(self) -> None:
        """Close the connections."""
        self._poll.close()
        for connection in self._all:
            connection.socket.close()

    def __enter__(self) -> Load:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()


class Caller(Protocol[Call]):
    """What can be played: a load of gRPC, or of HTTP/1.1 (`load_http1.py`)."""

    @property
    def in_flight(self) -> int:
        """Calls without an answer yet."""

    def call(self, call: Call, tag: Any) -> None:
        """Send a call, at the next `answers`; `tag` comes back with its answer."""

    def answers(self, seconds: float) -> list[Answer]:
        """Send what is queued, wait for answers so long, and return them. Raises ConnectionError."""


@dataclass(frozen=True, slots=True)
class Played:
    """What a load has measured. seconds: from the first call to the last answer. latencies: seconds of each call,
    rising. statuses: answers by status. load_cpu: processor seconds of the load itself."""

    seconds: float
    latencies: Sequence[float]
    statuses: Mapping[int, int]
    load_cpu: float

    @property
    def calls(self) -> int:
        """How many were answered."""
        return len(self.latencies)

    @property
    def rate(self) -> float:
        """Calls per second."""
        return self.calls / self.seconds

    def latency(self, share: float) -> float:
        """A quantile of the latencies, in seconds."""
        return quantile(self.latencies, share)


def quantile(rising: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed; 0 where there are none.

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5)
    2.0
    """
    return rising[max(0, -int(-share * len(rising) // 1) - 1)] if rising else 0.0


PATIENCE = 30.0
"""Seconds for the last answers."""


class NotAnswered(Exception):
    """Calls without an answer."""


def play(
    port: int,
    calls: Sequence[Frames],
    *,
    in_flight: int,
    seconds: float,
    connections: int = 1,
    also: Sequence[int] = (),
) -> Played:
    """`play_on` connections of its own. also: see Load."""
    with Load(port, connections=connections, also=also) as load:
        return play_on(load, calls, in_flight=in_flight, seconds=seconds)


def play_on(load: Caller[Call], calls: Sequence[Call], *, in_flight: int, seconds: float) -> Played:
    """Keep that many calls in flight for so long, then wait for the last answers. `calls` are repeated in their order.

    Raises NotAnswered if an answer never comes, and ConnectionError.
    """
    latencies, statuses, sent = array("d"), Counter[int](), 0
    clock = time.perf_counter
    cpu, started = time.process_time(), clock()
    for _ in range(in_flight):
        load.call(calls[sent % len(calls)], clock())
        sent += 1
    while clock() - started < seconds:
        answers = load.answers(0.1)
        now = clock()
        for tag, status in answers:
            latencies.append(now - tag)
            statuses[status] += 1
            load.call(calls[sent % len(calls)], now)
            sent += 1
    _wait_for_all(load, latencies, statuses)
    taken, cpu = clock() - started, time.process_time() - cpu
    if len(latencies) != sent:
        raise NotAnswered(f"{sent - len(latencies)} of {sent} calls got no answer within {PATIENCE:g} s")
    return Played(taken, sorted(latencies), statuses, cpu)


def _wait_for_all(load: Caller[Any], latencies: array[float], statuses: Counter[int]) -> None:
    end = time.perf_counter() + PATIENCE
    while load.in_flight and time.perf_counter() < end:
        for tag, status in load.answers(0.1):
            latencies.append(time.perf_counter() - tag)
            statuses[status] += 1
