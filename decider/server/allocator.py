"""The process's memory: the C library's allocator gives back what was freed, and Python's collector looks at what comes
and goes alone. Called by `process.py`, and at the end of a start.

By default glibc keeps it: once Vowpal Wabbit's first workspace is freed, it takes large blocks from the heap, where one
small block above them holds them all. Measured with 100 workspaces in turns, 189 MB of them in memory: the process took
325 MB more than without any; as it is set here 280 MB, and 240 MB after `give_back`, at the same speed.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from pathlib import Path

_C = ctypes.CDLL(None) if sys.platform == "linux" else None

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8

LARGE = 4_000_000
"""Bytes of a block that goes back as soon as it is freed: a workspace's weights, but no array of a regression's, which
come and go all the time."""

SPARE = 32_000_000
"""Bytes that the heap keeps at its end."""

ARENAS = 2
"""Heaps. Each keeps what it has, and Python's threads hardly ever ask at the same time."""


def set_up() -> None:
    """At the start. Elsewhere than with glibc nothing is done."""
    for option, value in ((M_MMAP_THRESHOLD, LARGE), (M_TRIM_THRESHOLD, SPARE), (M_ARENA_MAX, ARENAS)):
        _call("mallopt", option, value)


def give_back() -> None:
    """Free pages between blocks that are in use, too: some milliseconds."""
    _call("malloc_trim", 0)


def keep_what_is_there() -> None:
    """At the end of a start: a full collection no longer looks at the objects of libraries, which stay as long as the
    process. It took 40 ms, in which no call was answered, once a second under load; now 1 ms."""
    gc.collect()  # what is frozen is never collected
    gc.freeze()


def resident_bytes() -> int:
    """What the process takes now; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _call(function: str, *arguments: int) -> None:
    if hasattr(_C, function):
        getattr(_C, function)(*arguments)
