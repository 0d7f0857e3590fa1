"""Messages as JSON, as protobuf maps them. Called by `connect.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from decider.errors import InvalidArgument, Violation


def json_parser(kind: type[Message]) -> Callable[[bytes], Any]:
    """JSON -> message of this type. Raises InvalidArgument, also for a field that it does not have: one that is written
    wrong must not be lost in silence."""

    def parse(text: bytes) -> Any:
        try:
            return json_format.Parse(text or b"{}", kind())
        except (json_format.ParseError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidArgument([Violation("request", str(error))]) from error

    return parse


def to_json(message: Message) -> bytes:
    """Without fields that are not set."""
    text: str = json_format.MessageToJson(message, indent=None)
    return text.encode()
