"""Remembers beside a log how far it was acknowledged, since the end of a write-ahead log can be lost without a trace: a
damaged or missing piece of it looks like a commit that was never made, and head and chain go back with it.

One file, LOG-last, that is there while a writer has the log open, and after one was killed. It is memory shared with
the kernel: a store takes no call of the system, and it survives the death of the process as the log does.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from zlib import crc32

from decider.errors import LogError
from decider.types import START, Position

_NUMBER = struct.Struct(">Q")
_RECORD = struct.Struct(">QI")  # position, checksum of it: a torn record counts as none


def _path(log: Path) -> Path:
    real = log.resolve()
    return real.with_name(real.name + "-last")


def acknowledged(log: Path) -> Position:
    """The last position that was acknowledged; 0 where nothing remembers it."""
    try:
        return _read(_path(log).read_bytes())
    except OSError:
        return START


def _read(record: bytes) -> Position:
    if len(record) != _RECORD.size:
        return START
    position, checksum = _RECORD.unpack(record)
    return Position(position) if crc32(_NUMBER.pack(position)) == checksum else START


class Witness:
    """For writers. Open and remove it while no other process does: see `DatabaseFile.alone_or_waiting`."""

    def __init__(self, log: Path) -> None:
        self._path = _path(log)
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                if os.fstat(descriptor).st_size != _RECORD.size:
                    os.pwrite(descriptor, bytes(_RECORD.size), 0)  # a hole would need space later, when there is none
                    os.truncate(descriptor, _RECORD.size)
                self._record = mmap.mmap(descriptor, _RECORD.size)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise LogError(f"{log}: cannot write {self._path.name} beside it ({error})") from error

    def remember(self, position: Position) -> None:
        """Everything up to there is in the log and will be acknowledged; another writer may be further."""
        if position > _read(self._record[:]):
            self.begin_at(position)

    def begin_at(self, position: Position) -> None:
        """Forget what was remembered."""
        self._record[:] = _RECORD.pack(position, crc32(_NUMBER.pack(position)))

    def close(self, *, remove: bool) -> None:
        """remove: everything is in the database itself, and nobody else writes."""
        self._record.close()
        if remove:
            self._path.unlink(missing_ok=True)
