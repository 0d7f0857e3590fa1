"""Locks on the database file, whatever name it is opened by: for the leader, for a commit, for all writers.

They are locks of an open file description (F_OFD_SETLK) on bytes far beyond SQLite's own, so the operating system
releases them when the process ends, however it ends. Closing *any* descriptor of a file drops all of SQLite's own locks
on it in this process (POSIX). So each process has one descriptor for a file and closes it with its last reader or
writer of that file: they share a `DatabaseFile`.
"""

from __future__ import annotations

import fcntl
import glob
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from decider.errors import LogError, LogLocked

LEADER = 1 << 62
"""The byte whose lock is the lease."""

COMMIT = LEADER + 1
"""The byte that a commit locks while there are other writers."""

WRITER = LEADER + 2
"""The byte on which every process that writes the log has a shared lock."""

ARCHIVE = LEADER + 3
"""The byte that an archive run locks, and whoever deletes archived entries."""

LOOK_AGAIN = 0.05
"""Seconds for which a writer that was the only one assumes that it still is."""

_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, pid (0 for locks of this kind)


def _flock(kind: int, byte: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0)


class DatabaseFile:
    """A file of this process's readers and writers, shared by all of them."""

    def __init__(self, key: tuple[int, int]) -> None:
        self.key = key
        self.holders = 0
        self.writers = 0
        self.led = False
        self.archiving = threading.Lock()
        self.commit = threading.Lock()
        self._descriptor: int | None = None
        self._alone_until = 0.0
        self._locked = False

    def open(self, path: Path) -> None:
        """Open the descriptor that the locks are on. Raises LogError."""
        if self._descriptor is None:
            try:
                self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except OSError as error:
                raise LogError(f"{path}: cannot be written there ({error}); choose another place") from error

    def close(self) -> None:
        """Close the descriptor; no reader or writer of this process may have the file open."""
        if self._descriptor is not None:
            os.close(self._descriptor)

    def try_to_lock(self, byte: int, kind: int = fcntl.F_WRLCK) -> bool:
        """Whether no other process keeps the lock."""
        try:
            fcntl.fcntl(self._open_descriptor, fcntl.F_OFD_SETLK, _flock(kind, byte))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def unlock(self, byte: int) -> None:
        """Give a lock back."""
        fcntl.fcntl(self._open_descriptor, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK, byte))

    def is_locked_by_others(self, byte: int) -> bool:
        """Whether another process has a lock on a byte, shared or not."""
        answer = fcntl.fcntl(self._open_descriptor, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, byte))
        kind: int = struct.unpack(_FLOCK, answer)[0]
        return kind != fcntl.F_UNLCK

    @property
    def _open_descriptor(self) -> int:
        assert self._descriptor is not None, "`open` it first"
        return self._descriptor

    @contextmanager
    def try_to_archive(self) -> Iterator[bool]:
        """The right to take entries out of the log; False while somebody else has it, in this process or another."""
        if not self.archiving.acquire(blocking=False):
            yield False
            return
        try:
            locked = self.try_to_lock(ARCHIVE)
            try:
                yield locked
            finally:
                if locked:
                    self.unlock(ARCHIVE)
        finally:
            self.archiving.release()

    def __enter__(self) -> bool:
        """The right to commit; whether this is the log's only writer, which saves two calls of the system then. Other
        processes queue here: SQLite's own lock goes to whoever asks at the moment it is free, so that a busy writer
        starves the others."""
        # The thread lock before the file lock: file locks do not exclude threads of one process. A process that begins
        # to write within LOOK_AGAIN is not seen here; then SQLite's own lock still keeps the two commits apart.
        self.commit.acquire()
        if time.monotonic() < self._alone_until:
            return self.writers == 1
        if self.is_locked_by_others(WRITER):
            fcntl.fcntl(self._open_descriptor, fcntl.F_OFD_SETLKW, _flock(fcntl.F_WRLCK, COMMIT))
            self._locked = True
            return False
        self._alone_until = time.monotonic() + LOOK_AGAIN
        return self.writers == 1

    def __exit__(self, *_: object) -> None:
        if self._locked:
            self._locked = False
            self.unlock(COMMIT)
        self.commit.release()

    @contextmanager
    def alone_or_waiting(self) -> Iterator[bool]:
        """No commit of any process meanwhile. True if no other writer has the log open, in this process or another."""
        with self.commit:
            fcntl.fcntl(self._open_descriptor, fcntl.F_OFD_SETLKW, _flock(fcntl.F_WRLCK, COMMIT))
            try:
                yield self.writers == 1 and not self.is_locked_by_others(WRITER)
            finally:
                self.unlock(COMMIT)


_files: dict[tuple[int, int], DatabaseFile] = {}
_guard = threading.Lock()


def hold(path: Path) -> DatabaseFile:
    """Share the file at a path, until `let_go`. Raises LogError where there is none."""
    try:
        status = path.stat()
    except OSError as error:
        raise LogError(f"{path}: there is no such log") from error
    with _guard:
        file = _files.setdefault((status.st_dev, status.st_ino), DatabaseFile((status.st_dev, status.st_ino)))
        file.holders += 1
        return file


def let_go(file: DatabaseFile) -> None:
    """The end of a reader or writer; call it after its connections are closed."""
    with _guard:
        file.holders -= 1
        if not file.holders:
            file.close()
            del _files[file.key]


def start_writing(file: DatabaseFile, path: Path) -> None:
    """Show other processes that this one has the log open for writing. Raises LogError, also for a file with a second
    name: SQLite's write-ahead log belongs to the name, so two names would be two logs in one file."""
    if path.stat().st_nlink > 1:
        raise LogError(f"{path}: {_about_second_name(path)}")
    with _guard:
        file.open(path)
        if not file.writers and not file.try_to_lock(WRITER, fcntl.F_RDLCK):
            raise LogLocked(f"{path}: is about to be replaced by another process")
        file.writers += 1


def name_of_killed_restore(path: Path) -> Path | None:
    """Where a restore that was killed keeps the log, with its write-ahead log; None where there is no such file."""
    names = path.parent.glob(f"{glob.escape(path.name)}.before-*") if path.exists() else ()
    return next((one for one in names if one.samefile(path) and _has_wal_of(one, path)), None)


def _has_wal_of(name: Path, path: Path) -> bool:
    """Or that has no commits, as whoever only reads leaves it. Who links a log by hand may have left it out."""
    ours, other = Path(f"{path}-wal"), Path(f"{name}-wal")
    return not ours.exists() or not ours.stat().st_size or (other.exists() and other.samefile(ours))


def _about_second_name(path: Path) -> str:
    old = name_of_killed_restore(path)
    if old is not None:
        return (
            f"the file has a second name, since a restore was killed: the old log is whole as {old}; make the restore "
            f"again, or go back to the old log: remove {path}, {path}-wal and {path}-last, then move {old}, {old}-wal "
            f"and {old}-last to their places, as far as they are there"
        )
    return (
        "the file has a second name (a hard link), under which others would write past this one; remove one of the "
        f"names (`find -samefile {path}` lists them) or make a copy"
    )


def stop_writing(file: DatabaseFile) -> None:
    """The opposite of `start_writing`."""
    with _guard:
        file.writers -= 1
        if not file.writers:
            file.unlock(WRITER)


class FileLease:
    """See Lease. Raises LogLocked while another process, or another log of this process, leads."""

    def __init__(self, file: DatabaseFile, name: str) -> None:
        self._file = file
        with _guard:
            if file.led or not file.try_to_lock(LEADER):
                raise LogLocked(f"{name}: another server writes this log; end it or name another file")
            file.led = True
        self.held, self.replaced = True, False

    def release(self) -> None:
        """See Lease."""
        with _guard:
            if self.held:
                self.held = self._file.led = False
                self._file.unlock(LEADER)


def check_unused(path: Path) -> None:
    """Call it before another file takes a log's place. Raises LogLocked while a process writes or leads the log."""
    if not path.is_file():
        return
    file = hold(path)
    try:
        with _guard:
            file.open(path)
            used = file.writers or file.is_locked_by_others(WRITER) or file.is_locked_by_others(LEADER)
    finally:
        let_go(file)
    if used:
        raise LogLocked(f"{path}: another server writes this log; end it or name another file")


@contextmanager
def replacing(path: Path) -> Iterator[None]:
    """While another file takes a log's place, no process begins to write it. Raises LogLocked while one does."""
    if not path.is_file():
        yield
        return
    file = hold(path)
    try:
        with _guard:
            file.open(path)
            if file.writers or not file.try_to_lock(WRITER):
                raise LogLocked(f"{path}: another server writes this log; end it or name another file")
        try:
            yield
        finally:
            file.unlock(WRITER)
    finally:
        let_go(file)


def is_led(path: Path) -> bool:
    """Whether a process seals and learns a log. Raises LogError."""
    file = hold(path)
    try:
        with _guard:
            file.open(path)
            return file.led or file.is_locked_by_others(LEADER)
    finally:
        let_go(file)
