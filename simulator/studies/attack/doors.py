"""How a call is written for the web port, and how its answer is read: Connect, gRPC-Web, and what beacons send. Called
by `frontends.py`.

Errors are told in several ways: a status of HTTP, a trailer in the body. `Answer.good` is what a client would take for
one that was answered.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2

assert error_details_pb2, "the JSON of an error is read where its details are known"

TRAILER = 0x80
"""Of a frame of gRPC-Web that holds trailers; and of Connect's, 0x02."""

FRAME_HEAD = 5

Headers = Sequence[tuple[str, str]]


class Answer(NamedTuple):
    """status: of HTTP. body: unzipped."""

    status: int
    headers: Headers
    body: bytes

    @property
    def pieces(self) -> Sequence[bytes | str]:
        """All that came back."""
        return [self.body, *(part for pair in self.headers for part in pair)]

    def header(self, name: str) -> str | None:
        """The first one with that name, in lower case."""
        return next((text for key, text in self.headers if key.lower() == name), None)


class Sent(NamedTuple):
    """What stands in a request, but for who sends it."""

    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Door:
    """A protocol. write: a request. read: the reply of an answer that is good, as bytes of protobuf; None: an error."""

    name: str
    write: Callable[[Message], Sent]
    read: Callable[[Answer, type[Message]], bytes | None]


def framed(message: bytes, flags: int = 0) -> bytes:
    """As gRPC and Connect's streams have it."""
    return bytes([flags]) + len(message).to_bytes(4, "big") + message


def frames_of(body: bytes) -> list[tuple[int, bytes]]:
    """(flags, content) of each; what is cut off is left out."""
    found, at = [], 0
    while at + FRAME_HEAD <= len(body):
        end = at + FRAME_HEAD + int.from_bytes(body[at + 1 : at + FRAME_HEAD], "big")
        found.append((body[at], body[at + FRAME_HEAD : end]))
        at = end
    return found


def _json(message: Message) -> bytes:
    text: str = json_format.MessageToJson(message, indent=None)
    return text.encode()


def _read_json(answer: Answer, kind: type[Message]) -> bytes | None:
    if answer.status != 200:
        return None
    with suppress(json_format.ParseError, UnicodeDecodeError):
        content: bytes = json_format.Parse(answer.body, kind(), ignore_unknown_fields=True).SerializeToString()
        return content
    return answer.body


def _read_proto(answer: Answer, _: type[Message]) -> bytes | None:
    return answer.body if answer.status == 200 else None


def _read_grpc_web(answer: Answer, _: type[Message]) -> bytes | None:
    if answer.status != 200 or (answer.header("grpc-status") or "0") != "0":
        return None
    text = (answer.header("content-type") or "").startswith("application/grpc-web-text")
    parts = frames_of(base64.b64decode(answer.body + b"==") if text else answer.body)
    trailers = b"".join(content for flags, content in parts if flags & TRAILER)
    if b"grpc-status" in trailers and b"grpc-status:0" not in trailers.replace(b" ", b""):
        return None
    return b"".join(content for flags, content in parts if not flags & TRAILER)


CONNECT_JSON = Door("Connect, JSON", lambda one: Sent("application/json", _json(one)), _read_json)
BEACON = Door("beacon", lambda one: Sent("text/plain;charset=UTF-8", _json(one)), _read_json)
DOORS: Sequence[Door] = (
    CONNECT_JSON,
    Door("Connect, binary", lambda one: Sent("application/proto", one.SerializeToString()), _read_proto),
    Door("gRPC-Web", lambda one: Sent("application/grpc-web+proto", framed(one.SerializeToString())), _read_grpc_web),
    Door(
        "gRPC-Web, text",
        lambda one: Sent("application/grpc-web-text", base64.b64encode(framed(one.SerializeToString()))),
        _read_grpc_web,
    ),
    BEACON,
)
STREAM = Door(
    "Connect, stream",
    lambda one: Sent("application/connect+json", framed(_json(one))),
    lambda answer, _: None if answer.status != 200 or _is_stream_error(answer.body) else answer.body,
)
"""For methods that answer with a stream."""


def _is_stream_error(body: bytes) -> bool:
    """Whether its last frame says so."""
    ends = [content for flags, content in frames_of(body) if flags & 0x02]
    with suppress(ValueError):
        return any("error" in json.loads(content) for content in ends)
    return False


def unzipped(body: bytes) -> bytes:
    """As far as it is gzip."""
    if body.startswith(b"\x1f\x8b"):
        with suppress(OSError, EOFError):
            return gzip.decompress(body)
    return body
