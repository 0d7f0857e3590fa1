"""gzip both ways, bounded: some bytes that unpack to gigabytes cost no more than a large request. Called by the
protocols in this folder."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from typing import Any

from decider.errors import InvalidArgument, LimitReached, NotAnsweredHere, Violation

GZIP, IDENTITY = b"gzip", b"identity"

SMALLEST = 1_024
"""Bytes of a reply that is compressed: less than this fits into one packet anyway."""

LEVEL = 5
"""Of zlib; a reply of 20 KB takes 0.2 ms."""

_GZIP_HEAD = 16 + zlib.MAX_WBITS


def gunzip(packed: bytes, most: int) -> bytes:
    """The content. Raises LimitReached above so many bytes, InvalidArgument where it is no gzip, or not all of it."""
    unpacking = zlib.decompressobj(_GZIP_HEAD)
    try:
        content = unpacking.decompress(packed, most + 1)
    except zlib.error:
        raise InvalidArgument([Violation("request", "is said to be gzip, and is not")]) from None
    if len(content) > most:
        raise LimitReached(
            f"the request unpacks to more than {most:,} bytes, as many as --max-request-bytes or a page's key allows"
        )
    if not unpacking.eof or unpacking.unused_data:
        raise InvalidArgument([Violation("request", "is said to be gzip, and is not, or not all of it")])
    return content


def unpacking(parse: Callable[[bytes], Any], encoding: bytes, most: int) -> Callable[[bytes], Any]:
    """The same reader, of what is packed like this; it raises NotAnsweredHere for a compression that is not known."""
    if encoding in (b"", IDENTITY):
        return parse

    def unpack(packed: bytes) -> Any:
        if encoding != GZIP:
            raise NotAnsweredHere("the request's compression is not known here; send gzip, or none", reason="ENCODING")
        return parse(gunzip(packed, most))

    return unpack


def takes_gzip(accepted: bytes) -> bool:
    """Whether who sends this `Accept-Encoding` reads gzip.

    >>> takes_gzip(b"br, gzip;q=1.0"), takes_gzip(b"identity"), takes_gzip(b"gzip;q=0")
    (True, False, False)
    """
    if GZIP not in accepted:
        return False
    for one in accepted.split(b","):
        name, _, weight = one.strip().partition(b";")
        if name.strip() == GZIP:
            return weight.replace(b" ", b"") not in (b"q=0", b"q=0.0")
    return False


def compress(content: bytes) -> bytes:
    """As gzip; the same bytes at any time."""
    return gzip.compress(content, LEVEL, mtime=0)
