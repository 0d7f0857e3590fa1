"""The right to lead a log in PostgreSQL: an advisory lock on a connection of its own. Called by `writer.py`.

The lock ends with the connection, also with one that is cut; whoever takes it raises the epoch. A commit of what only a
leader writes looks at the epoch in its own transaction (`check_epoch`) and holds it until it is committed: so a leader
that has lost its connection, and does not know it yet, can publish nothing once another one leads.
"""

from __future__ import annotations

from threading import Lock

import psycopg

from decider.errors import LogLocked
from decider.log.place import name_of
from decider.log.postgres.connection import Connection, connect, end_if_gone, postgres_errors, read_one

_KEY = "hashtextextended('decider leader ' || current_schema(), 0)"
_TRY = f"select pg_try_advisory_lock({_KEY}) as mine"
_HELD = "select 1 as alive"
_RAISE = "update lease set epoch = epoch + 1 returning epoch"
_CHECK = "select epoch from lease for share"


class PostgresLease:
    """See Lease. epoch: of this leader."""

    def __init__(self, url: str) -> None:
        self._name = name_of(url)
        self._lock = Lock()
        with postgres_errors(self._name):
            self._connection = connect(url)
            try:
                end_if_gone(self._connection)
                if not read_one(self._connection, _TRY)["mine"]:
                    raise LogLocked(f"{self._name}: another server writes this log")
                self.epoch: int = read_one(self._connection, _RAISE)["epoch"]
            except BaseException:
                self._connection.close()
                raise

    @property
    def held(self) -> bool:
        """See Lease. Asks PostgreSQL, over the connection that holds the lock."""
        with self._lock:
            try:
                return not self._connection.closed and read_one(self._connection, _HELD) is not None
            except psycopg.Error:
                self._connection.close()
                return False

    def release(self) -> None:
        """See Lease."""
        with self._lock:
            self._connection.close()


def check_epoch(connection: Connection, epoch: int, name: str) -> None:
    """In an open transaction: whether the leader with this epoch still leads, until the transaction is over. Raises
    LogLocked."""
    if read_one(connection, _CHECK)["epoch"] != epoch:
        raise LogLocked(f"{name}: another server writes this log since this one has lost its connection")
