"""Takes calls and streams from grpcio's server, so that nobody's slowness costs anybody else a thread. Called by
`grpc_port.py`.

grpcio gives a call a thread when its headers come, and the thread waits for the request: two clients that send headers
and nothing more would stop a server of two threads. It gives a stream a thread for as long as the stream is open. Here
gRPC's own thread, which waits for whatever comes, receives requests; a call gets a thread once its request is there
(which also saves it one wait), and a stream never has one.

What is used of grpcio that it does not promise stands in this file alone: the arguments with which its server calls
`submit`, the state of a call, and how a message is received, sent, and a call ended. `tests/test_intake.py` holds it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import _common, _server
from grpc._cython import cygrpc
from grpc_status import rpc_status

from decider.errors import DeciderError, LimitReached
from decider.log.group_commit import Call
from decider.server import allocator
from decider.server.access import Access
from decider.server.arrivals import MOST_SLOW, Arrivals
from decider.server.limits import Limit
from decider.server.roles import ALL, Rights, Role
from decider.server.rpc import UNPARSABLE, to_status

logger = logging.getLogger(__name__)

LAST_ARRIVALS = 0.2
"""Seconds that a stop waits for requests that are not there yet."""

LOOK_AGAIN = 0.01
"""Seconds between two checks whether calls are still running."""

Run = Callable[[Call], object]
"""Runs a call some time, in another thread."""


@dataclass(frozen=True, slots=True)
class Unary:
    """A method with one request and one reply. refused: is told why, of a call that does not run. role: that a caller
    needs; None: anybody may call it."""

    behaviour: Callable[..., Any]
    run: Run
    refused: Callable[[DeciderError], object]
    role: Role | None = None


@dataclass(frozen=True, slots=True)
class Streaming:
    """A method that takes no thread: `answer` is called with the first request of each stream, in gRPC's own thread,
    and must not wait. role: as of Unary. brief: it ends with its answer, so it does not count among those that stay
    open."""

    answer: Callable[[Stream, bytes], object]
    role: Role | None = None
    brief: bool = False


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A method that another listener answers: whoever calls is told so, before anything is received. refused: as of
    Unary."""

    error: DeciderError
    refused: Callable[[DeciderError], object]


class Stream:
    """An open stream of a caller. Nobody waits for it: what comes is given to callbacks, in gRPC's own thread. rights:
    the caller's, when it was opened."""

    def __init__(self, call: Any, state: Any, rights: Rights = ALL) -> None:
        self._call, self._state, self.rights = call, state, rights

    def receive(self, then: Callable[[bytes], object]) -> None:
        """The next request; where no more come, the stream ends."""
        with self._state.condition:
            if not self._is_over():  # else grpcio has forgotten it, and a late event of it ends grpcio's thread
                _receive(self._call, self._state, partial(self._take, then))

    def _take(self, then: Callable[[bytes], object], message: bytes | None) -> None:
        if message is None:
            self.end()
        elif not self._is_over():
            try:
                then(message)
            except DecodeError:
                self.end(grpc.StatusCode.INVALID_ARGUMENT, UNPARSABLE)

    def _is_over(self) -> bool:
        with self._state.condition:
            return self._state.client is _server._CANCELLED or bool(self._state.statused)

    def send(self, message: bytes, then: Callable[[], object]) -> None:
        """Send a reply; one at a time. `then` is called once it has left, and never where the stream has ended."""
        with self._state.condition:
            if self._is_over():
                return
            operations = [cygrpc.SendMessageOperation(message, 0)]
            if self._state.initial_metadata_allowed:
                operations.insert(0, cygrpc.SendInitialMetadataOperation(None, 0))
                self._state.initial_metadata_allowed = False
            _start(self._call, self._state, operations, _server._SEND_MESSAGE_TOKEN, lambda _: then())

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK, details: str = "") -> None:
        """With this status."""
        _end(self._call, self._state, code, details)

    def on_end(self, callback: Callable[[], object]) -> None:
        """Called when the stream has ended, whoever ended it."""
        with self._state.condition:
            self._state.callbacks.append(callback)


class Intake(Executor):
    """The `thread_pool` of a grpc.Server whose handlers have Unary and Streaming methods. checks: the limit of brief
    streams. most_arriving: calls of one caller whose requests have not come. access: says who calls; None: everybody
    may do everything."""

    def __init__(
        self, *, calls: Limit, streams: Limit, checks: Limit, most_arriving: int, access: Access | None = None
    ) -> None:
        self._calls, self._streams, self._checks, self._access = calls, streams, checks, access
        self._arriving: Arrivals[Call, _Held] = Arrivals(most_of_one=most_arriving)
        self._freed = False
        self._running: set[Call] = set()
        self._open_streams: dict[Stream, _Held] = {}

    def submit(self, fn: Callable[..., object], /, *args: Any, **_: Any) -> Call:  # type: ignore[override]
        """Called by grpcio in its own thread, with the lock of the call's state held."""
        in_pool, event, state, method, wait, *serializers = args
        if isinstance(method, Elsewhere):
            _turn_away(method, event.call, state, method.error)
            return _NOTHING
        try:  # before the request is received: a stranger's costs no thread and is never parsed
            caller, rights = self._identify(event, method.role)
        except DeciderError as error:
            _turn_away(method, event.call, state, error)
            return _NOTHING
        if isinstance(method, Streaming):
            self._open(method, event, state, caller, rights or ALL)
            return _NOTHING
        behaviour = method.behaviour if rights is None else partial(method.behaviour, rights=rights)
        request: list[bytes] = []
        arguments = (in_pool, event, state, behaviour, lambda: request[0] if request else wait(), *serializers)
        call = Call(fn, arguments)

        def received(message: bytes | None) -> None:
            if self._arriving.take(caller, call) is None:  # turned away meanwhile
                return
            if message is not None:
                request.append(message)
            self._run(call, method, event, state, caller)

        try:
            leaves = self._arriving.add(caller, call, _Held(method, event, state))
        except LimitReached as error:
            _turn_away(method, event.call, state, error)
            return _NOTHING
        if leaves is not None:
            self._turn_away_arriving(*leaves, LimitReached("the request did not come, and many other calls wait"))
        _receive(event.call, state, received)
        return call

    def _identify(self, event: Any, role: Role | None) -> tuple[str, Rights | None]:
        """Who calls, for the limits, and what they may do; None: everything. Raises Unauthenticated,
        PermissionDenied."""
        if self._access is None:
            return _address(event.call), None
        if role is None:
            return _known_or_address(self._access, event), None
        rights = _rights(self._access, event)
        rights.check_role(role)
        return _name(rights), rights

    def _run(self, call: Call, method: Unary, event: Any, state: Any, caller: str) -> None:
        try:
            self._calls.enter(caller)
        except LimitReached as error:
            _turn_away(method, event.call, state, error)
            call.skip()
        else:
            self._count(call, state, caller)
            method.run(call)

    def _count(self, call: Call, state: Any, caller: str) -> None:
        """A reply that its caller does not read stays in memory, so a call counts until it has left as well."""
        both = [None]

        def leave() -> None:
            try:
                both.pop()
            except IndexError:  # the second one of the two
                self._calls.leave(caller)

        def done(_: object) -> None:
            self._running.discard(call)
            leave()

        self._running.add(call)
        call.add_done_callback(done)
        with state.condition:
            if state.callbacks is not None:
                state.callbacks.append(leave)
                return
        leave()  # its caller has left

    def _open(self, method: Streaming, event: Any, state: Any, caller: str, rights: Rights) -> None:
        limit = self._checks if method.brief else self._streams
        try:
            limit.enter(caller)
        except LimitReached as error:
            _turn_away(method, event.call, state, error)
        else:
            stream = Stream(event.call, state, rights)
            if self._access is not None and method.role is not None:
                self._open_streams[stream] = _Held(method, event, state)
            stream.on_end(lambda: self._forget(stream, limit, caller))
            stream.receive(lambda request: method.answer(stream, request))

    def _forget(self, stream: Stream, limit: Limit, caller: str) -> None:
        self._open_streams.pop(stream, None)
        limit.leave(caller)

    def _turn_away_arriving(self, caller: str, call: Call, error: DeciderError) -> None:
        """Whoever takes a call decides what becomes of it: its request may come in this moment."""
        held = self._arriving.take(caller, call)
        if held is not None:
            held.turn_away(error)
            call.skip()

    def look(self) -> None:
        """End the streams, and the calls whose requests are not there yet, of those who may no longer call: their
        tokens were looked at when their headers came. And the calls of one caller that wait too long, where they are
        many. Called by another thread than gRPC's, now and then."""
        for stream in self._open_streams.copy().values():
            if error := self._refusal(stream):
                stream.turn_away(error)
        for caller, call, held in self._arriving.all():
            if error := self._refusal(held):
                self._turn_away_arriving(caller, call, error)
        self._refuse_slow()

    def _refuse_slow(self) -> None:
        slow = self._arriving.too_slow()
        late = LimitReached(f"the request did not come, and {MOST_SLOW} calls of this caller wait longer for theirs")
        for caller, call in slow:
            self._turn_away_arriving(caller, call, late)
        if self._freed:  # what came of their requests may be a gigabyte, which gRPC frees in threads of its own
            allocator.give_back()
        self._freed = bool(slow)

    def _refusal(self, held: _Held) -> DeciderError | None:
        """Why its caller may not call, by what is known now."""
        try:
            self._identify(held.event, held.method.role)
        except DeciderError as error:
            return error
        return None

    def wait_until_idle(self, seconds: float) -> None:
        """Wait until every call has run, at most so many seconds; for requests that are not there yet not as long, and
        for nobody to read a reply."""
        now = time.monotonic()
        arrived, end = now + min(seconds, LAST_ARRIVALS), now + seconds
        while (self._running and time.monotonic() < end) or (self._arriving and time.monotonic() < arrived):
            time.sleep(LOOK_AGAIN)  # polled: a Condition would cost every call 5 us


@dataclass(frozen=True, slots=True)
class _Held:
    """A call or a stream that is open for as long as its caller likes."""

    method: Unary | Streaming
    event: Any
    state: Any

    def turn_away(self, error: DeciderError) -> None:
        """End it with this error, where it has not ended yet."""
        _turn_away(self.method, self.event.call, self.state, error)


_NOTHING = Call(lambda: None, ())
_NOTHING()
"""What a stream is to grpcio's count of calls: one that has ended."""


def _rights(access: Access, event: Any) -> Rights:
    """Of who calls. Raises Unauthenticated."""
    sent = _sent(event.invocation_metadata)
    certificate = _certificate(event.call) if access.asks_certificates else None
    return access.identify(sent, certificate)


def _name(rights: Rights) -> str:
    """Of who showed a token or a certificate, for the limits."""
    return f"token:{rights.name}"


def _known_or_address(access: Access, event: Any) -> str:
    """For what anybody may call: who shows a token is not counted among the strangers at the same address."""
    try:
        return _name(_rights(access, event))
    except DeciderError:
        return _address(event.call)


def _sent(metadata: Iterable[tuple[str, str]]) -> str | None:
    """The first `authorization`.

    >>> _sent([("user-agent", "grpc"), ("authorization", "Bearer abc")])
    'Bearer abc'
    """
    for key, value in metadata:
        if key == "authorization":
            return value
    return None


def _certificate(call: Any) -> str | None:
    """The name in the caller's certificate, which TLS has verified."""
    known = cygrpc.auth_context(call) or {}
    names = [*known.get(b"x509_common_name", ()), *known.get(b"x509_subject_alternative_name", ())]  # no name is b""
    return next((_common.decode(name) for name in names if name), None)


def _turn_away(method: Unary | Streaming | Elsewhere, call: Any, state: Any, error: DeciderError) -> None:
    status = rpc_status.to_status(to_status(error))
    _end(call, state, status.code, status.details, status.trailing_metadata)
    if not isinstance(method, Streaming):
        method.refused(error)


def _address(call: Any) -> str:
    """Of the caller, without the port.

    >>> class Call:
    ...     peer = staticmethod(lambda: b"ipv4:127.0.0.1:50051")
    >>> _address(Call)
    'ipv4:127.0.0.1'
    """
    address: str = _common.decode(call.peer()).rpartition(":")[0]
    return address


def _receive(call: Any, state: Any, then: Callable[[bytes | None], object]) -> None:
    """Ask for the next message; None where no more come."""
    with state.condition:
        _start(
            call,
            state,
            [cygrpc.ReceiveMessageOperation(0)],
            _server._RECEIVE_MESSAGE_TOKEN,
            lambda event: then(event.batch_operations[0].message()),
        )


def _start(call: Any, state: Any, operations: Sequence[Any], token: str, done: Callable[[Any], object]) -> None:
    """Let gRPC do this, and call `done` afterwards, in its own thread."""

    def completed(event: Any) -> Any:
        with state.condition:
            finished = _server._possibly_finish_call(state, token)
        try:
            done(event)
        except Exception:  # it would end gRPC's thread, and with it the server
            logger.exception("a call failed before its handler")
        return finished

    call.start_server_batch(operations, completed)
    state.due.add(token)


def _end(call: Any, state: Any, code: grpc.StatusCode, details: str, trailing: Any = None) -> None:
    """End the call with this status, where it has not ended yet."""
    with state.condition:
        if not state.statused:
            state.trailing_metadata = trailing
            _server._abort(state, call, _common.STATUS_CODE_TO_CYGRPC_STATUS_CODE[code], _common.encode(details))
