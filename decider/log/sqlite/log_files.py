"""The files of an open log: whether they are still in place, and up to which position the log was acknowledged.

Called by the writer after every commit. Nothing is acknowledged into a file that is gone, since a log that is opened
again would not have it. And the end of a write-ahead log can be lost without a trace: a damaged or missing piece looks
like a commit that was never made, and head and chain go back with it. So a witness beside the log keeps the position.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from zlib import crc32

from decider.errors import LogError
from decider.types import START, Position

SETTLE_TIME = 1_000_000_000
"""Nanoseconds after which a further change of a folder shows a new modification time: file systems count in ticks."""


class FileGone(LogError):
    """A file of the log is not where it was opened. It may come back."""


class LogFiles:
    """The database, its write-ahead log and the index of that, as they are when this is made.

    One `stat` of the folder is enough while no file in it was added, removed or renamed; three more would cost as much
    as a commit.
    """

    def __init__(self, path: Path) -> None:
        real = path.resolve()
        self._path = path
        self._folder = real.parent
        self._paths = [real.with_name(real.name + ending) for ending in ("", "-wal", "-shm")]
        self._is_link = path.is_symlink()
        if self._is_link:
            self._paths.append(path)  # the link must still lead to the same file
        self._inodes = self._look()
        self._unchanged_since: tuple[int, int] | None = None  # inode and time of change of the folder

    def _look(self) -> list[tuple[int, int]]:
        """Raises OSError where one is missing."""
        return [(status.st_dev, status.st_ino) for status in map(os.stat, self._paths)]

    def missing_file(self) -> FileGone | None:
        """An error to raise if one of the files is not the one that was opened."""
        try:
            folder = self._folder.stat()
            state = folder.st_ino, folder.st_mtime_ns
            if state == self._unchanged_since:
                return None
            settled = abs(time.time_ns() - folder.st_mtime_ns) > SETTLE_TIME and not self._is_link
            self._unchanged_since = None
            if self._look() == self._inodes:
                self._unchanged_since = state if settled else None
                return None
        except OSError:
            pass
        return FileGone(
            f"{self._path}: was moved, deleted or replaced under the server; put it back, or restart the server on "
            f"the right file"
        )


_NUMBER = struct.Struct(">Q")
_RECORD = struct.Struct(">QI")  # position, checksum of it: a torn record counts as none


def witness_path(log: Path) -> Path:
    real = log.resolve()
    return real.with_name(real.name + "-last")


def last_acknowledged(log: Path) -> Position:
    """The last position that was acknowledged; 0 where there is no witness."""
    try:
        return _parse(witness_path(log).read_bytes())
    except OSError:
        return START


def _parse(record: bytes) -> Position:
    if len(record) != _RECORD.size:
        return START
    position, checksum = _RECORD.unpack(record)
    return Position(position) if crc32(_NUMBER.pack(position)) == checksum else START


class Witness:
    """A file LOG-last with the last acknowledged position; it exists while a writer has the log open, or was killed.

    Not synced: it survives the death of the process, as the log does with synchronous=NORMAL. Open and remove it while
    no other process does: see `DatabaseFile.alone_or_waiting`.
    """

    def __init__(self, log: Path) -> None:
        self._path = witness_path(log)
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if os.fstat(self._descriptor).st_size != _RECORD.size:
                os.truncate(self._descriptor, 0)
                os.pwrite(self._descriptor, bytes(_RECORD.size), 0)  # room for later, when there may be none
        except OSError as error:
            raise LogError(f"{log}: cannot write {self._path.name} beside it ({error})") from error

    def remember(self, position: Position) -> None:
        """The log reaches to that position, and that will be acknowledged. Another writer may have gone further."""
        if position > _parse(os.pread(self._descriptor, _RECORD.size, 0)):
            self.begin_at(position)

    def begin_at(self, position: Position) -> None:
        """Begin anew from a position, also from an earlier one than before."""
        # One write of 12 bytes with a checksum: a reader sees the old record, the new one, or none.
        os.pwrite(self._descriptor, _RECORD.pack(position, crc32(_NUMBER.pack(position))), 0)

    def close(self, *, remove: bool) -> None:
        """remove: only if everything is in the database itself and nobody else writes."""
        os.close(self._descriptor)
        if remove:
            self._path.unlink(missing_ok=True)
