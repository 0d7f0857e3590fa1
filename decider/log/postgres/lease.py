"""The right to lead a log in PostgreSQL: an advisory lock on a connection of its own. Called by `writer.py`.

The lock ends with the connection. PostgreSQL ends one that is cut off, or whose process stands still, after a few
seconds without a heartbeat. Whoever takes the lock raises the epoch. A commit of what only a leader writes looks at the
epoch in its own transaction (`check_epoch`) and holds it until it is committed: so a leader that has lost its
connection, and does not know it yet, can publish nothing once another one leads.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from threading import Event, Lock, Thread

import psycopg

from decider.errors import LogError, LogLocked
from decider.log.place import name_of
from decider.log.postgres.connection import Connection, connect, end_if_gone, postgres_errors, read_one

logger = logging.getLogger(__name__)

HEARTBEAT = 0.5
"""Seconds between two signs of life; also between two tries to lead again after a lost connection."""

LEASE_SECONDS = 2.5
"""Without a sign of life, after which PostgreSQL ends the lock's connection."""

ANSWER_SECONDS = 2.0
"""For which a heartbeat waits for an answer."""

_KEY = "hashtextextended('decider leader ' || current_schema(), 0)"
_TRY = f"select pg_try_advisory_lock({_KEY}) as mine"
_LED = f"""
select exists (select 1 from pg_locks l join pg_database d on d.oid = l.database
  where l.locktype = 'advisory' and l.objsubid = 1 and l.granted and d.datname = current_database()
    and ((l.classid::bigint << 32) | l.objid::bigint) = {_KEY}) as led,
  has_table_privilege('lease', 'update') as may_lead
"""  # noqa: S608 - our names
_HELD = "select 1 as alive"
_RAISE = "update lease set epoch = epoch + 1 returning epoch"
_RAISE_AGAIN = "update lease set epoch = epoch + 1 where epoch = %(epoch)s returning epoch"
_EPOCH = "select epoch from lease"
_CHECK = "select epoch from lease for share"


class PostgresLease:
    """See Lease. epoch: of this leader. A connection that was lost is made again, and goes on where nobody has led
    since. replaced: somebody has."""

    def __init__(self, url: str) -> None:
        self._url, self._name = url, name_of(url)
        self._lock, self._ended = Lock(), Event()
        self.replaced = False
        with ExitStack() as taken, postgres_errors(self._name):
            connection = self._take()
            if connection is None:
                raise LogLocked(
                    f"{self._name}: another server writes this log; beside it serve by `decider serve --workers N`"
                )
            taken.callback(connection.close)
            self._connection = connection
            self.epoch: int = read_one(connection, _RAISE)["epoch"]
            taken.pop_all()
        Thread(target=self._beat, name="lease", daemon=True).start()

    def _take(self) -> Connection | None:
        """A connection that has the lock; None where another one has it. Raises psycopg.Error."""
        connection = connect(self._url, most_seconds=ANSWER_SECONDS)
        try:
            end_if_gone(connection)
            connection.execute(f"set idle_session_timeout = {LEASE_SECONDS * 1000:.0f}".encode())
            if read_one(connection, _TRY)["mine"]:
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
        return None

    @property
    def held(self) -> bool:
        """See Lease. Asks PostgreSQL, over the connection that holds the lock."""
        with self._lock:
            try:
                return not self._connection.closed and read_one(self._connection, _HELD) is not None
            except psycopg.Error as error:
                self._connection.close()
                if not self._ended.is_set():
                    logger.warning("%s: the leader's connection is lost, another one may lead: %s", self._name, error)
                return False

    def _beat(self) -> None:
        while not (self.replaced or self._ended.wait(HEARTBEAT)):
            if not self.held:
                self._lead_again()

    def _lead_again(self) -> None:
        try:
            connection = self._take()
            if connection is None:  # maybe the lost one of this process, which PostgreSQL ends soon
                self._look_for_another()
                return
            self._go_on(connection)
        except (psycopg.Error, LogError):
            return  # the next heartbeat tries again

    def _go_on(self, connection: Connection) -> None:
        """With another connection that has the lock, if nobody has led since. Raises psycopg.Error."""
        with ExitStack() as taken:
            taken.callback(connection.close)
            raised = read_one(connection, _RAISE_AGAIN, {"epoch": self.epoch})
            with self._lock:
                self.replaced = raised is None
                if raised is not None and not self._ended.is_set():
                    taken.pop_all()
                    self._connection, self.epoch = connection, raised["epoch"]
                    logger.warning("%s: leads again; nobody else has led since", self._name)

    def _look_for_another(self) -> None:
        connection = connect(self._url, most_seconds=ANSWER_SECONDS)
        with connection:
            self.replaced = read_one(connection, _EPOCH)["epoch"] != self.epoch

    def release(self) -> None:
        """See Lease."""
        self._ended.set()
        with self._lock:
            self._connection.close()


def is_led(connection: Connection) -> tuple[bool, bool]:
    """Whether some process leads, and whether this user may."""
    row = read_one(connection, _LED)
    return row["led"], row["may_lead"]


def check_epoch(connection: Connection, epoch: int, name: str) -> None:
    """In an open transaction: whether the leader with this epoch still leads, until the transaction is over. Raises
    LogLocked."""
    if read_one(connection, _CHECK)["epoch"] != epoch:
        raise LogLocked(f"{name}: another server writes this log since this one has lost its connection")
