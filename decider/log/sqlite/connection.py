"""Connections to a log's file, and transactions on them. Called by this room, `open.py` and `archive/`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection that writes nothing. Raises sqlite3.Error where there is no such file."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, timeout=5, check_same_thread=False)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All that the block writes, or nothing of it. The write lock is taken before the block reads anything."""
    connection.execute("begin immediate")
    try:
        yield connection
        connection.execute("commit")
    except BaseException:
        roll_back(connection)
        raise


def roll_back(connection: sqlite3.Connection) -> None:
    """End a transaction, if there is one: some errors of SQLite have ended it."""
    if connection.in_transaction:
        connection.execute("rollback")
