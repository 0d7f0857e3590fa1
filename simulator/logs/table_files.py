"""CSV, TSV and Parquet files in blocks of rows, and the line of any row. Called by `tables.py`.

Every value of a CSV comes as a text (repeated ones by code), so that a bad one can be named; a Parquet column keeps its
type. Nothing here knows what a column means.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from simulator.logs import arrow
from simulator.logs.errors import BadLog, BadRow, BadRows
from simulator.logs.files import Files, lines_of, suffix, unpack
from simulator.logs.names import cleaned, repeated_names
from simulator.logs.table_bounds import check_expansion, check_footer, check_rows, check_texts, long_texts

BLOCK_ROWS = 1 << 17

MAX_HEADER = 16 * 2**20
"""Characters of the line of column names."""

MAX_COLUMNS = 20_000
"""Of a table. Each takes a millisecond and some kilobytes, however few rows there are."""


class TableFile(Protocol):
    """One file of a table. header: the names of its columns."""

    header: list[str]

    def blocks(self, columns: Sequence[str], coded: Sequence[str], bad: BadRows) -> Iterator[Any]:
        """Tables with these columns; texts of the `coded` ones come by code. Raises BadLog."""

    def first(self, columns: Sequence[str]) -> Any:
        """The first rows of these columns; None where there are none. Raises BadLog."""

    def numeric(self, columns: Sequence[str]) -> set[str]:
        """Those of the columns that hold numbers: by their type, or as far as the first rows tell."""

    def where(self, row: int) -> str:
        """The place of a row, counted from 0, for people."""


def table_file(path: Path, files: Files, *, block_bytes: int) -> TableFile:
    """By the file's name. block_bytes: of a CSV file, read at a time. Raises BadLog where it is no such file."""
    return ParquetTable(path, files) if suffix(path) == ".parquet" else CsvTable(path, files, block_bytes=block_bytes)


class CsvTable:
    """See TableFile. Separated by comma, semicolon or tab, whatever the first line has most of."""

    def __init__(self, path: Path, files: Files, *, block_bytes: int) -> None:
        self._path = path
        self._block_bytes = block_bytes
        self._files = files
        with files.open(path) as file:
            text = io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline="")
            lines = _short_lines(text, path)
            first = next(lines, "")
            self._delimiter = max(",\t;", key=re.sub(r'"[^"]*"', "", first).count)
            self._names = _next_record(csv.reader(chain([first], lines), delimiter=self._delimiter), path)
        if not self._names:
            raise BadLog(f"{path}: is empty; it must begin with a line of column names")
        self.header = _header(self._names, path)

    def first(self, columns: Sequence[str]) -> Any:
        """See TableFile."""
        return next(self.blocks(columns, (), BadRows(skip=True)), None)

    def numeric(self, columns: Sequence[str]) -> set[str]:
        """See TableFile."""
        first = self.first(columns) if columns else None
        return set() if first is None else {name for name in columns if arrow.all_numbers(first[name].combine_chunks())}

    def blocks(self, columns: Sequence[str], coded: Sequence[str], bad: BadRows) -> Iterator[Any]:
        """See TableFile."""
        written = dict(zip(self.header, self._names, strict=True))
        kinds = {written[name]: pa.string() for name in columns} | {
            written[name]: pa.dictionary(pa.int32(), pa.string()) for name in coded
        }
        with self._files.open(self._path) as file:
            try:
                count = 0
                for rows in self._read(file, [written[name] for name in columns], kinds, bad):
                    count += len(rows)
                    check_rows(self._path, count, len(columns), self._files)
                    yield rows.rename_columns(list(columns))
            except (pa.ArrowException, UnicodeDecodeError) as error:
                raise self._with_line(error) from error

    def _read(self, file: Any, columns: Sequence[str], kinds: dict[str, Any], bad: BadRows) -> Iterator[Any]:
        with ExitStack() as opened:
            opened.enter_context(_silent_about_bytes(bad))
            reader = pyarrow.csv.open_csv(
                file,
                read_options=pyarrow.csv.ReadOptions(block_size=self._block_bytes),
                parse_options=pyarrow.csv.ParseOptions(
                    delimiter=self._delimiter,
                    newlines_in_values=True,
                    invalid_row_handler=_count_ragged(bad) if bad.skip else None,
                ),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=list(columns), column_types=kinds, null_values=[""], strings_can_be_null=True
                ),
            )
            opened.enter_context(reader)
            for batch in reader:
                self._files.report()
                yield pa.Table.from_batches([batch])

    def _with_line(self, error: Exception) -> BadLog:
        """The error with the line of its row: Arrow does not say which, so the file is read a second time."""
        try:
            for line, record in self._records():
                if len(record) != len(self.header):
                    return BadLog(
                        f"{self._path}:{line}: has {len(record)} values, not {len(self.header)} as the first line; "
                        "mend it, or leave such rows out and count them: --skip-bad"
                    )
        except (UnicodeDecodeError, csv.Error) as problem:
            return BadLog(f"{self._path}: {problem}; save it as a CSV file in UTF-8")
        return BadLog(f"{self._path}: {error}; save it as a CSV file in UTF-8")

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """The rows below the header with the lines on which they end, as an editor counts; empty lines are no rows."""
        with self._path.open("rb") as raw:
            lines = lines_of(unpack(raw, self._path), self._path)
            reader = csv.reader((line.decode("utf-8") for line in lines), delimiter=self._delimiter)
            rows = ((reader.line_num, record) for record in reader if record)
            next(rows, None)
            yield from rows

    def where(self, row: int) -> str:
        """See TableFile."""
        try:
            line = next((line for number, (line, _) in enumerate(self._records()) if number == row), row + 2)
        except (csv.Error, UnicodeDecodeError):  # a long value before it, or one that is no text: Arrow reads them
            return f"{self._path}: row {row + 1}"
        return f"{self._path}:{line}"


def _count_ragged(bad: BadRows) -> Callable[[Any], str]:
    """Rows with too few or too many values are counted. Without it Arrow raises, which `blocks` turns into BadLog."""

    def handle(_: Any) -> str:
        bad.add(BadRow("number of values", ""), where=str)
        return "skip"

    return handle


@contextmanager
def _silent_about_bytes(bad: BadRows) -> Iterator[None]:
    """A row with too few or too many values that is no UTF-8 either is counted, too: Arrow fails to show it to the
    handler, and Python would print a traceback for each."""
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, UnicodeDecodeError):
            bad.add(BadRow("number of values", ""), where=str)
        else:
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


class ParquetTable:
    """See TableFile."""

    def __init__(self, path: Path, files: Files) -> None:
        self._path = path
        self._files = files
        if path.suffix.lower() == ".gz":
            raise BadLog(
                f"{path}: is a packed Parquet file, which has to be read from its end; unpack it: gunzip {path}"
            )
        with files.open(path) as file, arrow_errors(path):
            check_footer(path, path.stat().st_size, file)
            reader = pq.ParquetFile(file)
            self._schema, self._metadata = reader.schema_arrow, reader.metadata
        self.header = _header(self._schema.names, path)

    def _type(self, name: str) -> Any:
        return self._schema.field(self.header.index(name)).type

    def first(self, columns: Sequence[str]) -> Any:
        """See TableFile."""
        return next(self.blocks(columns, (), BadRows(skip=True)), None)

    def numeric(self, columns: Sequence[str]) -> set[str]:
        """See TableFile."""
        return {name for name in columns if _is_number(self._type(name))}

    def blocks(
        self,
        columns: Sequence[str],
        coded: Sequence[str],
        bad: BadRows,  # noqa: ARG002 - the protocol's
    ) -> Iterator[Any]:
        """See TableFile."""
        written = dict(zip(self.header, self._schema.names, strict=True))
        names = [written[name] for name in columns]
        check_expansion(self._path, self._metadata, names, self._files)
        with self._files.open(self._path) as file, arrow_errors(self._path):
            by_code = {written[one] for one in coded if arrow.is_text(self._schema.field(written[one]))}
            others = [one for one in names if one not in by_code and _is_bytes(self._schema.field(one).type)]
            looking = pq.ParquetFile(file, metadata=self._metadata, read_dictionary=others, pre_buffer=False)
            by_code |= long_texts(looking, others, BLOCK_ROWS)
            reader = pq.ParquetFile(file, metadata=self._metadata, read_dictionary=sorted(by_code))
            for batch in reader.iter_batches(batch_size=BLOCK_ROWS, columns=names):
                self._files.report()
                rows = pa.Table.from_batches([batch]).select(names)
                self._check_texts(rows, others)
                yield self._as_texts(rows.rename_columns(list(columns)))

    def _check_texts(self, rows: Any, names: Sequence[str]) -> None:
        """Of columns that are not kept by code: whoever reads them writes them out. Raises BadLog."""
        for name in names:
            if pa.types.is_dictionary(rows.schema.field(name).type):
                check_texts(self._path, name, rows[name])

    def _as_texts(self, rows: Any) -> Any:
        """Bytes as the texts that they are. Raises BadLog where they are none."""
        for place, name in enumerate(rows.column_names):
            if _is_binary(rows.schema.types[place]):
                try:
                    rows = rows.set_column(place, name, pc.cast(rows[name], pa.string()))
                except pa.ArrowException as error:
                    raise BadLog(
                        f"{self._path}: column {name!r} holds {rows.schema.types[place]} that is no UTF-8 text; leave "
                        f"it out: --column ignore={name}"
                    ) from error
        return rows

    def where(self, row: int) -> str:
        """See TableFile."""
        return f"{self._path}: row {row + 1}"


def _short_lines(text: io.TextIOWrapper, path: Path) -> Iterator[str]:
    """Raises BadLog where a line is too long to be one of column names."""
    for line in iter(lambda: text.readline(MAX_HEADER), ""):
        if len(line) == MAX_HEADER:
            raise BadLog(
                f"{path}: the line of column names has {MAX_HEADER} characters or more; check that it is a table"
            )
        yield line


def _next_record(records: Iterator[list[str]], path: Path) -> list[str]:
    try:
        return next(records, [])
    except csv.Error as error:
        raise BadLog(f"{path}: the line of column names cannot be read ({error}); save it as a CSV file") from error


def _header(names: Sequence[str], path: Path) -> list[str]:
    """The names as people see them. Raises BadLog where one stands twice: which one is meant, nobody knows."""
    if len(names) > MAX_COLUMNS:
        raise BadLog(f"{path}: has {len(names)} columns, and at most {MAX_COLUMNS} are read; leave out those that are "
                     "no context of a decision")  # fmt: skip
    header = [cleaned(name) for name in names]
    twice = repeated_names(header)
    if twice:
        raise BadLog(
            f"{path}: {len(twice)} column {'name stands' if len(twice) == 1 else 'names stand'} twice: "
            f"{', '.join(map(repr, twice[:5]))}; give every column its own name"
        )
    return header


def _is_binary(kind: Any) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    types = pa.types
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _is_bytes(kind: Any) -> bool:
    """Texts or bytes of any length, by code or not."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind))


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


@contextmanager
def arrow_errors(path: Path) -> Iterator[None]:
    """What Arrow says of a Parquet file, as BadLog with its name."""
    try:
        yield
    except pa.ArrowException as error:
        raise BadLog(f"{path}: is no Parquet file ({error}); check that it is what its name says") from error
