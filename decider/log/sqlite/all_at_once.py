"""A file that gets many rows at once: what SQLite would do for each row is done at the end. Called by
`archive/restore.py` and `transfer.py`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

_MADE = "select name, sql from sqlite_master where type = ? and sql is not null"


@contextmanager
def without_indexes(connection: sqlite3.Connection) -> Iterator[None]:
    """Indexes are made at the end: that is faster than to extend them row by row."""
    with _without(connection, "index"):
        yield


@contextmanager
def without_triggers(connection: sqlite3.Connection) -> Iterator[None]:
    """For rows that were written once, and bring with them what the triggers would write."""
    with _without(connection, "trigger"):
        yield


@contextmanager
def _without(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    found = connection.execute(_MADE, (kind,)).fetchall()
    for name, _ in found:
        connection.execute(f"drop {kind} {name}")
    yield
    for _, sql in found:
        connection.execute(sql)
