"""The Connect protocol: a call is a POST of JSON or protobuf, and so is its answer; errors are JSON with a code, a
message and details (connectrpc.com/docs/protocol). Called by `app.py`.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2

from decider.errors import DeciderError, InvalidArgument, Violation
from decider.log.protocol import Caller
from decider.server.methods import Method
from decider.server.roles import Rights
from decider.server.web.calls import Calls
from decider.server.web.exchange import Reply, Request
from decider.server.web.guard import Guard
from decider.server.web.json_messages import json_parser, to_json

LONGEST_CALL = 30.0
"""Seconds until a call without a deadline of its own has failed."""

JSON = (b"content-type", b"application/json")

_CODES: dict[int, tuple[str, int]] = {
    code_pb2.CANCELLED: ("canceled", 499),
    code_pb2.UNKNOWN: ("unknown", 500),
    code_pb2.INVALID_ARGUMENT: ("invalid_argument", 400),
    code_pb2.DEADLINE_EXCEEDED: ("deadline_exceeded", 504),
    code_pb2.NOT_FOUND: ("not_found", 404),
    code_pb2.ALREADY_EXISTS: ("already_exists", 409),
    code_pb2.PERMISSION_DENIED: ("permission_denied", 403),
    code_pb2.RESOURCE_EXHAUSTED: ("resource_exhausted", 429),
    code_pb2.FAILED_PRECONDITION: ("failed_precondition", 400),
    code_pb2.ABORTED: ("aborted", 409),
    code_pb2.OUT_OF_RANGE: ("out_of_range", 400),
    code_pb2.UNIMPLEMENTED: ("unimplemented", 501),
    code_pb2.INTERNAL: ("internal", 500),
    code_pb2.UNAVAILABLE: ("unavailable", 503),
    code_pb2.DATA_LOSS: ("data_loss", 500),
    code_pb2.UNAUTHENTICATED: ("unauthenticated", 401),
}
"""Name and status of HTTP."""


@dataclass(frozen=True, slots=True)
class Connect:
    """A way in: calls with one request and one reply, in one encoding. parser_of: makes what reads a request of a type;
    write: a reply. most_bytes: of a request."""

    content_type: bytes
    parser_of: Callable[[type[Message]], Callable[[bytes], Any]]
    write: Callable[[Any], bytes]
    calls: Calls
    guard: Guard
    most_bytes: int

    def answer_of(self, method: Method) -> Callable[[Request], Any]:
        """What answers calls of this method."""
        parse, headers, write = self.parser_of(method.request), [(b"content-type", self.content_type)], self.write

        def work(body: bytes, caller: Caller, rights: Rights) -> bytes:
            return write(method.answer(body, parse, caller, rights))

        async def answer(request: Request) -> Reply:
            try:
                name, rights = self.guard.identify(request, method.role)
                caller = request.caller(seconds_of(request))
                body = await request.body(self.most_bytes)
                reply = await self.calls.run(partial(work, body, caller, rights), caller, name)
            except DeciderError as error:
                method.refused(error)
                raise
            return Reply(200, headers, reply)

        return answer

    @staticmethod
    def fail(status: status_pb2.Status) -> Reply:
        """What a caller gets of an error."""
        _, number = _CODES.get(status.code, _CODES[code_pb2.UNKNOWN])
        return Reply(number, [JSON], json.dumps(error_json(status)).encode())


def connect_json(calls: Calls, guard: Guard, most_bytes: int) -> Connect:
    """Of JSON."""
    return Connect(JSON[1], json_parser, to_json, calls, guard, most_bytes)


def connect_proto(calls: Calls, guard: Guard, most_bytes: int) -> Connect:
    """Of protobuf."""
    return Connect(b"application/proto", lambda kind: kind.FromString, serialize, calls, guard, most_bytes)


def serialize(message: Message) -> bytes:
    """As protobuf."""
    content: bytes = message.SerializeToString()
    return content


def seconds_of(request: Request) -> float:
    """That its caller waits, by `Connect-Timeout-Ms`. Raises InvalidArgument."""
    text = request.headers.get(b"connect-timeout-ms")
    if text is None:
        return LONGEST_CALL
    if not text.isdigit() or len(text) > 10:
        raise InvalidArgument(
            [Violation("Connect-Timeout-Ms", "must be a whole number of milliseconds, 10 digits at most")]
        )
    return min(LONGEST_CALL, int(text) / 1000)


def error_json(status: status_pb2.Status) -> dict[str, Any]:
    """An error as Connect writes it."""
    name, _ = _CODES.get(status.code, _CODES[code_pb2.UNKNOWN])
    details = [{"type": one.TypeName(), "value": b64encode(one.value).rstrip(b"=").decode()} for one in status.details]
    return {"code": name, "message": status.message, **({"details": details} if details else {})}
