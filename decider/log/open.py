"""Opens a log: the one place that chooses the implementation for a path. Called by the server and the simulator."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory

from decider.errors import LogError
from decider.log.protocol import EventLog, ForgettingLog, LogReader
from decider.log.sqlite.errors import sqlite_errors
from decider.log.sqlite.locks import check_unused
from decider.log.sqlite.migrations import is_old, migrate
from decider.log.sqlite.reader import SqliteReader, _open_to_read
from decider.log.sqlite.writer import SqliteLog, Synchronous, _ignore_commit, _open_to_write
from decider.types import Time, now

__all__ = ["check_unused", "open_log", "open_reader", "open_to_forget"]


def open_log(
    path: Path,
    *,
    synchronous: Synchronous = "NORMAL",
    clock: Callable[[], Time] = now,
    on_commit: Callable[[int, float], None] = _ignore_commit,
) -> EventLog:
    """A log to write beside other writers; made if there is none, upgraded if an older release made it.

    See SqliteLog. Raises LogError.
    """
    return SqliteLog(path, synchronous=synchronous, clock=clock, on_commit=on_commit)


def open_to_forget(path: Path) -> ForgettingLog:
    """A log that is there, to remove a unit from it. Raises LogError."""
    if not path.is_file():
        raise LogError(f"{path}: there is no such log")
    return SqliteLog(path)


def open_reader(path: Path) -> LogReader:
    """A log to read. One that an older release wrote is read from an upgraded copy, since reading changes nothing.

    Raises LogError.
    """
    return _UpgradedCopy(path) if is_old(path) else SqliteReader(path)


class _UpgradedCopy(SqliteReader):
    """A log of an older release, upgraded in a temporary copy."""

    def __init__(self, path: Path) -> None:
        self._original = path
        with ExitStack() as opened:
            folder = Path(opened.enter_context(TemporaryDirectory(prefix="decider-log-")))
            copy = folder / path.name
            with (
                sqlite_errors(path),
                closing(_open_to_read(path)) as source,
                closing(_open_to_write(copy, "NORMAL")) as target,
            ):
                source.backup(target)
                migrate(target)
            super().__init__(copy)
            self._folder = opened.pop_all()

    @property
    def name(self) -> str:
        """See LogReader."""
        return str(self._original)

    def close(self) -> None:
        """See LogReader."""
        super().close()
        self._folder.close()
