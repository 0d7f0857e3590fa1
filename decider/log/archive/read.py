"""Reads the files of a part, and proves that its entries are those that the chain covers. Called by this room's others.

Memory is bounded by a row group, whatever a part's size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from decider.errors import ArchiveDamaged
from decider.log.archive import columns
from decider.log.archive.part import MARKS, Part, file_of
from decider.log.commits import commits_of, entries, head_after
from decider.log.forgotten import Originals
from decider.log.tables import ENTRY_TABLES, EntryTable

BATCH_ROWS = 5_000


@contextmanager
def arrow_errors(path: Path) -> Iterator[None]:
    """Arrow's exceptions as ours."""
    try:
        yield
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ArchiveDamaged(f"{path}: cannot be read ({error}); put a copy of it in its place") from error


def rows_of(path: Path, names: Sequence[str]) -> Iterator[list[tuple[Any, ...]]]:
    """The rows of a file in pieces, with these columns. Raises ArchiveDamaged."""
    with arrow_errors(path), pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=list(names)):
            yield list(zip(*[batch[name].to_pylist() for name in names], strict=True))


def entry_rows(part: Part, table: EntryTable) -> Iterator[list[tuple[Any, ...]]]:
    """The entries of a table in pieces: position, time, then the table's columns."""
    if file_of(table) not in part.files:
        return iter(())  # written before there were such entries; `prove` would miss one
    return rows_of(part.folder / file_of(table), columns.raw_names(table))


def marks_of(part: Part) -> dict[int, bytes]:
    """The chain where a part's marks stand."""
    return dict(row for rows in rows_of(part.folder / MARKS, ("position", "chain")) for row in rows)


def prove(part: Part) -> None:
    """Compute the chain over a part's entries. Raises ArchiveDamaged where it is another than part.json and the marks
    say."""
    marks = marks_of(part)
    streams = [entries(table, (row for rows in entry_rows(part, table) for row in rows)) for table in ENTRY_TABLES]
    head, originals = part.after, Originals(part.changed)
    for commit in commits_of(streams, iter(sorted(marks))):
        if commit.first != head.position + 1 or not commit.gapless:
            raise ArchiveDamaged(f"{part.folder}: a position after {head.position} is missing or there twice")
        head = head_after(head, commit, originals)
        if marks.get(head.position, head.chain) != head.chain:
            raise ArchiveDamaged(f"{part.folder}: entries up to position {head.position} are not what was acknowledged")
    if head != part.until:
        raise ArchiveDamaged(
            f"{part.folder}: its entries end at position {head.position} with another chain than they should"
        )
