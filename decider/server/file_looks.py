"""Where experiment files are, and what stands in them: read with care, since one file must not hold up the others.
Called by `files.py`, once a second, and by `decider validate`. Tokens and certificates are read with the same care.
"""

from __future__ import annotations

import errno
import hashlib
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

MAX_BYTES = 64 * 2**20
"""Of an experiment file. The definitions of all experiments together may not take much more memory."""


class Look(NamedTuple):
    """What a look at a file found. digest: of its content. age: seconds since it was written last, by the wall clock;
    below 0 where that lies in the future. text: empty where there is a problem."""

    digest: str
    age: float
    text: str = ""
    problem: str = ""


def find_files(paths: Sequence[Path]) -> Iterator[Path]:
    """Files as they were named; of a folder its `*.toml`, sorted. What is hidden belongs to editors and to copies that
    are under way: `.shop.toml.swp`, `.#shop.toml`, `.shop.toml.Xa93kd`."""
    for path in paths:
        if path.is_dir():
            yield from sorted(one for one in path.glob("*.toml") if not one.name.startswith("."))
        else:
            yield path


def look_at(path: Path) -> Look:
    """Never raises: what cannot be read has a problem."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # to read a named pipe would take for ever
            return _unreadable("is no regular file")
        if found.st_size > MAX_BYTES:
            return _unreadable(f"has {found.st_size} bytes; at most {MAX_BYTES} are read")
        content = path.read_bytes()
    except OSError as error:
        return _unreadable(str(error))
    digest, age = hashlib.sha256(content).hexdigest(), time.time() - found.st_mtime
    try:
        return Look(digest, age, content.decode())
    except UnicodeDecodeError as error:
        return Look(digest, age, problem=str(error))


def read_regular(path: Path, most: int) -> bytes:
    """So many of its bytes. Raises OSError, also for a named pipe, which would hold up whoever looks at it."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    with path.open("rb") as file:
        return file.read(most)


def _unreadable(problem: str) -> Look:
    return Look(problem, 0.0, problem=problem)
