"""Where the policies are that were evicted from memory: a nameless SQLite file in the system's folder for temporary
files, which is gone when the process ends, however it ends. See `policy/memory.py`. Made by the server.
"""

from __future__ import annotations

import sqlite3
import threading

from decider.errors import LogFull
from decider.log.sqlite.errors import SQLITE_ERRORS


class EvictedPolicies:
    """See `Storage`. One thread at a time. Raises LogFull where there is no room."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # a file: "" is not ":memory:"
        self._file.execute("pragma synchronous = off")
        self._file.execute("create table evicted (key integer primary key, data blob not null)")

    def put(self, key: int, data: bytes) -> None:
        """See `Storage`."""
        self._execute("insert or replace into evicted values (?, ?)", (key, data))

    def get(self, key: int) -> bytes:
        """See `Storage`."""
        data: bytes = self._execute("select data from evicted where key = ?", (key,))[0][0]
        return data

    def delete(self, key: int) -> None:
        """See `Storage`."""
        self._execute("delete from evicted where key = ?", (key,))

    def count(self) -> int:
        """How many there are."""
        return int(self._execute("select count(*) from evicted", ())[0][0])

    def _execute(self, sql: str, row: tuple[object, ...]) -> list[tuple[bytes]]:
        try:
            with self._lock:
                return self._file.execute(sql, row).fetchall()
        except SQLITE_ERRORS as error:
            raise LogFull(f"the system's folder for temporary files: {error}; SQLITE_TMPDIR names another") from error

    def close(self) -> None:
        """Delete the file."""
        self._file.close()
