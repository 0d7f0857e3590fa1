"""Who keeps a database locked, as far as the operating system tells. Called by `errors.py`, for its words."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

LOCKS = Path("/proc/locks")
"""Linux's list of all locks on files; nothing is told elsewhere, and of processes that this one cannot see."""


def holders(database: Path) -> Sequence[str]:
    """Processes that have a write lock of SQLite on a database: `process 4711 (sqlite3)`.

    Only names of programs: what stands behind them in a command line may be secret.
    """
    # The files are not opened: to close one would drop SQLite's own locks on it in this process.
    wanted = {_key(path) for path in (database, Path(f"{database}-shm")) if path.exists()}
    try:
        lines = LOCKS.read_text().splitlines()
    except OSError:
        return []
    pids = dict.fromkeys(pid for line in lines for pid, key in _parse(line) if key in wanted and pid != os.getpid())
    return [f"process {pid}{_program(pid)}" for pid in pids]


def _key(path: Path) -> str:
    """As the list names a file.

    >>> _key(Path("/")).count(":")
    2
    """
    found = path.stat()
    return f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"


def _parse(line: str) -> Iterator[tuple[int, str]]:
    """The process and the file of a write lock of a process; nothing of others, and of who waits for one.

    >>> [*_parse("1: POSIX  ADVISORY  WRITE 4711 08:01:1234 120 120")]
    [(4711, '08:01:1234')]
    >>> waiting = "1: -> POSIX  ADVISORY  WRITE 4711 08:01:1234 120 120"
    >>> [*_parse(waiting), *_parse("2: OFDLCK ADVISORY  READ -1 08:01:1 0 9")]
    []
    """
    match line.split():
        case [_, "POSIX", _, "WRITE", pid, key, *_] if int(pid) > 0:
            yield int(pid), key


def _program(pid: int) -> str:
    try:
        return f" ({Path(f'/proc/{pid}/comm').read_text().strip()})"
    except OSError:
        return ""
