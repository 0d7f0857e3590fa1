"""SQL on a log of ours -> Arrow batches, straight from C: no Python object per row. Called by `ours.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import adbc_driver_sqlite
import numpy as np
import pyarrow as pa
from adbc_driver_sqlite import dbapi

from decider.errors import LogError
from simulator.logs.columns import Category, Codes

BATCH_ROWS = 65_536


def batches(path: Path, sql: str) -> Iterator[Any]:
    """Record batches of a query. A column must not be null in the first rows: its type is taken from there.

    Raises LogError where SQLite fails.

    >>> import sqlite3, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "log.db")
    ...     _ = sqlite3.connect(path).execute("create table t as select 1 as x")
    ...     [batch.num_rows for batch in batches(path, "select x from t")]
    [1]
    """
    uri = f"file:{quote(str(path.resolve()))}?mode=ro"
    try:
        with dbapi.connect(uri) as connection, connection.cursor() as cursor:
            cursor.adbc_statement.set_options(**{adbc_driver_sqlite.StatementOptions.BATCH_ROWS.value: str(BATCH_ROWS)})
            cursor.execute(sql)
            yield from cursor.fetch_record_batch()
    except (dbapi.Error, pa.ArrowException) as error:
        raise LogError(f"{path}: {error}") from error


def codes(chunks: list[Any]) -> Codes:
    """Equal where the texts are, in the order in which they came; for texts that nobody needs to see again.

    >>> codes([pa.array(["b", "a"]), pa.array(["b"])]).tolist()
    [0, 1, 0]
    """
    return _encoded(chunks)[0]


def category(chunks: list[Any]) -> Category:
    """Codes of Arrow arrays of texts; null and the empty text are not given.

    >>> category([pa.array(["web", None]), pa.array(["", "app"])])
    Category(codes=array([ 0, -1, -1,  1], dtype=int32), values=('web', 'app'))
    """
    found, values = _encoded(chunks)
    return _without_empty(found, values.to_pylist())


def _encoded(chunks: list[Any]) -> tuple[Codes, Any]:
    encoded = pa.chunked_array(chunks, pa.string()).combine_chunks().dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int32), encoded.dictionary


def _without_empty(codes: Codes, values: list[str]) -> Category:
    if "" not in values:
        return Category(codes, tuple(values))
    empty = values.index("")
    renumbered = np.arange(len(values) + 1, dtype=np.int32)
    renumbered[empty] = renumbered[-1] = -1
    renumbered[empty + 1 : -1] -= 1
    return Category(renumbered[codes], tuple([value for value in values if value]))
