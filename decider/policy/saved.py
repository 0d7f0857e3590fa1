"""A stored model, with the means to refuse it. Called by the log, which loads no policy, and by whoever makes one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SavedModel:
    """What a policy had learned. checksum: sha256 of data in hex; a damaged VW file often loads without a word."""

    signature: str
    checksum: str
    data: bytes
