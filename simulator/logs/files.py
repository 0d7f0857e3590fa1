"""Files of a foreign log: one file, or a folder of them in order of name; plain or gzip. Called by the readers.

Progress is counted in bytes of the files on disk, packed or not.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, cast

from decider.log.open import LogUrl, log_place, open_reader
from simulator.logs.errors import BadLog

MAX_LINE = 64 * 2**20
"""Bytes of a line. A decision has some kilobytes; a file of one endless line would take all memory."""

MAX_EXPANSION, FREE_EXPANSION = 300, 2**30
"""A packed file may unpack to so many times its size, and to so many bytes in any case. Logs pack to a hundredth at
best; what packs to a thousandth is no log."""

REPORT_EVERY = 1_000
"""Lines between two reports of progress."""


def suffix(path: Path) -> str:
    """The kind of file that a name says, without `.gz`.

    >>> suffix(Path("a/clicks.csv.gz")), suffix(Path("LOG.DSJSON"))
    ('.csv', '.dsjson')
    """
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def files_of(path: Path, suffixes: Sequence[str]) -> list[Path]:
    """The file; or all with one of the suffixes in a folder and its folders, in order of name. Raises BadLog."""
    if path.is_dir():
        found = sorted(one for one in path.rglob("*") if one.is_file() and suffix(one) in suffixes)
        if not found:
            raise BadLog(f"{path}: the folder has no file that ends in {', '.join(suffixes)}; name another")
        return found
    if not path.is_file():
        raise BadLog(f"{path}: there is no such log; check the path")
    return [path]


def stamp(name: str) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of a log's files: changes when the log does. Empty where there is none.

    A log of ours has its newest entries in a file beside it; of one in PostgreSQL the end is read, which raises
    LogError.
    """
    path = log_place(name)
    if isinstance(path, LogUrl):
        with closing(open_reader(path)) as log:
            return ((log.name, *log.head().mark),)
    beside = [path, path.with_name(f"{path.name}-wal")] if path.name else []
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() and path.name else beside
    return tuple([(one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in files if one.is_file()])


def unpack(raw: IO[bytes], path: Path) -> IO[bytes]:
    """The content of an open file with that name: of what is in it where it is packed, which raises BadLog where that
    is far too much."""
    return cast(IO[bytes], io.BufferedReader(_Unpacked(raw, path))) if path.suffix.lower() == ".gz" else raw


class _Unpacked(io.RawIOBase):
    """What is in a gzip file, up to a limit."""

    def __init__(self, raw: IO[bytes], path: Path) -> None:
        self._file = gzip.GzipFile(fileobj=raw)
        self._path = path
        self._most = FREE_EXPANSION + MAX_EXPANSION * path.stat().st_size
        self._read = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See RawIOBase. Raises BadLog."""
        content = self._file.read1(len(buffer))
        buffer[: len(content)] = content
        self._read += len(content)
        if self._read > self._most:
            raise BadLog(
                f"{self._path}: unpacks to more than {self._most} bytes, {MAX_EXPANSION} times its size: that is no "
                "log; unpack it to a file where it is one"
            )
        return len(content)


def lines_of(file: IO[bytes], path: Path) -> Iterator[bytes]:
    """The lines of an open file. Raises BadLog where one is too long to be a line of a log."""
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE + 1), b""), start=1):
        if len(line) > MAX_LINE:
            raise BadLog(
                f"{path}:{number}: the line has more than {MAX_LINE} bytes; check that it is a log, with line breaks"
            )
        yield line


class Files:
    """Opens one file after the other and reports how much of all has been read."""

    def __init__(self, paths: Sequence[Path], on_progress: Callable[[float], None]) -> None:
        sizes = [path.stat().st_size for path in paths]
        self._before = dict(zip(paths, accumulate([0, *sizes]), strict=False))
        self._total = sum(sizes)
        self._on_progress = on_progress
        self._expected: dict[Path, int] = {}
        self._raw: IO[bytes] | None = None
        self._path = Path()

    @contextmanager
    def open(self, path: Path) -> Iterator[IO[bytes]]:
        """The file's content, unpacked. Raises BadLog where it cannot be read."""
        try:
            with path.open("rb") as raw:
                self._path, self._raw = path, raw
                yield unpack(raw, path)
        except (OSError, EOFError, zlib.error) as error:
            raise BadLog(f"{path}: cannot be read ({error}); check that it is whole, or fetch it again") from error
        finally:
            self._raw = None

    def expect(self, path: Path, bytes_: int) -> int:
        """A file will take so much memory, or less where that was said before; returns what all take so far."""
        self._expected[path] = max(bytes_, self._expected.get(path, 0))
        return sum(self._expected.values())

    def size_so_far(self, path: Path) -> int:
        """Bytes on disk of the files up to this one."""
        return self._before[path] + path.stat().st_size

    def report(self) -> None:
        """Report progress."""
        if self._raw is not None and self._total:
            self._on_progress(min(1.0, (self._before[self._path] + self._raw.tell()) / self._total))

    def close(self) -> None:
        """All is read."""
        self._on_progress(1.0)

    def lines(self, path: Path) -> Iterator[tuple[int, bytes]]:
        """The lines of a file with their numbers, from 1. Raises BadLog where it cannot be read."""
        with self.open(path) as file:
            for number, line in enumerate(lines_of(file, path), start=1):
                if number % REPORT_EVERY == 0:
                    self.report()
                yield number, line
