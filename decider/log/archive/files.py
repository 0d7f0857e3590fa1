"""Files of an archive, so that a full disk is told and nothing is lost with the power. Called by this room."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path

import pyarrow as pa

from decider.errors import LogCorrupt, LogError, LogFull


@contextmanager
def file_errors(folder: Path) -> Iterator[None]:
    """Exceptions of writing as ours, saying what to do."""
    try:
        yield
    except pa.ArrowInvalid as error:
        raise LogCorrupt(f"the log has a damaged value ({error}); `simulator verify` says where") from error
    except OSError as error:
        kind = LogFull if error.errno == errno.ENOSPC else LogError
        raise kind(f"{folder}: the archive cannot be written there ({error}); free space or choose another") from error


def write_text(path: Path, text: str) -> None:
    """A file with this content, on the disk. Raises OSError."""
    path.write_text(text, encoding="utf-8")
    sync(path)


def sync(path: Path) -> None:
    """A file's content, or a folder's names, on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """The checksum of a file, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
