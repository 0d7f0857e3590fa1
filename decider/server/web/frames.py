"""Messages in frames: streams over Connect, and all of gRPC-Web, whose trailers are the last frame of the body. Called
by `routes.py`.

A frame is a byte of flags, four bytes of length, and content. See connectrpc.com/docs/protocol, and PROTOCOL-WEB.md of
grpc/grpc.
"""

from __future__ import annotations

import json
import re
import struct
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from decider.errors import InvalidArgument, Violation
from decider.log.protocol import Caller
from decider.server.methods import Method, StreamMethod
from decider.server.roles import Rights
from decider.server.rpc import UNPARSABLE
from decider.server.web import compression, connect
from decider.server.web.codecs import Codec
from decider.server.web.exchange import Reply, Request, header
from decider.server.web.intake import LONGEST_CALL, WebIntake
from decider.server.web.streams import WebStream

_HEAD = struct.Struct(">BI")

COMPRESSED, END, TRAILERS = 0x01, 0x02, 0x80
"""Flags of a frame: its content is packed; it ends a stream of Connect; it has the trailers of gRPC-Web."""

_AS_IT_IS = "".join([chr(code) for code in range(0x20, 0x7F) if chr(code) != "%"])
"""Characters of grpc-message that are not quoted."""

_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_GRPC_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")


def frame(content: bytes, flags: int = 0) -> bytes:
    """Of this content.

    >>> frame(b"ab").hex()
    '00000000026162'
    """
    return _HEAD.pack(flags, len(content)) + content


def only_message(body: bytes, encoding: bytes, most: int) -> bytes:
    """The content of the one frame of a request. encoding: of packed frames. Raises InvalidArgument, LimitReached,
    NotAnsweredHere."""
    if len(body) < _HEAD.size:
        raise _no_frame()
    flags, length = _HEAD.unpack_from(body)
    if flags & ~COMPRESSED or length != len(body) - _HEAD.size:
        raise _no_frame()
    content = body[_HEAD.size :]
    read = compression.unpacking(bytes, encoding if flags else b"", most)
    return bytes(read(content))


def _no_frame() -> InvalidArgument:
    return InvalidArgument([Violation("request", "must be one frame: a byte of flags, four of length, the message")])


def connect_end(status: status_pb2.Status) -> bytes:
    """The last frame of a stream over Connect."""
    return frame(json.dumps({"error": connect.error_json(status)} if status.code else {}).encode(), END)


def grpc_web_end(status: status_pb2.Status) -> bytes:
    """The trailers of gRPC-Web."""
    lines = [f"grpc-status: {status.code}"]
    if status.message:
        lines.append(f"grpc-message: {quote(status.message, safe=_AS_IT_IS)}")
    if status.details:
        lines.append(f"grpc-status-details-bin: {b64encode(status.SerializeToString()).rstrip(b'=').decode()}")
    return frame("".join(f"{line}\r\n" for line in lines).encode(), TRAILERS)


def grpc_timeout(request: Request) -> float | None:
    """Seconds that its caller waits, by `grpc-timeout`; None: it does not say. Raises InvalidArgument."""
    text = header(request, b"grpc-timeout")
    if not text:
        return None
    found = _GRPC_TIMEOUT.fullmatch(text)
    if found is None:
        raise InvalidArgument([Violation("grpc-timeout", "must be at most 8 digits and one of H, M, S, m, u, n")])
    return int(found[1]) * _UNITS[found[2]]


def connect_timeout(request: Request) -> float | None:
    """As `grpc_timeout`, by `Connect-Timeout-Ms`."""
    return connect.timeout(request) if b"connect-timeout-ms" in request.headers else None


def _decode_text(body: bytes) -> bytes:
    """base64, in one piece or in several that are padded each. Raises InvalidArgument."""
    try:
        return b"".join([b64decode(piece, validate=True) for piece in re.findall(rb"[^=]+=*", body)])
    except ValueError:
        raise InvalidArgument([Violation("request", "must be base64")]) from None


def _same(content: bytes) -> bytes:
    return content


@dataclass(frozen=True, slots=True)
class Framed:
    """A protocol of frames. content_type: of replies. encoding: the header that names the compression of frames.
    seconds: that a caller waits. end: the last frame. read, write: what the body is beyond frames."""

    content_type: bytes
    codec: Codec
    intake: WebIntake
    encoding: bytes
    seconds: Callable[[Request], float | None]
    end: Callable[[status_pb2.Status], bytes]
    read: Callable[[bytes], bytes] = _same
    write: Callable[[bytes], bytes] = _same

    def answer_of(self, method: Method | StreamMethod) -> Callable[[Request], Awaitable[Reply]]:
        """What answers calls of this method. Raises DeciderError, Refused."""
        if isinstance(method, StreamMethod):
            return partial(self._stream, method)
        return partial(self._call, method)

    def fail(self, status: status_pb2.Status) -> Reply:
        """What a caller gets of an error."""
        return self._reply(self.write(self.end(status)))

    def _reply(self, body: bytes | AsyncIterator[bytes]) -> Reply:
        return Reply(200, [(b"content-type", self.content_type)], body)

    async def _call(self, method: Method, request: Request) -> Reply:
        parse = self.codec.parser_of(method.request)

        def work(body: bytes, caller: Caller, rights: Rights) -> bytes:
            read = self._reader(request, parse, rights)
            return self.codec.write(method.answer(body, read, caller, rights))

        seconds = self.seconds(request)
        content = await self.intake.call(
            request,
            method.role,
            work,
            seconds=LONGEST_CALL if seconds is None else seconds,
            refused=method.refused,
        )
        return self._reply(self.write(frame(content) + self.end(status_pb2.Status())))

    def _reader(self, request: Request, parse: Callable[[bytes], Any], rights: Rights) -> Callable[[bytes], Any]:
        """Of the body of a request."""
        encoding, most = request.headers.get(self.encoding, b""), self.intake.most_of(rights)
        return lambda body: parse(only_message(self.read(body), encoding, most))

    async def _stream(self, method: StreamMethod, request: Request) -> Reply:
        caller, rights = self.intake.guard.identify(request, method.role)
        seconds = self.seconds(request)
        parse = self._reader(request, self.codec.parser_of(method.request), rights)
        body = await self.intake.body(request, caller, rights)
        try:
            message = parse(body)
        except DecodeError as error:
            raise InvalidArgument([Violation("request", UNPARSABLE)]) from error
        look = partial(self.intake.guard.look_again, request, method.role)
        stream = self.intake.streams.open(caller, rights, look)
        if seconds is not None:
            stream.end_after(seconds)
        method.answer(stream, message.SerializeToString())
        return self._reply(self._pieces(method, stream, request))

    async def _pieces(self, method: StreamMethod, stream: WebStream, request: Request) -> AsyncIterator[bytes]:
        from_bytes, write = method.reply.FromString, self.codec.write
        pieces = stream.pieces(request, lambda content: frame(write(from_bytes(content))), self.end)
        async with aclosing(pieces):
            async for piece in pieces:
                yield self.write(piece)


def connect_stream(codec: Codec, intake: WebIntake) -> Framed:
    """Streams over Connect."""
    kind = b"application/connect+" + codec.name
    return Framed(kind, codec, intake, b"connect-content-encoding", connect_timeout, connect_end)


def grpc_web(codec: Codec, intake: WebIntake) -> Framed:
    """gRPC-Web."""
    kind = b"application/grpc-web+" + codec.name
    return Framed(kind, codec, intake, b"grpc-encoding", grpc_timeout, grpc_web_end)


def grpc_web_text(codec: Codec, intake: WebIntake) -> Framed:
    """gRPC-Web for browsers that give no bytes of a reply that is not over yet: all in base64."""
    kind = b"application/grpc-web-text+" + codec.name
    return Framed(kind, codec, intake, b"grpc-encoding", grpc_timeout, grpc_web_end, read=_decode_text, write=b64encode)
