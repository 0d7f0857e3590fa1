"""Wraps every method, whichever way its calls come in: whether its caller still waits, metrics, and the one place that
turns exceptions into statuses.

Handlers return a reply or raise. Called by `methods.py`, whose table `grpc_port.py` and `web/` share.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from decider.errors import (
    AlreadyExists,
    Cancelled,
    DeadlineExceeded,
    DeciderError,
    FailedPrecondition,
    GaveUp,
    InvalidArgument,
    InvalidExperiment,
    LimitReached,
    LogError,
    LogFull,
    NotAnsweredHere,
    NotFound,
    PermissionDenied,
    RateExceeded,
    Unauthenticated,
    Violation,
)
from decider.log.protocol import Caller
from decider.metrics.rpc import RpcMetrics
from decider.server import pages
from decider.server.pages import PageRights, shorten_error
from decider.server.roles import ALL, Rights

logger = logging.getLogger(__name__)

DOMAIN = "decider.v1"

_CODES: list[tuple[type[DeciderError], int]] = [  # the first that fits
    (InvalidExperiment, code_pb2.INVALID_ARGUMENT),
    (InvalidArgument, code_pb2.INVALID_ARGUMENT),
    (NotFound, code_pb2.NOT_FOUND),
    (FailedPrecondition, code_pb2.FAILED_PRECONDITION),
    (LimitReached, code_pb2.RESOURCE_EXHAUSTED),
    (Unauthenticated, code_pb2.UNAUTHENTICATED),
    (PermissionDenied, code_pb2.PERMISSION_DENIED),
    (NotAnsweredHere, code_pb2.UNIMPLEMENTED),
    (AlreadyExists, code_pb2.ALREADY_EXISTS),
    (DeadlineExceeded, code_pb2.DEADLINE_EXCEEDED),
    (Cancelled, code_pb2.CANCELLED),
    (LogFull, code_pb2.RESOURCE_EXHAUSTED),
    (LogError, code_pb2.UNAVAILABLE),
]

UNPARSABLE = "the request is no message of this method's type"

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


LONGEST_MESSAGE = 1_000
MOST_DETAILS = 4_000
"""Bytes. Errors travel in HTTP/2 trailers, which many clients cut off at 8 or 16 KiB."""


def to_status(error: Exception) -> status_pb2.Status:
    """A google.rpc.Status with ErrorInfo and, where fields are wrong, BadRequest. Unknown errors say nothing more."""
    if not isinstance(error, DeciderError):
        return status_pb2.Status(code=code_pb2.INTERNAL, message=str(unexpected(error)))
    code = _code_of(error)
    details: list[Any] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if isinstance(error, InvalidArgument):
        details.append(_bad_request(error.violations))
    if isinstance(error, RateExceeded):
        details.append(error_details_pb2.RetryInfo(retry_delay=_seconds(error.after)))
    return status_pb2.Status(code=code, message=_truncate(str(error), LONGEST_MESSAGE), details=map(_to_any, details))


def _seconds(seconds: float) -> duration_pb2.Duration:
    return duration_pb2.Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


def code_name(error: DeciderError) -> str:
    """The name of its status code."""
    return str(_NAMES[_code_of(error)])


def _code_of(error: DeciderError) -> int:
    return next((code for kind, code in _CODES if isinstance(error, kind)), code_pb2.INTERNAL)


def unexpected(error: Exception) -> DeciderError:
    """What callers hear of an error that nobody raises on purpose; it is logged here."""
    logger.exception("internal error", exc_info=error)
    return DeciderError("internal error; the server's log has the details")


def _bad_request(violations: Sequence[Violation]) -> error_details_pb2.BadRequest:
    """As many violations as fit, then the number of the others."""
    message = error_details_pb2.BadRequest()
    for index, violation in enumerate(violations):
        if message.ByteSize() > MOST_DETAILS:
            message.field_violations.add(field="...", description=f"and {len(violations) - index} more")
            break
        message.field_violations.add(
            field=_truncate(violation.field, 200), description=_truncate(violation.description, 600)
        )
    return message


def _truncate(text: str, longest: int) -> str:
    """The text, cut to at most so many bytes."""
    encoded = text.encode()
    return text if len(encoded) <= longest else encoded[: longest - 3].decode(errors="ignore") + "..."


def _to_any(message: Any) -> any_pb2.Any:
    envelope = any_pb2.Any()
    envelope.Pack(message)
    return envelope


def caller_of(context: grpc.ServicerContext) -> Caller:
    """Who waits for the answer of a call."""
    remaining = context.time_remaining()
    # On the monotonic clock: a wall clock that is set ahead must not end the calls in flight.
    return Caller(math.inf if remaining is None else time.monotonic() + remaining, context.is_active)


def _check_deadline(caller: Caller) -> None:
    if time.monotonic() >= caller.deadline:
        raise DeadlineExceeded("the deadline passed; nobody waits for the answer")


def check_caller(caller: Caller) -> None:
    """Raises GaveUp where nobody waits any more; `write_wanted` looks at the same before it writes."""
    _check_deadline(caller)
    if not caller.is_there():
        raise Cancelled("the caller cancelled the call; nobody waits for the answer")


Handler = Callable[..., Any]
"""(request) -> reply; also with `caller`, `rights` or both."""


def status_for(error: Exception, rights: Rights) -> status_pb2.Status:
    """What this caller is told; counted where it has a page's key."""
    status = to_status(error)
    if isinstance(rights, PageRights):
        shorten_error(status)
        if isinstance(error, PermissionDenied | RateExceeded):
            rights.refused(error)
    return status


class Refused(Exception):
    """A call that ends with an error. status: what its caller is told (google.rpc.Status)."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status


Parse = Callable[[bytes], Any]
"""Makes the message of a request, or raises DecodeError or InvalidArgument."""

Answer = Callable[[bytes, Parse, Caller, Rights], Any]
"""(request, parse, caller, rights) -> reply. Raises Refused."""


def answer_of(handler: Handler, *, service: str, method: str, metrics: RpcMetrics) -> Answer:
    """What answers every call of a method, in whatever way it came in; it counts them. Those above the rate of a page's
    key are counted by the key alone (`decider_web_refused_total`): any visitor can send as many as he likes, and calls
    that fail call an operator."""
    observe, clock = metrics.method(service, method), time.perf_counter
    handle = _with_all(handler)

    def answer(request: bytes, parse: Parse, caller: Caller, rights: Rights) -> Any:
        started, done, message = clock(), False, None
        try:
            _check_deadline(caller)
            message = _parsed(request, parse)
            if isinstance(rights, PageRights):
                reply = pages.answer(handle, message, caller, rights)
            else:
                reply = handle(message, caller, rights)
            done = True
            check_caller(caller)  # what was committed stays; metrics must not count an answer that nobody gets
        except Exception as error:
            # What is no request at all is told in full: nothing but its own words and the protocol's is in that.
            status = to_status(error) if message is None else status_for(error, rights)
            if not isinstance(error, RateExceeded):
                observe(_NAMES[status.code], clock() - started)
            if isinstance(error, GaveUp):
                metrics.count_abandoned(method, done=done)
            raise Refused(status) from None
        observe("OK", clock() - started)
        return reply

    return answer


def behaviour_of(answer: Answer, parse: Parse) -> Callable[..., Any]:
    """The gRPC behaviour of a method, which gets the bytes of a request."""

    def behaviour(request: bytes, context: grpc.ServicerContext, rights: Rights = ALL) -> Any:
        try:
            return answer(request, parse, caller_of(context), rights)
        except Refused as refused:
            _abort(context, refused.status)

    return behaviour


def _with_all(handler: Handler) -> Handler:
    """The same handler, called with (request, caller, rights)."""
    taken = signature(handler).parameters
    if "caller" in taken:
        return handler if "rights" in taken else lambda request, caller, _: handler(request, caller)
    if "rights" in taken:
        return lambda request, _, rights: handler(request, rights)
    return lambda request, _, __: handler(request)


def _parsed(request: bytes, parse: Parse) -> Any:
    try:
        return parse(request)
    except DecodeError as error:
        raise InvalidArgument([Violation("request", UNPARSABLE)]) from error


def _abort(context: grpc.ServicerContext, status: status_pb2.Status) -> NoReturn:
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort raises")
