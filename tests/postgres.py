"""A PostgreSQL server for tests, with a schema for each log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count

import psycopg
import pytest

from decider.log.open import LogUrl
from decider.log.protocol import EventLog
from simulator.drive.own_postgres import FAST, NoPostgres, OwnPostgres, own_postgres, programs


class PostgresServer:
    """The server of a test run. `server` is the process, `folder` has its socket."""

    def __init__(self, server: OwnPostgres) -> None:
        self.server = server
        self.folder = server.folder
        self.url, self.kill, self.restart, self.stop = server.url, server.kill, server.restart, server.stop
        self._numbers = count(1)

    def new_schema(self) -> LogUrl:
        """The URL of a log that is not there yet."""
        schema = f"log_{next(self._numbers)}"
        administer(self.url(schema), f"create schema {schema}")
        return self.url(schema)


def administer(url: str, sql: str) -> None:
    """As whoever owns the database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.encode())


def damages(log: EventLog) -> list[str]:
    """Of the whole log."""
    return list(map(str, log.check(lambda _: None)))


@contextmanager
def postgres_server(options: Sequence[str] = FAST) -> Iterator[PostgresServer]:
    """Skips the test where PostgreSQL is not installed."""
    try:
        programs()
    except NoPostgres as error:
        pytest.skip(str(error))
    with own_postgres(options) as server:
        yield PostgresServer(server)
