"""How much memory a table would take: a Parquet file as its metadata say, a CSV file as far as it is read. Called by
`table_files.py`.

Equal values pack to next to nothing: 30 million rows of two columns take 265 KB on disk and some GB in memory; a text
of 1 MB that stands in each of 100,000 rows is there once, in a dictionary. What is declared is counted before anything
is read. How long the texts of a dictionary are is not declared: so the first row of each row group is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from simulator.logs.errors import BadLog
from simulator.logs.files import Files

ROW_BYTES, CELL_BYTES = 128, 8
"""That a row takes in memory, whatever its columns are (measured: 133), and a value, at least."""

MAX_ROWS_EXPANSION, FREE_ROWS_EXPANSION = 100, 2**31
"""The values of a log's files may take so many times their size in memory, and so many bytes in any case."""

MAX_FOOTER = 64 * 2**20
"""Bytes of the metadata at a file's end. They take nine times as much in memory, whatever is read."""

MAX_BLOCK_TEXTS = 2**30
"""Bytes of the texts of a column in one block."""

_TAIL = 8
"""Bytes at a file's end: the length of the metadata, and a magic word."""


def check_footer(path: Path, size: int, file: Any) -> None:
    """Before the metadata are read. Raises BadLog."""
    if size < _TAIL or not file.seekable():
        return  # the reader says what is wrong
    file.seek(size - _TAIL)
    length = int.from_bytes(file.read(4), "little")
    file.seek(0)
    if MAX_FOOTER < length < size:
        raise BadLog(
            f"{path}: its metadata have {length} bytes, and at most {MAX_FOOTER} are read; write it with fewer and "
            "larger row groups"
        )


def check_expansion(path: Path, metadata: Any, columns: Sequence[str], files: Files) -> None:
    """What the columns of all files up to this one take. Raises BadLog where that is far too much for their size."""
    check_rows(path, metadata.num_rows, len(columns), files, more=sum(_beyond_rows(metadata, columns)))


def check_rows(path: Path, rows: int, columns: int, files: Files, *, more: int = 0) -> None:
    """The same for so many rows. more: bytes beside them. Raises BadLog."""
    expanded = rows * (ROW_BYTES + CELL_BYTES * columns) + more
    if files.expect(path, expanded) > FREE_ROWS_EXPANSION + MAX_ROWS_EXPANSION * files.size_so_far(path):
        raise BadLog(
            f"{path}: has {rows} rows in {path.stat().st_size} bytes, which take {expanded} bytes and more in memory: "
            "that is no log; write it without compression and dictionaries where it is one"
        )


def _beyond_rows(metadata: Any, columns: Sequence[str]) -> Iterator[int]:
    """Bytes of texts, unpacked, and of values in lists, of which a row may have any number."""
    schema = metadata.schema
    for place in [place for place in range(len(schema)) if _is_in(schema.column(place).path, columns)]:
        kind = schema.column(place)
        for group in range(metadata.num_row_groups):
            chunk = metadata.row_group(group).column(place)
            if kind.max_repetition_level:
                yield chunk.num_values * CELL_BYTES
            if kind.physical_type == "BYTE_ARRAY":
                yield chunk.total_uncompressed_size


def _is_in(path: str, columns: Sequence[str]) -> bool:
    """Whether a leaf of the schema belongs to one of the columns: `a.list.element` to `a`."""
    return any(path == one or path.startswith(f"{one}.") for one in columns)


def long_texts(reader: Any, columns: Sequence[str], block_rows: int) -> set[str]:
    """Text columns of which a block might not fit into memory, since a dictionary has long texts. reader: opens the
    columns as dictionaries."""
    groups, found = range(reader.metadata.num_row_groups), set[str]()
    for group in groups if columns else ():
        first = next(reader.iter_batches(batch_size=1, row_groups=[group], columns=list(columns)), None)
        rows = min(block_rows, reader.metadata.row_group(group).num_rows)
        if first is not None:
            found |= {name for name in columns if _longest(first.column(name)) * rows > MAX_BLOCK_TEXTS}
    return found


def _longest(texts: Any) -> int:
    """Bytes of the longest one, of those that a dictionary has where there is one."""
    known = texts.dictionary if pa.types.is_dictionary(texts.type) else texts
    return pc.max(pc.binary_length(known)).as_py() or 0


def check_texts(path: Path, name: str, column: Any) -> None:
    """A column's texts by code, before they are written out. Raises BadLog."""
    for chunk in column.chunks:
        lengths = pc.fill_null(pc.binary_length(chunk.dictionary), 0)
        bytes_ = pc.sum(pc.cast(lengths.take(pc.fill_null(chunk.indices, 0)), pa.int64())).as_py() or 0
        if bytes_ > MAX_BLOCK_TEXTS:
            raise BadLog(
                f"{path}: the texts of column {name!r} take {bytes_} bytes in {len(chunk)} rows; leave the column out: "
                f"--column ignore={name}"
            )
