"""What there is on the web port: methods of services in every protocol, plain endpoints, files. Called by `port.py`.

A part that adds something gives it here: a service (its table of methods), an Endpoint, or a File.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from google.rpc import status_pb2

from decider.errors import DeciderError
from decider.log.protocol import Caller
from decider.server.methods import Method, StreamMethod
from decider.server.roles import Rights, Role
from decider.server.rpc import Refused, status_for
from decider.server.web.app import TEXT, Route, told
from decider.server.web.codecs import JSON, PROTO
from decider.server.web.connect import ConnectUnary
from decider.server.web.exchange import Reply, Request
from decider.server.web.frames import connect_stream, grpc_web, grpc_web_text
from decider.server.web.intake import WebIntake

TEXT_PLAIN = b"text/plain"
"""navigator.sendBeacon sends texts as this, and a page needs no preflight for it: JSON."""


class Way(Protocol):
    """A protocol, in one encoding."""

    def answer_of(self, method: Any) -> Callable[[Request], Awaitable[Reply]]:
        """What answers calls of this method. Raises DeciderError, Refused."""

    def fail(self, status: status_pb2.Status) -> Reply:
        """What a caller gets of an error."""


def unary_ways(intake: WebIntake) -> Mapping[bytes, Way]:
    """Of methods with one reply, by the type of the content."""
    as_json = ConnectUnary(JSON, intake)
    return {
        b"application/json": as_json,
        b"application/proto": ConnectUnary(PROTO, intake),
        TEXT_PLAIN: as_json,
        **_grpc_web_ways(intake),
    }


def stream_ways(intake: WebIntake) -> Mapping[bytes, Way]:
    """Of methods with many replies."""
    return {
        b"application/connect+json": connect_stream(JSON, intake),
        b"application/connect+proto": connect_stream(PROTO, intake),
        **_grpc_web_ways(intake),
    }


def _grpc_web_ways(intake: WebIntake) -> Mapping[bytes, Way]:
    binary, text = grpc_web(PROTO, intake), grpc_web_text(PROTO, intake)
    return {
        b"application/grpc-web": binary,
        b"application/grpc-web+proto": binary,
        b"application/grpc-web+json": grpc_web(JSON, intake),
        b"application/grpc-web-text": text,
        b"application/grpc-web-text+proto": text,
    }


def rpc_routes(methods: Iterable[Method | StreamMethod], intake: WebIntake) -> Mapping[str, Route]:
    """A route of each method; the type of the content says in which protocol a call comes."""
    unary, streams = unary_ways(intake), stream_ways(intake)
    return {
        f"/{one.service}/{one.name}": Route(
            ("POST",), _by_type(one, streams if isinstance(one, StreamMethod) else unary)
        )
        for one in methods
    }


def _by_type(method: Method | StreamMethod, ways: Mapping[bytes, Way]) -> Callable[[Request], Awaitable[Reply]]:
    answers = {kind: (way.answer_of(method), way.fail, _label(kind)) for kind, way in ways.items()}
    known = b", ".join(ways)

    async def answer(request: Request) -> Reply:
        kind = request.headers.get(b"content-type", b"")
        found = answers.get(kind) or answers.get(kind.partition(b";")[0].strip().lower())
        if found is None:
            return Reply(415, [(b"accept-post", known), TEXT], b"content-type: send one of " + known + b"\n")
        answer_it, fail, request.protocol = found
        try:
            return await answer_it(request)
        except Exception as error:
            request.failed = True
            return told(error, fail)

    return answer


def _label(kind: bytes) -> str:
    """Of a type of content, in the metrics.

    >>> _label(b"application/grpc-web+proto"), _label(b"text/plain")
    ('grpc_web_proto', 'text_plain')
    """
    return re.sub(r"\W", "_", kind.decode().removeprefix("application/"))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Plain HTTP that a blocking function answers, in the threads of calls. path: with a slash at its end, the rest of
    the path is its parameter (`Request.rest`). answer: to a POST, (request, body, caller, rights) -> reply; it may
    raise a DeciderError, which `fail` says."""

    path: str
    role: Role | None
    answer: Callable[[Request, bytes, Caller, Rights], Reply]
    fail: Callable[[status_pb2.Status], Reply]


def endpoint_routes(endpoints: Iterable[Endpoint], intake: WebIntake) -> Mapping[str, Route]:
    """By path."""
    return {one.path: Route(("POST",), partial(_answer_endpoint, one, intake), one.fail) for one in endpoints}


async def _answer_endpoint(one: Endpoint, intake: WebIntake, request: Request) -> Reply:
    def work(body: bytes, caller: Caller, rights: Rights) -> Reply:
        try:
            return one.answer(request, body, caller, rights)
        except DeciderError as error:
            raise Refused(status_for(error, rights)) from None

    return await intake.call(request, one.role, work)
