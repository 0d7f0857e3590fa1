"""Connections to PostgreSQL: texts, rows, errors, and a pool of those that read. Called by the whole room.

PostgreSQL's text holds every character but U+0000, which unit ids and contexts may have: `to_text` writes it in another
way, and reading takes that back.
"""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from functools import lru_cache
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.numeric import Int8Dumper

from decider.errors import LogError, LogFull, LogUnreachable
from decider.log.place import UNREADABLE, name_of
from decider.log.rows import RowType


class NoAnswer(psycopg.OperationalError):
    """PostgreSQL did not answer in time; a new connection may wait as long in vain."""


class Connection(psycopg.Connection[tuple[Any, ...]]):
    """One whose statements end: where PostgreSQL gives no answer for so long, the connection counts as lost."""

    most_seconds: float | None = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """See psycopg."""
        most = timeout or self.most_seconds
        if most is None:
            return super().wait(gen, interval)
        thread = threading.get_ident()
        _ASKED[thread] = time.monotonic()
        try:
            return super().wait(gen, interval, most)
        except psycopg.errors._WaitTimeout as error:
            self.pgconn.finish()
            raise NoAnswer(f"no answer for {most:g} s") from error
        finally:
            _ASKED.pop(thread, None)


_ASKED: dict[int, float] = {}
"""The threads that wait for an answer, and since when; of those whose wait ends."""

SLOW_SECONDS = 1.0
"""Without an answer, after which PostgreSQL is what a process waits for."""


def waits() -> bool:
    """Whether a thread of this process waits for an answer of PostgreSQL that takes long."""
    return any(time.monotonic() - since > SLOW_SECONDS for since in [*_ASKED.values()])


Parameters = Mapping[str, Any]

NOTHING: Parameters = {}

CONNECT_SECONDS = 5
"""For which a new connection waits for the server."""

STATEMENT_SECONDS = 30.0
"""For which a statement of a server waits for an answer: PostgreSQL may stand still, with its machine up."""

DIAL_INTERVAL = 0.1
"""Seconds between two tries to connect where the last one failed."""

ESCAPE, _NUL = "\x1a", "\x00"

_DEFAULTS: dict[str, Any] = {
    "connect_timeout": CONNECT_SECONDS,
    "application_name": "decider",
    "keepalives_idle": 2,  # seconds; a server that is gone without a word is noticed after about 5
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5_000,  # milliseconds
}


def to_text(text: str) -> str:
    """A text as it is stored.

    >>> to_text("a\\0b"), to_text("\\x1a") == "\\x1a1", to_text("plain")
    ('a\\x1a0b', True, 'plain')
    """
    if ESCAPE in text or _NUL in text:
        return text.replace(ESCAPE, ESCAPE + "1").replace(_NUL, ESCAPE + "0")
    return text


def from_text(text: str) -> str:
    """The text as it was.

    >>> from_text(to_text("a\\0b\\x1a1\\x1a")) == "a\\0b\\x1a1\\x1a"
    True
    """
    return text.replace(ESCAPE + "0", _NUL).replace(ESCAPE + "1", ESCAPE) if ESCAPE in text else text


def to_stored(value: Any) -> Any:
    """A parameter as it is stored: a text, a list with texts, or anything else."""
    if isinstance(value, str):
        return to_text(value)
    return [to_stored(one) for one in value] if isinstance(value, list) else value


def _from_stored(row: Sequence[Any]) -> Sequence[Any]:
    return [from_text(value) if type(value) is str else value for value in row]


class Row(tuple[Any, ...]):
    """A row whose columns are read by number or by name, as those of SQLite."""

    __slots__ = ()
    _places: Mapping[str, int] = {}

    def __getitem__(self, column: Any) -> Any:
        return super().__getitem__(self._places[column] if isinstance(column, str) else column)


@lru_cache(500)
def _row_of(columns: tuple[str, ...]) -> type[Row]:
    places = {name: place for place, name in enumerate(columns)}
    return type("Row", (Row,), {"__slots__": (), "_places": places})


def _make(cursor: psycopg.Cursor[Any], row: RowType | None) -> Callable[[Sequence[Any]], Any]:
    return row.make if row is not None else _row_of(tuple([one.name for one in cursor.description or ()]))


def read(connection: Connection, sql: str, values: Parameters = NOTHING, row: RowType | None = None) -> list[Any]:
    """All rows of a query: as Row where no type is given."""
    cursor = connection.execute(sql.encode(), {name: to_stored(value) for name, value in values.items()})
    make = _make(cursor, row)
    return [make(_from_stored(one)) for one in cursor.fetchall()]


def read_one(connection: Connection, sql: str, values: Parameters = NOTHING, row: RowType | None = None) -> Any:
    """The first row, or None."""
    cursor = connection.execute(sql.encode(), {name: to_stored(value) for name, value in values.items()})
    found = cursor.fetchone()
    return None if found is None else _make(cursor, row)(_from_stored(found))


FETCH = 500
"""Rows that a stream takes at once."""


def stream(
    connection: Connection,
    sql: str,
    values: Parameters = NOTHING,
    row: RowType | None = None,
    *,
    at_once: int = FETCH,
) -> Generator[Any, None, None]:
    """Rows of a query of any length, in pieces: within a transaction of the caller's."""
    with connection.cursor(name="stream_" + str(abs(hash(sql)))) as cursor:
        cursor.itersize = at_once
        cursor.execute(sql.encode(), {name: to_stored(value) for name, value in values.items()})
        make = None
        for one in cursor:
            make = make or _make(cursor, row)
            yield make(_from_stored(one))


def execute(connection: Connection, sql: str, values: Parameters = NOTHING) -> int:
    """Returns how many rows were written."""
    stored = {name: to_stored(value) for name, value in values.items()}
    return connection.execute(sql.encode(), stored).rowcount


def connect(url: str, *, most_seconds: float | None = None) -> Connection:
    """A connection in autocommit mode. most_seconds: for which a statement may take. Raises psycopg.Error."""
    given = _read_address(url)
    connection = Connection.connect(make_conninfo(url, **_DEFAULTS | given), autocommit=True)
    connection.most_seconds = most_seconds
    connection.adapters.register_dumper(int, Int8Dumper)  # one type of each parameter, so one prepared statement
    # A commit reads what the one before it has written, and is safe once it is answered, whatever the defaults are.
    try:
        connection.execute("set default_transaction_isolation = 'read committed'; set synchronous_commit = on")
    except BaseException:
        connection.close()
        raise
    return connection


def _read_address(url: str) -> dict[str, Any]:
    with suppress(psycopg.ProgrammingError):  # whose text may hold a part of the password
        if name_of(url) != UNREADABLE:
            return dict(conninfo_to_dict(url))
    raise LogError(
        f"{name_of(url)}: the address cannot be read: it is postgresql://USER:PASSWORD@HOST:PORT/DATABASE, where / @ : "
        "? # % in a password are written %2F %40 %3A %3F %23 %25"
    )


_IF_GONE = (
    "tcp_keepalives_idle = 2",
    "tcp_keepalives_interval = 1",
    "tcp_keepalives_count = 2",
    "tcp_user_timeout = 4000",
    "idle_in_transaction_session_timeout = 4000",
)


def end_if_gone(connection: Connection) -> None:
    """Have the server end this connection, and what it holds, within seconds where this machine is cut off or stands
    still: the others wait for it. By itself it would take two hours."""
    connection.execute("; ".join([f"set {one}" for one in _IF_GONE]).encode())


def to_write(url: str) -> str:
    """The address for whoever writes: of several hosts the one that takes writes.

    >>> to_write("postgresql://a,b/shop")
    'postgresql://a,b/shop?target_session_attrs=read-write'
    """
    if "target_session_attrs" in _read_address(url):
        return url
    return f"{str.__str__(url)}{'&' if '?' in url else '?'}target_session_attrs=read-write"


_FINAL = ("authentication failed", "does not exist", "pg_hba.conf", "no password supplied", "permission denied")
"""In what PostgreSQL answers to whom it never lets in: to try again helps nobody."""

_TOO_MANY = ("too many clients", "remaining connection slots", "too many connections")

_GOES_ON = "a server that runs goes on by itself once it does"


def _unreachable(name: str, text: str) -> LogError:
    if any(one in text for one in _FINAL):
        return LogError(f"{name}: PostgreSQL does not let this user in ({text}); see decider/log/postgres/roles.sql")
    if any(one in text for one in _TOO_MANY):
        way_out = "raise max_connections, or the role's limit"
        return LogUnreachable(f"{name}: PostgreSQL takes no more connections ({text}); {way_out}; {_GOES_ON}")
    if "read-only" in text:
        way_out = "promote it, or name the one that takes writes as well (postgresql://a,b/shop)"
        return LogUnreachable(f"{name}: PostgreSQL takes no writes, it is a standby ({text}); {way_out}; {_GOES_ON}")
    return LogUnreachable(f"{name}: PostgreSQL cannot be reached ({text}); a server that runs goes on by itself")


def log_error(name: str, error: psycopg.Error) -> LogError:
    """An exception of psycopg as ours, saying what to do."""
    text = " ".join(str(error).split())
    match error:
        case psycopg.errors.DiskFull():
            return LogFull(f"{name}: PostgreSQL has no space left ({text}); free some, the server goes on by itself")
        case psycopg.errors.InsufficientPrivilege():
            return LogError(f"{name}: the user may not do that ({text}); see decider/log/postgres/roles.sql")
        case psycopg.errors.InvalidSchemaName():
            return LogError(f"{name}: there is no schema for the log ({text}); create schema ..., see the search path")
        case psycopg.errors.UndefinedTable():
            return LogError(f"{name}: there is no such log ({text})")
    if is_lost(error):
        return _unreachable(name, text)
    return LogError(f"{name}: {text}")


def is_lost(error: psycopg.Error) -> bool:
    """Whether a connection was lost, or none could be made: then it is not known whether a commit has been written."""
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):  # a standby that is about to be promoted
        return True
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and not isinstance(
        error,
        psycopg.errors.DiskFull
        | psycopg.errors.LockNotAvailable
        | psycopg.errors.QueryCanceled
        | psycopg.errors.OutOfMemory,
    )


@contextmanager
def postgres_errors(name: str) -> Iterator[None]:
    """psycopg's exceptions as ours."""
    try:
        yield
    except psycopg.Error as error:
        raise log_error(name, error) from error


def _has_ended(connection: Connection) -> bool:
    """Whether the server has ended an idle connection: then there is something to read on it."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class Dialer:
    """Makes connections. Where one could not be made a thread of its own tries on, and all others are told at once: a
    call must not wait for a server that is not there. `lost` counts how often that came.

    most_seconds: see `connect`. set_up: is called with each new connection.
    """

    def __init__(self, url: str, *, most_seconds: float | None = None) -> None:
        self._url = url
        self._most_seconds = most_seconds
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self.down: psycopg.Error | None = None
        self.lost = 0

    def connect(self) -> Connection:
        """A new one. Raises psycopg.Error."""
        if (down := self.down) is not None:
            raise copy(down)
        try:
            return connect(self._url, most_seconds=self._most_seconds)
        except psycopg.OperationalError as error:
            self.note(error)
            raise

    def note(self, error: psycopg.Error) -> None:
        """None can be made for now, it seems: find out, without anybody who waits."""
        with self._lock:
            if self.down is None and not self._closed.is_set():
                self.down, self.lost = error, self.lost + 1
                threading.Thread(target=self._try_on, name="dialer", daemon=True).start()

    def _try_on(self) -> None:
        while not self._closed.wait(DIAL_INTERVAL):
            try:
                connect(self._url, most_seconds=self._most_seconds).close()
            except psycopg.Error as error:
                self.down = error
            except LogError:
                return
            else:
                self.down = None
                return

    def close(self) -> None:
        """Try no more."""
        self._closed.set()


class Pool:
    """Connections that are kept and used again, from any thread. A lost one is not. dialer: makes them."""

    def __init__(self, url: str, dialer: Dialer | None = None) -> None:
        self._dialer = dialer or Dialer(url)
        self.name = name_of(url)
        self._idle: deque[Connection] = deque()
        self._closed = False

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """One that nobody else uses meanwhile. Raises LogError."""
        with postgres_errors(self.name), self._plain() as connection:
            yield connection

    def _take(self) -> Connection:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            if not connection.closed and not _has_ended(connection):
                return connection
            connection.close()
        return self._dialer.connect()

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """One on which all queries see the same log, whatever others write meanwhile."""
        with self.connection() as connection, connection.transaction():
            connection.execute("set transaction isolation level repeatable read, read only")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One in a transaction, which the server ends where this process stands still in it: what it has locked, others
        wait for, also whoever is to lead in its place. (Who reads may take its time.)"""
        with self.connection() as connection, connection.transaction():
            connection.execute("; ".join([f"set local {one}" for one in _IF_GONE]).encode())
            yield connection

    def read(self, sql: str, values: Parameters = NOTHING, row: RowType | None = None) -> list[Any]:
        """All rows; tried again on a new connection where an idle one was lost."""
        rows: list[Any] = self._again(lambda connection: read(connection, sql, values, row))
        return rows

    def one(self, sql: str, values: Parameters = NOTHING, row: RowType | None = None) -> Any:
        """The first row, or None; as `read`."""
        return self._again(lambda connection: read_one(connection, sql, values, row))

    def _again(self, ask: Callable[[Connection], Any]) -> Any:
        with postgres_errors(self.name):
            try:
                with self._plain() as connection:
                    return ask(connection)
            except psycopg.Error as error:
                if not is_lost(error):
                    raise
            self._drop_idle()  # a server that was started anew has ended them all
            with self._plain() as connection:
                return ask(connection)

    @contextmanager
    def _plain(self) -> Iterator[Connection]:
        connection = self._take()
        try:
            yield connection
        finally:
            if connection.closed or self._closed:
                connection.close()
            else:
                self._idle.append(connection)

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def close(self) -> None:
        """Nobody may be reading."""
        self._closed = True
        self._dialer.close()
        self._drop_idle()
