"""Stored models in any database: their bytes, and which of them go. Called by the model stores."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

NEWEST, MOST = 100, 200
"""Models of an experiment: the newest are all kept, and of the others one an hour, up to so many. Small ones are stored
twice a second, and each store looks at all."""

AT_ONCE = 50
"""Models that one store deletes, at most: a log of an older build may have thousands."""

HOUR = 3_600_000_000
"""Microseconds."""

_COMPRESSED = b"zlib "
"""Before the data of a compressed model; models that older builds stored are not compressed."""

LEVEL = 1
"""Of zlib: models shrink to a sixth at 100 MB/s; more effort brings a tenth of that."""


def surplus(models: Sequence[Any], keep_bytes: int, newest: set[str]) -> Iterator[Any]:
    """Of an experiment's models, from the newest on, those to be deleted. newest: signatures of which one stays."""
    size, kept, hours = 0, 0, set[int]()
    for row in models:
        hour = row["created"] // HOUR
        needed = row["complete"] and row["signature"] in newest
        crowded = kept >= MOST or (kept >= NEWEST and hour in hours) or size + row["size"] > keep_bytes
        if not row["complete"] or (crowded and not needed):
            yield row
            continue
        size, kept = size + row["size"], kept + 1
        hours.add(hour)
        newest.discard(row["signature"])


def compress(data: bytes) -> bytes:
    """Data of a model as it is stored."""
    smaller = _COMPRESSED + zlib.compress(data, LEVEL)
    return smaller if len(smaller) < len(data) or data.startswith(_COMPRESSED) else data


def read_whole(stored: Sequence[bytes], checksum: str) -> bytes | None:
    """The data of a model from its pieces; None where one is missing or damaged.

    >>> read_whole([compress(b"weights " * 99)], sha256(b"weights " * 99).hexdigest()) == b"weights " * 99
    True
    """
    data = b"".join(stored)
    try:
        whole = zlib.decompress(data.removeprefix(_COMPRESSED)) if data.startswith(_COMPRESSED) else data
    except zlib.error:
        return None
    return whole if sha256(whole).hexdigest() == checksum else None
