"""Columns -> a wide table, one row a decision, with `pmf.ACTION` where the pmfs are known. Called by `export_log.py`.

Names are those that `mapping.py` guesses, so that the table is read back without a mapping.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from simulator.logs.columns import Category, Columns, Field
from simulator.logs.mapping import is_word
from simulator.logs.names import CONTEXT, PMF, cleaned


def write_csv(columns: Columns, path: Path, *, delimiter: str, packed: bool, done: Callable[[int], None]) -> None:
    """Write a CSV file, packed with gzip if asked for. done: called with the number of decisions written."""
    tables = map(_without_codes, _tables(columns, done))
    first = next(tables)
    options = pyarrow.csv.WriteOptions(delimiter=delimiter)
    with (
        pa.output_stream(str(path), compression="gzip" if packed else None) as file,
        pyarrow.csv.CSVWriter(file, first.schema, write_options=options) as writer,
    ):
        _write_all(writer, chain([first], tables))


def write_parquet(columns: Columns, path: Path, *, done: Callable[[int], None]) -> None:
    """Write a Parquet file. done: called with the number of decisions written."""
    tables = _tables(columns, done)
    first = next(tables)
    with pq.ParquetWriter(path, first.schema) as writer:
        _write_all(writer, chain([first], tables))


def _write_all(writer: Any, tables: Iterable[Any]) -> None:
    for table in tables:
        writer.write_table(table)


def _without_codes(table: Any) -> Any:
    """Texts as they are: CSV has no codes for them."""
    kinds = [pa.string() if pa.types.is_dictionary(field.type) else field.type for field in table.schema]
    return table.cast(pa.schema(list(zip(table.schema.names, kinds, strict=True))))


def _tables(columns: Columns, done: Callable[[int], None]) -> Iterator[Any]:
    schema = _Schema(columns)
    for rows, block in columns.blocks():
        yield pa.table(schema.block(block))
        done(rows.start + len(block))


class _Schema:
    """Which columns the table of a log has."""

    def __init__(self, columns: Columns) -> None:
        self._timed = bool(columns.time.any())
        self._known = not bool(np.isnan(columns.propensity).all())
        self._eligible = columns.pmf is None and not _every_action_drawn(columns)
        self._kinds = Category.of(list(columns.traits.get("kind", ())))
        self._sets = tuple([_json([columns.actions[one] for one in members]) for members in columns.sets])

    def block(self, block: Columns) -> dict[str, Any]:
        """The columns of a block, by name."""
        found: dict[str, Any] = {}
        if self._timed:
            found["time"] = pa.array(block.time, pa.timestamp("us", "UTC"))
        found["unit_id"] = pa.array(block.cluster)
        found["action"] = _dictionary(Category(block.action, block.actions))
        if self._kinds.values:
            found["action_kind"] = _dictionary(Category(self._kinds.codes[block.action], self._kinds.values))
        if self._known:
            found["propensity"] = pa.array(block.propensity, from_pandas=True)
        found["reward"] = pa.array(block.reward)
        if self._eligible:
            found["eligible"] = _dictionary(Category(block.eligible, self._sets))
        found |= {field_name(name): _field(one) for name, one in block.fields.items()}
        return found | _pmf_columns(block)


def _every_action_drawn(columns: Columns) -> bool:
    """Whether the drawn actions alone tell what was eligible: everything, always."""
    return len(columns.sets) == 1 and len(np.unique(columns.action)) == len(columns.sets[0])


def field_name(name: str) -> str:
    """A context field's column; names that mean something else in a table are marked.

    >>> field_name("device"), field_name("click")
    ('device', 'context.click')
    """
    taken = is_word(name) or name.startswith((PMF, CONTEXT)) or cleaned(name) != name or not name
    return f"{CONTEXT}{name}" if taken else name


def _field(field: Field) -> Any:
    return _dictionary(field) if isinstance(field, Category) else pa.array(field.values, from_pandas=True)


def _dictionary(field: Category) -> Any:
    codes = pa.array(field.codes, mask=field.codes < 0)
    return pa.DictionaryArray.from_arrays(codes, pa.array(field.values, pa.string()))


def _pmf_columns(block: Columns) -> dict[str, Any]:
    """A column for each action; null where it was not eligible."""
    if block.pmf is None:
        return {}
    dense = block.dense_pmf().astype(np.float32)
    absent = ~block.member[block.eligible]
    return {
        f"{PMF}{action}": pa.array(dense[:, index], mask=absent[:, index]) for index, action in enumerate(block.actions)
    }


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
