"""A load of many different HTTP/1.1 requests that costs so little that it does not compete with the server.

The requests are made before the load; of the answers nothing is read but the status, the end, and the text that a good
one has. A connection has one request in flight, as those of browsers have. Called by `bench_web.py`; `load.play_on`
plays it as it plays gRPC's.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple

from simulator.studies.load import AT_ONCE, Answer

HEAD_ENDS, CHUNKS_END = b"\r\n\r\n", b"0\r\n\r\n"
OK = b"HTTP/1.1 200 "
_LENGTH = b"content-length:"


class Request(NamedTuple):
    """A call. good: is in the answer of a call that has succeeded, behind the status 200."""

    data: bytes
    good: bytes = b""


def request(path: str, body: bytes, content_type: str, *, good: bytes = b"", headers: Sequence[str] = ()) -> Request:
    """A POST. headers: more of them, as lines."""
    length = f"Content-Length: {len(body)}"
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {content_type}", length, *headers]
    return Request("\r\n".join([*lines, "", ""]).encode() + body, good)


def _end(answer: bytes) -> bool:
    """Whether it is there whole."""
    head, found, body = answer.partition(HEAD_ENDS)
    if not found:
        return False
    _, sized, rest = head.lower().partition(_LENGTH)
    return len(body) >= int(rest.partition(b"\r\n")[0]) if sized else body.endswith(CHUNKS_END)


class _Connection:
    """tag: of the request in flight; None: there is none."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tag: Any = None
        self._good = b""
        self._read = b""

    def send(self, call: Request, tag: Any) -> None:
        self.tag, self._good, self._read = tag, call.good, b""
        self.socket.sendall(call.data)

    def receive(self) -> Answer | None:
        """None while it is not there whole. Raises ConnectionError where the server ends the connection."""
        data = self.socket.recv(AT_ONCE)
        if not data:
            raise ConnectionError("the server closed the connection")
        self._read += data
        if not _end(self._read):
            return None
        status = 0 if self._read.startswith(OK) and self._good in self._read else int(self._read[9:12])
        return Answer(self.tag, status)


class Http1Load:
    """Connections to a server on this machine; a call goes to one that is free, else it waits. Also a context manager.

    The status of an answer is 0 where it is good, else HTTP's number (200: good for HTTP alone).
    """

    def __init__(self, port: int, *, connections: int) -> None:
        self._all = {one.socket.fileno(): one for one in (_Connection(port) for _ in range(connections))}
        self._free = deque(self._all.values())
        self._calls: deque[tuple[Request, Any]] = deque()
        self._poll = select.epoll()
        for number in self._all:
            self._poll.register(number, select.EPOLLIN)

    def call(self, call: Request, tag: Any) -> None:
        """Send a call, at the next `answers`; `tag` comes back with its answer."""
        self._calls.append((call, tag))

    def answers(self, seconds: float) -> list[Answer]:
        """Send what there is a connection for, wait for answers so long, and return them. Raises ConnectionError."""
        while self._calls and self._free:
            self._free.popleft().send(*self._calls.popleft())
        found: list[Answer] = []
        for number, _ in self._poll.poll(max(0.0, seconds)):
            connection = self._all[number]
            answer = connection.receive()
            if answer is not None:
                found.append(answer)
                self._free.append(connection)
        return found

    @property
    def in_flight(self) -> int:
        """Calls without an answer yet."""
        return len(self._all) - len(self._free) + len(self._calls)

    def close(self) -> None:
        """Close the connections."""
        self._poll.close()
        for connection in self._all.values():
            connection.socket.close()

    def __enter__(self) -> Http1Load:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()


def answered(port: int, call: Request, seconds: float = 30.0) -> Answer:
    """One call, with the time as its tag. Raises ConnectionError, also where no answer comes in time."""
    with Http1Load(port, connections=1) as load:
        started = time.monotonic()
        load.call(call, started)
        while time.monotonic() < started + seconds:
            if found := load.answers(0.1):
                return found[0]
    raise ConnectionError(f"no answer within {seconds:g} s")
