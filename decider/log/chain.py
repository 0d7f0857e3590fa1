"""The checksum over a log, commit by commit. It proves that the log holds what was acknowledged.

    chain' = sha256(chain + first position + time + digest of the commit's rows)

so that a database can do it in the statement that appends. Called by the writers, the migrations and `check.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from decider.types import Position, Time

EMPTY = b""
"""The chain of an empty log."""

REFUSED_BITS = (1 << 62) - 1
"""Sums of refused rewards are taken modulo 2^62: two of them fit into a database's 64 bits."""

EntryRow = Sequence[Any]
"""The columns of an entry in the order of `tables.py`, without position and time."""


def _as_text(value: object) -> str:
    """Only a damaged row has values other than text, numbers and null; its text must differ from that of valid ones."""
    return f"damaged: {value!r}"


# The circular check looks at every list and finds nothing: rows hold plain values.
_to_json = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"), default=_as_text).encode


def digest(kinds: Sequence[str], rows: Sequence[EntryRow]) -> bytes:
    """The digest of a commit's rows, each with its kind.

    Floats must be floats and zero not negative, as a database gives them back: see `real`.
    """
    text = _to_json([[kind, *row] for kind, row in zip(kinds, rows, strict=True)])
    return sha256(text.encode("utf-8", "surrogateescape")).digest()  # a damaged text is read with surrogates


def _eight_bytes(value: int) -> bytes:
    """Of a position or a time. Of what only a damaged row has there: more than eight, as no valid one has."""
    return value.to_bytes(8, "big", signed=True) if isinstance(value, int) else _as_text(value).encode()


def link(chain: bytes, first: Position, time: Time, rows_digest: bytes) -> bytes:
    """The chain after a commit.

    >>> link(EMPTY, Position(1), Time(0), digest(["tick"], [()])).hex()[:16]
    '4f725b28666bfdde'
    """
    return sha256(chain + _eight_bytes(first) + _eight_bytes(time) + rows_digest).digest()


def start(position: Position, at: Time) -> bytes:
    """The first value in a log from before the chain, whose chain up to `position` is computed later, at `at`."""
    return sha256(b"chained later" + _eight_bytes(position) + _eight_bytes(at)).digest()


def real(value: float) -> float:
    """A number as a database gives it back: a float, and 0.0 for -0.0.

    >>> real(-0.0), real(1)
    (0.0, 1.0)
    """
    return float(value) + 0.0


def refused_sum(name: str, outcome: str) -> int:
    """What one refused reward adds to the sum of all."""
    return int.from_bytes(sha256(_to_json([name, outcome]).encode("utf-8", "surrogateescape")).digest()[:8], "big") & (
        REFUSED_BITS
    )
