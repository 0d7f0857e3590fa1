"""sqlite3's exceptions as ours. Called by everything that talks to the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from decider.errors import LogBusy, LogCorrupt, LogError, LogFull
from decider.log.sqlite.holders import holders

SqliteError = sqlite3.Error | UnicodeDecodeError
"""The latter where SQLite's own message quotes damaged text."""

SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""The same, to catch."""


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """sqlite3's exceptions as ours."""
    try:
        yield
    except SQLITE_ERRORS as error:
        raise log_error(path, error) from error


def log_error(path: Path, error: SqliteError) -> LogError:
    """An exception of sqlite3 as ours, saying what to do."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_FULL"):
        return LogFull(f"{path}: no space left to write the log; free some, the server goes on by itself")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        who = ", ".join(holders(path))
        return LogBusy(
            f"{path}: another process keeps the log locked ({error}){f': {who}' if who else ''}; end its transaction"
        )
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")) or isinstance(error, UnicodeDecodeError):
        return LogCorrupt(f"{path}: damaged or not a log ({error}); restore a copy or name another file")
    return LogError(f"{path}: {error}")
