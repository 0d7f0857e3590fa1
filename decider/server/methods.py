"""The table of methods: of each its messages, the role that it needs, and what answers it. Every way in has the same
one: `grpc_port.py` and `web/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
from google.protobuf.message import Message

from decider.errors import DeciderError, RateExceeded
from decider.flagd.v1 import evaluation_pb2 as flagd_v1
from decider.flagd.v2 import evaluation_pb2 as flagd_v2
from decider.metrics.rpc import RpcMetrics
from decider.server.listeners import DECISIONS, EXPERIMENTS, FLAGS
from decider.server.roles import METHODS, Rights, Role
from decider.server.rpc import Answer, answer_of, code_name
from decider.v1 import decider_service_pb2, experiment_service_pb2

MODULES = {
    DECISIONS: decider_service_pb2,
    EXPERIMENTS: experiment_service_pb2,
    **dict(zip(FLAGS, (flagd_v1, flagd_v2), strict=True)),
}
"""Of each service."""


@dataclass(frozen=True, slots=True)
class Method:
    """With one request and one reply. role: that a caller needs. refused: is told why, of a call that does not run."""

    service: str
    name: str
    role: Role | None
    request: type[Message]
    reply: type[Message]
    answer: Answer
    refused: Callable[[DeciderError], object]


class Stream(Protocol):
    """An open stream of a caller, over gRPC (`intake.py`) or HTTP (`web/streams.py`). Nobody waits for it."""

    @property
    def rights(self) -> Rights:
        """The caller's, when it was opened."""

    def send(self, message: bytes, then: Callable[[], object]) -> None:
        """Send a reply; one at a time. `then` is called once it has left, and never where the stream has ended."""

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK, details: str = "") -> None:
        """With this status."""

    def on_end(self, callback: Callable[[], object]) -> None:
        """Called when the stream has ended, whoever ended it."""


@dataclass(frozen=True, slots=True)
class StreamMethod:
    """With one request and many replies. role: as of Method. answer: is called with the first request of each stream,
    as protobuf; it must not wait, and may raise DecodeError."""

    service: str
    name: str
    role: Role | None
    request: type[Message]
    reply: type[Message]
    answer: Callable[[Stream, bytes], object]


def methods_of(service: str, servicer: object, metrics: RpcMetrics) -> Sequence[Method]:
    """Of a service, those with one reply; `servicer` has their handlers, under the same names. Raises KeyError for a
    method without a row in `roles.py`."""
    return [
        _method(service, one, getattr(servicer, one.name), metrics)
        for one in descriptors_of(service)
        if not one.server_streaming
    ]


def streams_of(service: str, servicer: object) -> Sequence[StreamMethod]:
    """Those with many replies, in the same way."""
    return [
        StreamMethod(
            service,
            one.name,
            METHODS[f"{service}/{one.name}"],
            request=one.input_type._concrete_class,
            reply=one.output_type._concrete_class,
            answer=getattr(servicer, one.name),
        )
        for one in descriptors_of(service)
        if one.server_streaming
    ]


def descriptors_of(service: str) -> Iterable[Any]:
    """Of its methods."""
    (found,) = MODULES[service].DESCRIPTOR.services_by_name.values()
    return found.methods  # type: ignore[no-any-return]


def _method(service: str, descriptor: Any, handler: Callable[..., Any], metrics: RpcMetrics) -> Method:
    name = descriptor.name
    return Method(
        service,
        name,
        METHODS[f"{service}/{name}"],
        request=descriptor.input_type._concrete_class,
        reply=descriptor.output_type._concrete_class,
        answer=answer_of(handler, service=service, method=name, metrics=metrics),
        refused=observer_of_refusals(service, name, metrics),
    )


def observer_of_refusals(service: str, method: str, metrics: RpcMetrics) -> Callable[[DeciderError], object]:
    """Counts calls that do not run; not those above the rate of a page's key, see `answer_of`."""
    observe = metrics.method(service, method)
    return lambda error: None if isinstance(error, RateExceeded) else observe(code_name(error), 0.0)
