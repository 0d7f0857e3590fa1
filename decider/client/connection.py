"""Where the server is, and a connection that comes back soon after it does. Called by both clients and `core.py`."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import Any
from weakref import WeakKeyDictionary

from decider.channel import Credentials, open_aio_channel, open_channel
from decider.client.failures import NotSent
from decider.client.forks import Forkable, watch
from decider.client.outbox import Call
from decider.client.values import full_text, number
from decider.v1.decider_service_pb2_grpc import DeciderServiceStub

RECONNECT: tuple[tuple[str, int], ...] = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),  # gRPC's own bound is two minutes
    ("grpc.min_reconnect_backoff_ms", 2_000),  # in spite of its name: how long one try to connect may take
    # A server that lost its power, or a proxy that forgot the connection, says nothing: without pings each call ends
    # with its time, until the kernel gives up after a quarter of an hour.
    ("grpc.keepalive_time_ms", 10_000),  # while calls are under way; servers take one each 5 s
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # gRPC's own bound is a minute
)
CHILD: tuple[tuple[str, int], ...] = (("grpc.use_local_subchannel_pool", 1),)
"""A channel of a child process may share nothing with its parent's: both would read from one socket."""

FORK_PATIENCE = 1.0
"""Seconds that a fork waits for calls to end that it has cancelled."""

_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):([0-9]{1,5})")
_SCHEMES = ("unix:", "unix-abstract:", "dns:", "ipv4:", "ipv6:")


def check_target(target: object) -> str:
    """HOST:PORT, or a name with one of gRPC's schemes. Raises TypeError or ValueError.

    >>> check_target("shop.example")
    Traceback (most recent call last):
        ...
    ValueError: target: 'shop.example' is no HOST:PORT; for example 127.0.0.1:50051
    """
    found = full_text("target", target)
    if "://" in found:
        raise ValueError(f"target: is HOST:PORT, without {found.partition('://')[0]}://")
    match = _HOST_AND_PORT.fullmatch(found)
    fits = 0 < int(match[2]) <= 65_535 if match else found.startswith(_SCHEMES) and not found.endswith(":")
    if not fits:
        raise ValueError(f"target: {found!r} is no HOST:PORT; for example 127.0.0.1:50051")
    return found


def check_seconds(name: str, seconds: object) -> float:
    """A time that a page can wait. Raises TypeError or ValueError."""
    found = number(name, seconds)
    if found <= 0:
        raise ValueError(f"{name}: is {found:g}; give seconds, more than 0")
    return found


class Connection(Forkable):
    """Blocking calls on one channel, opened at the first of them. timeout: seconds."""

    def __init__(self, target: str, *, timeout: float, credentials: Credentials) -> None:
        self._target, self._timeout, self._credentials = target, timeout, credentials
        self._options = RECONNECT
        self._inherited: list[Any] = []
        self._closed = False
        self._forget()
        watch(self)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._channel: Any = None
        self._stub: Any = None

    def after_fork(self) -> None:
        """In the child. The parent's channel is kept and never used: to close it would end the parent's connection."""
        self._inherited.append(self._channel)
        self._options = RECONNECT + CHILD
        self._forget()

    @property
    def stub(self) -> Any:
        """Of the generated code. Raises NotSent after `close`."""
        if self._stub is None:
            with self._lock:
                if self._stub is None:
                    _check_open(closed=self._closed)
                    self._channel = open_channel(self._target, self._credentials, self._options)
                    self._stub = DeciderServiceStub(self._channel)  # type: ignore[no-untyped-call]
        return self._stub

    def call(self, call: Call) -> Any:
        """The reply; raises grpc.RpcError."""
        return getattr(self.stub, call.method)(call.request, timeout=self._timeout)

    def drop(self) -> None:
        """Calls that are under way end with CANCELLED; the next one opens a channel again."""
        with self._lock:
            channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            channel.close()

    def close(self) -> None:
        """For good."""
        self._closed = True
        self.drop()


class Sender(Forkable):
    """A connection for threads that the page does not know of: no call is under way on it while the process forks."""

    def __init__(self, target: str, *, timeout: float, credentials: Credentials) -> None:
        self._connection = Connection(target, timeout=timeout, credentials=credentials)
        self.after_fork()
        watch(self)

    def after_fork(self) -> None:
        """In the child: nothing is under way, and no thread holds a lock. (The connection begins anew by itself.)"""
        self._changed = threading.Condition()
        self._sending = 0
        self._forking = False

    def send(self, call: Call) -> Any:
        """The reply; raises grpc.RpcError, CANCELLED where a fork ended the call."""
        with self._changed:
            self._changed.wait_for(lambda: not self._forking)
            self._sending += 1
        try:
            return self._connection.call(call)
        finally:
            with self._changed:
                self._sending -= 1
                self._changed.notify_all()

    def before_fork(self) -> None:
        """End what is under way; the outboxes send it again."""
        with self._changed:
            self._forking = True
            if self._sending:
                self._connection.drop()
            self._changed.wait_for(lambda: self._sending == 0, FORK_PATIENCE)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        with self._changed:
            self._forking = False
            self._changed.notify_all()

    def close(self) -> None:
        """Calls that are under way end with CANCELLED."""
        self._connection.close()


class AsyncConnection(Forkable):
    """Calls that are awaited, on one channel for each event loop: gRPC's belong to the loop that opened them."""

    def __init__(self, target: str, *, timeout: float, credentials: Credentials) -> None:
        self._target, self._timeout, self._credentials = target, timeout, credentials
        self._options = RECONNECT
        self._closed = self._broken = False
        self._opened: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Any, Any]] = WeakKeyDictionary()
        watch(self)

    def after_fork(self) -> None:
        """In the child. The thread on which gRPC's asyncio rests is the parent's alone: a call would wait for ever."""
        self._broken = len(self._opened) > 0
        self._options = RECONNECT + CHILD

    @property
    def stub(self) -> Any:
        """Of the generated code. Raises NotSent after `close`, and after a fork behind the first call."""
        _check_open(closed=self._closed)
        if self._broken:
            raise NotSent("gRPC's asyncio does not survive a fork: fork before the first call of an AsyncClient")
        loop = asyncio.get_running_loop()
        if loop not in self._opened:
            channel = open_aio_channel(self._target, self._credentials, self._options)
            self._opened[loop] = channel, DeciderServiceStub(channel)  # type: ignore[no-untyped-call]
        return self._opened[loop][1]

    async def call(self, call: Call) -> Any:
        """The reply; raises grpc.RpcError."""
        return await getattr(self.stub, call.method)(call.request, timeout=self._timeout)

    async def close(self) -> None:
        """Calls of this event loop that are under way end with CANCELLED."""
        self._closed = True
        channel, _ = self._opened.pop(asyncio.get_running_loop(), (None, None))
        if channel is not None:
            await channel.close()


def _check_open(*, closed: bool) -> None:
    if closed:
        raise NotSent("the client is closed; make a new one")
