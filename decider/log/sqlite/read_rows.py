"""Reads rows of an SQLite file with named columns. Called by the whole room and by `archive/`."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import chain
from typing import Any

from decider.experiment.definition import ExperimentVersion
from decider.log.rows import VERSION, Parameters, RowType, experiment_version
from decider.types import Position


def read(
    connection: sqlite3.Connection, sql: str, parameters: Parameters = (), row: RowType | None = None
) -> Iterator[Any]:
    """Rows of a query, one after the other; as sqlite3.Row where no type is given."""
    cursor = connection.cursor()
    try:
        cursor.row_factory = sqlite3.Row if row is None else None
        rows = cursor.execute(sql, parameters)
        yield from chain(rows) if row is None else map(row.make, rows)
    finally:  # `yield from` the cursor itself would close it, too
        with suppress(sqlite3.ProgrammingError):  # after an error, the database may have been closed before
            cursor.close()


def read_one(connection: sqlite3.Connection, sql: str, parameters: Parameters = (), row: RowType | None = None) -> Any:
    """The first row, as `read` gives it; None where there is none."""
    cursor = connection.cursor()
    cursor.row_factory = sqlite3.Row if row is None else None
    found = cursor.execute(sql, parameters).fetchone()
    cursor.close()
    return found if row is None or found is None else row.make(found)


def version_reader(connection: sqlite3.Connection) -> Callable[[Position], ExperimentVersion]:
    """Reads versions by position, each once. It raises LogCorrupt where a definition cannot be read."""

    @lru_cache
    def version_at(position: Position) -> ExperimentVersion:
        return experiment_version(read_one(connection, _VERSION, (position,)))

    return version_at


_VERSION = f"select {VERSION} from experiments where position = ?"  # noqa: S608 - a constant
