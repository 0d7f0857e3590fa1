"""The Connect protocol: a call is a POST of JSON or protobuf, and so is its answer; errors are JSON with a code, a
message and details (connectrpc.com/docs/protocol). Called by `routes.py`.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import code_pb2, error_details_pb2, status_pb2

from decider.errors import InvalidArgument, Violation
from decider.log.protocol import Caller
from decider.server.methods import Method
from decider.server.roles import Rights
from decider.server.web import compression
from decider.server.web.codecs import Codec
from decider.server.web.exchange import Headers, Reply, Request
from decider.server.web.intake import LONGEST_CALL, WebIntake

JSON_HEAD = (b"content-type", b"application/json")

CODES: dict[int, tuple[str, int]] = {
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
"""Name of an error, and HTTP's status."""

LONGEST_TIMEOUT = 10
"""Digits."""

READABLE = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
"""Details that a person gets as JSON, too."""


@dataclass(frozen=True, slots=True)
class ConnectUnary:
    """Calls with one request and one reply, each the body of HTTP as it is."""

    codec: Codec
    intake: WebIntake

    def answer_of(self, method: Method) -> Callable[[Request], Awaitable[Reply]]:
        """What answers calls of this method. Raises DeciderError, Refused."""
        parse, head = self.codec.parser_of(method.request), (b"content-type", b"application/" + self.codec.name)
        plain: Headers = [head]
        packed: Headers = [head, (b"content-encoding", compression.GZIP)]
        write, intake = self.codec.write, self.intake

        async def answer(request: Request) -> Reply:
            headers = request.headers
            reads_gzip = compression.takes_gzip(headers.get(b"accept-encoding", b""))
            encoding = headers.get(b"content-encoding", b"")

            def work(body: bytes, caller: Caller, rights: Rights) -> Reply:
                read = compression.unpacking(parse, encoding, intake.most_of(rights)) if encoding else parse
                content = write(method.answer(body, read, caller, rights))
                if reads_gzip and len(content) >= compression.SMALLEST:
                    return Reply(200, packed, compression.compress(content))
                return Reply(200, plain, content)

            return await intake.call(request, method.role, work, seconds=timeout(request), refused=method.refused)

        return answer

    @staticmethod
    def fail(status: status_pb2.Status) -> Reply:
        """What a caller gets of an error."""
        _, number = CODES.get(status.code, CODES[code_pb2.UNKNOWN])
        return Reply(number, [JSON_HEAD], json.dumps(error_json(status)).encode())


def timeout(request: Request) -> float:
    """Seconds that its caller waits, by `Connect-Timeout-Ms`. Raises InvalidArgument."""
    text = request.headers.get(b"connect-timeout-ms")
    if text is None:
        return LONGEST_CALL
    if not text.isdigit() or len(text) > LONGEST_TIMEOUT:
        raise InvalidArgument(
            [Violation("Connect-Timeout-Ms", f"must be milliseconds, at most {LONGEST_TIMEOUT} digits")]
        )
    return int(text) / 1000


def error_json(status: status_pb2.Status) -> dict[str, Any]:
    """An error as Connect writes it."""
    name, _ = CODES.get(status.code, CODES[code_pb2.UNKNOWN])
    details = [_detail(one) for one in status.details]
    return {"code": name, "message": status.message, **({"details": details} if details else {})}


def _detail(packed: Packed) -> dict[str, Any]:
    """`debug` is for people: programs read the value."""
    found: dict[str, Any] = {"type": packed.TypeName(), "value": b64encode(packed.value).rstrip(b"=").decode()}
    for kind in READABLE:
        message = kind()
        if packed.Unpack(message):
            found["debug"] = json_format.MessageToDict(message)
    return found
