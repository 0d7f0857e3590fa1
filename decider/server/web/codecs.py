"""How messages are written: as JSON or as protobuf. Called by the protocols in this folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from google.protobuf.message import Message

from decider.server.web.json_messages import json_parser, to_json


class Codec(NamedTuple):
    """name: as content types have it. parser_of: makes what reads messages of a type, see `rpc.Parse`."""

    name: bytes
    parser_of: Callable[[type[Message]], Callable[[bytes], Any]]
    write: Callable[[Message], bytes]


def _serialize(message: Message) -> bytes:
    content: bytes = message.SerializeToString()
    return content


JSON = Codec(b"json", json_parser, to_json)
PROTO = Codec(b"proto", lambda kind: kind.FromString, _serialize)
