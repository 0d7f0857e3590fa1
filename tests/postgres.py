"""A PostgreSQL server for tests, with a schema for each log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest

from decider.log.protocol import EventLog
from simulator.drive.own_postgres import FAST, NoPostgres, OwnPostgres, folder_of_postgres, programs


class PostgresServer(OwnPostgres):
    """A running server. settings: NAME=VALUE."""

    def __init__(self, folder: Path, settings: Sequence[str]) -> None:
        self._numbers = count(1)
        super().__init__(folder, settings)

    def new_schema(self) -> str:
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


def skip_without_postgres() -> None:
    """Where it is not installed."""
    try:
        programs()
    except NoPostgres as error:
        pytest.skip(str(error))


@contextmanager
def postgres_server(settings: Sequence[str] = FAST) -> Iterator[PostgresServer]:
    """Skips the test where PostgreSQL is not installed."""
    skip_without_postgres()
    with folder_of_postgres() as folder:
        server = PostgresServer(folder, settings)
        try:
            yield server
        finally:
            server.stop()
