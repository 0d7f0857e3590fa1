"""One row per task, as Parquet or CSV: every parameter is a column, then every figure. Called by its command.

What a task has no value for is empty (null). Both kinds are read back as the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from simulator.compare.result import TableRow
from simulator.logs.output_file import atomic_path

FORMATS = ("parquet", "csv")

LAST = "failed"
"""The column that says why a task has no figures; it is there even if none failed."""

TEXTS = ("world", "log", "policy", "algorithm", "interactions", "estimand", "verdict", "estimator", LAST)
"""Columns of texts: one that looks like a number is none."""

_KINDS = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


def write_table(rows: Sequence[TableRow], file: Path) -> None:
    """By the file's ending; one that is there is replaced, whole or not at all. Raises DeciderError.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder, "runs.csv")
    ...     write_table([{"policy": "a", "seed": 1, "failed": None}, {"policy": "b", "failed": "why"}], file)
    ...     read_table(file)
    [{'policy': 'a', 'seed': 1, 'failed': None}, {'policy': 'b', 'seed': None, 'failed': 'why'}]
    """
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=_schema(rows))
    with atomic_path(file, force=True) as path:
        if file.suffix == ".csv":
            pyarrow.csv.write_csv(table, path)
        else:
            pq.write_table(table, path)


def read_table(file: Path) -> list[TableRow]:
    """The rows of what `write_table` wrote; numbers without a fraction may come back from CSV as whole ones."""
    if file.suffix != ".csv":
        return list(pq.read_table(file).to_pylist())
    # an empty text is written as "", what is not known as nothing at all
    options = pyarrow.csv.ConvertOptions(
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        null_values=[""],
        column_types=dict.fromkeys(TEXTS, pa.string()),
    )
    return list(pyarrow.csv.read_csv(file, convert_options=options).to_pylist())


def _schema(rows: Sequence[TableRow]) -> pa.Schema:
    """Columns in the order in which they come up, a task's parameters before its figures."""
    names = list(dict.fromkeys([name for row in rows for name in row if name != LAST]))
    return pa.schema([(name, _kind(row.get(name) for row in rows)) for name in (*_merged(rows, names), LAST)])


def _merged(rows: Sequence[TableRow], names: Sequence[str]) -> list[str]:
    """A column that only some rows have stands where it stands in those: behind what is before it there."""
    merged: list[str] = []
    for row in rows:
        place = 0
        for name in [one for one in row if one in names]:
            if name not in merged:
                merged.insert(place, name)
            place = merged.index(name) + 1
    return merged


def _kind(values: Iterable[object]) -> pa.DataType:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return pa.float64()
    return _KINDS[kinds.pop()] if len(kinds) == 1 else pa.string()
