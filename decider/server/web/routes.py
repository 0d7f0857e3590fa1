"""What there is on the web port: methods of services in every protocol, plain endpoints, files. Called by `port.py`.

A part that adds something gives it here: a service (its table of methods), an Endpoint, or a File.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from google.rpc import status_pb2

from decider.log.protocol import Caller
from decider.server.methods import Method
from decider.server.roles import Rights, Role
from decider.server.web.app import TEXT, Route
from decider.server.web.calls import Calls
from decider.server.web.connect import LONGEST_CALL, Connect, connect_json, connect_proto
from decider.server.web.exchange import Reply, Request
from decider.server.web.guard import Guard

FORM = b"application/x-www-form-urlencoded"


def rpc_routes(methods: Iterable[Method], calls: Calls, guard: Guard, most_bytes: int) -> Mapping[str, Route]:
    """A route of each method; the type of the content says in which protocol a call comes."""
    as_json, as_proto = connect_json(calls, guard, most_bytes), connect_proto(calls, guard, most_bytes)
    ways = {
        b"application/json": as_json,
        b"application/proto": as_proto,
        b"text/plain": as_json,  # navigator.sendBeacon sends texts as this, and a page needs no preflight for it
    }
    return {f"/{one.service}/{one.name}": Route(("POST",), _by_type(one, ways)) for one in methods}


def _by_type(method: Method, ways: Mapping[bytes, Connect]) -> Callable[[Request], Awaitable[Reply]]:
    answers = {kind: way.answer_of(method) for kind, way in ways.items()}
    known = b", ".join(ways)

    async def answer(request: Request) -> Reply:
        kind = request.headers.get(b"content-type", b"")
        found = answers.get(kind) or answers.get(kind.partition(b";")[0].strip().lower())
        if found is None:
            return Reply(415, [(b"accept-post", known), TEXT], b"content-type: send one of " + known + b"\n")
        reply: Reply = await found(request)
        return reply

    return answer


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Plain HTTP that a blocking function answers, in the threads of calls. path: with a slash at its end, the rest of
    the path is its parameter (`Request.rest`). answer: (request, body, caller, rights) -> reply; it may raise a
    DeciderError, which `fail` says. seconds: until it has failed."""

    path: str
    role: Role | None
    answer: Callable[[Request, bytes, Caller, Rights], Reply]
    fail: Callable[[status_pb2.Status], Reply]
    methods: Sequence[str] = ("POST",)
    seconds: float = LONGEST_CALL


def endpoint_routes(endpoints: Iterable[Endpoint], calls: Calls, guard: Guard, most_bytes: int) -> Mapping[str, Route]:
    """By path."""
    return {
        one.path: Route(one.methods, partial(_answer_endpoint, one, calls, guard, most_bytes), one.fail)
        for one in endpoints
    }


async def _answer_endpoint(one: Endpoint, calls: Calls, guard: Guard, most_bytes: int, request: Request) -> Reply:
    name, rights = guard.identify(request, one.role)
    caller = request.caller(one.seconds)
    body = await request.body(most_bytes)
    return await calls.run(partial(one.answer, request, body, caller, rights), caller, name)


@dataclass(frozen=True, slots=True)
class File:
    """Something that everybody may load, like the client for pages. Caches ask again whether it is another one."""

    path: str
    content_type: str
    content: bytes


def file_routes(files: Iterable[File]) -> Mapping[str, Route]:
    """By path."""
    return {one.path: Route(("GET", "HEAD"), _file_answer(one), public=True) for one in files}


def _file_answer(file: File) -> Callable[[Request], Awaitable[Reply]]:
    tag = b'"%s"' % hashlib.sha256(file.content).hexdigest()[:16].encode()
    headers = [(b"etag", tag), (b"cache-control", b"no-cache")]
    typed = [*headers, (b"content-type", file.content_type.encode())]

    async def answer(request: Request) -> Reply:
        if request.headers.get(b"if-none-match") == tag:
            return Reply(304, headers)
        return Reply(200, typed, file.content)

    return answer
