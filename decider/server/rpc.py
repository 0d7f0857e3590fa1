"""Wraps every gRPC method: deadline, metrics, and the one place that turns exceptions into statuses.

Handlers return a reply or raise. Called by `grpc_port.py`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from decider.errors import (
    AlreadyExists,
    DeadlineExceeded,
    DeciderError,
    FailedPrecondition,
    InvalidArgument,
    InvalidExperiment,
    LimitReached,
    LogError,
    LogFull,
    NotFound,
    Violation,
)
from decider.metrics.rpc import RpcMetrics

logger = logging.getLogger(__name__)

DOMAIN = "decider.v1"

_CODES: list[tuple[type[DeciderError], int]] = [  # the first that fits
    (InvalidExperiment, code_pb2.INVALID_ARGUMENT),
    (InvalidArgument, code_pb2.INVALID_ARGUMENT),
    (NotFound, code_pb2.NOT_FOUND),
    (FailedPrecondition, code_pb2.FAILED_PRECONDITION),
    (LimitReached, code_pb2.RESOURCE_EXHAUSTED),
    (AlreadyExists, code_pb2.ALREADY_EXISTS),
    (DeadlineExceeded, code_pb2.DEADLINE_EXCEEDED),
    (LogFull, code_pb2.RESOURCE_EXHAUSTED),
    (LogError, code_pb2.UNAVAILABLE),
]

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


LONGEST_MESSAGE = 1_000
MOST_DETAILS = 4_000
"""Bytes. Errors travel in HTTP/2 trailers, which many clients cut off at 8 or 16 KiB."""


def to_status(error: Exception) -> status_pb2.Status:
    """A google.rpc.Status with ErrorInfo and, where fields are wrong, BadRequest. Unknown errors say nothing more."""
    if not isinstance(error, DeciderError):
        logger.exception("internal error", exc_info=error)
        return status_pb2.Status(code=code_pb2.INTERNAL, message="internal error; the server's log has the details")
    code = next((code for kind, code in _CODES if isinstance(error, kind)), code_pb2.INTERNAL)
    details = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if isinstance(error, InvalidArgument):
        details.append(_bad_request(error.violations))
    return status_pb2.Status(code=code, message=_truncate(str(error), LONGEST_MESSAGE), details=map(_to_any, details))


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


Handler = Callable[[Any], Any]


def behaviour_of(handler: Handler, *, service: str, method: str, metrics: RpcMetrics) -> Callable[[Any, Any], Any]:
    """The gRPC behaviour of a handler."""
    observe = metrics.method(service, method)
    clock = time.perf_counter

    def behaviour(request: Any, context: grpc.ServicerContext) -> Any:
        started = clock()
        try:
            _check_deadline(context)
            reply = handler(request)
        except Exception as error:
            status = to_status(error)
            observe(_NAMES[status.code], clock() - started)
            _abort(context, status)
        observe("OK", clock() - started)
        return reply

    return behaviour


def _check_deadline(context: grpc.ServicerContext) -> None:
    remaining = context.time_remaining()
    if remaining is not None and remaining <= 0:
        raise DeadlineExceeded("the deadline passed while the call waited; nothing was done")


def _abort(context: grpc.ServicerContext, status: status_pb2.Status) -> NoReturn:
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort raises")
