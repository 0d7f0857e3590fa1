"""Opens a log: the one place that chooses the implementation for a path or an address. Called by the server and the
simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from decider.errors import LogCorrupt, LogError, LogFull
from decider.log.archive import find
from decider.log.archive.find import (
    check_same_log,
    found_parts,
    identity_of,
    is_archive,
    is_part,
    parts_in,
    parts_of,
)
from decider.log.archive.part import DECISIONS_FILE, Part
from decider.log.forgotten import Removal
from decider.log.place import OF_SCHEMA, LogUrl, has_password, log_place
from decider.log.protocol import CuttableLog, EventLog, ForgettingLog, LogReader, OnProgress
from decider.log.sqlite.backup import Copied, OnCopied, back_up, put_in_place
from decider.log.sqlite.connection import open_to_read
from decider.log.sqlite.cut import SqliteCuttableLog
from decider.log.sqlite.errors import sqlite_errors
from decider.log.sqlite.forgetting import SqliteForgettingLog
from decider.log.sqlite.locks import check_unused
from decider.log.sqlite.locks import is_led as file_is_led
from decider.log.sqlite.migrations import is_old, migrate
from decider.log.sqlite.reader import SqliteReader
from decider.log.sqlite.transfer import SqlitePlace, sqlite_source
from decider.log.sqlite.writer import SqliteLog, Synchronous, _ignore_commit, _open_to_write
from decider.log.transfer import Copied as Transferred
from decider.log.transfer import LogPlace, LogSource, Say
from decider.log.transfer import copy_log as transfer
from decider.types import Time, now

if TYPE_CHECKING:
    from decider.log.postgres.reader import PostgresReader

__all__ = [
    "DECISIONS_FILE",
    "OF_SCHEMA",
    "Copied",
    "LogUrl",
    "archive_folders",
    "archived",
    "back_up_log",
    "check_log",
    "check_unused",
    "copy_log",
    "has_missing_parts",
    "has_password",
    "identity_of",
    "is_archive",
    "is_led",
    "is_part",
    "log_place",
    "open_beside",
    "open_in_memory",
    "open_log",
    "open_reader",
    "open_to_cut",
    "open_to_forget",
    "open_to_plan",
    "open_to_survey",
    "restore_log",
]


def archived(path: Path | LogUrl, folders: Sequence[Path] = ()) -> str:
    """See `archive/find.py`; nothing is archived out of PostgreSQL."""
    return "" if isinstance(path, LogUrl) else find.archived(path, folders)


def has_missing_parts(path: Path) -> bool:
    """Whether a part of the log's archive is not where it was written. Raises LogError."""
    return any(one.part is None for one in parts_of(path))


def archive_folders(path: Path | LogUrl) -> Sequence[Path]:
    """The folders to which parts of a log's archive were written, in order. Raises LogError."""
    return [] if isinstance(path, LogUrl) else list(dict.fromkeys(one.path.parent for one in parts_of(path)))


def back_up_log(path: Path, dest: Path, *, replace: bool, on_copied: OnCopied, on_checked: OnProgress) -> Copied:
    """A checked copy of a log that others may write meanwhile. Raises LogError; then there is none."""
    return back_up(path, dest, force=replace, check=partial(_check_copy, on_checked), on_copied=on_copied)


def restore_log(source: Path, path: Path, *, aside: Path, on_copied: OnCopied, on_checked: OnProgress) -> Copied:
    """A checked copy of a backup as the log; what was there is kept as `aside`. Raises LogError; then nothing has
    changed."""
    return put_in_place(source, path, aside=aside, check=partial(_check_copy, on_checked), on_copied=on_copied)


def _check_copy(on_checked: OnProgress, copy: Path) -> None:
    with closing(open_reader(copy)) as log:
        damages = log.check(on_checked)
    if damages:
        raise LogCorrupt(
            f"the copy is damaged, as the log is or by the way: {damages[0]} ({len(damages)} in all); `decider check` "
            "on the log says more"
        )


def copy_log(source: Path | LogUrl, place: Path | LogUrl, *, say: Say) -> Transferred:
    """Make a log at an empty place that has everything of another one, in either database, and is checked. say: told of
    progress. Raises LogError; then nothing has been made."""
    with ExitStack() as opened:
        if isinstance(source, LogUrl):
            with _needs_psycopg(source):
                from decider.log.postgres.transfer import postgres_source
            found: LogSource = opened.enter_context(postgres_source(source))
        else:
            log = opened.enter_context(closing(open_reader(source)))
            assert isinstance(log, SqliteReader), "a path is of a file"
            found = opened.enter_context(sqlite_source(log.path, log.name))
        return transfer(found, _place_of(place), say)


def _place_of(place: Path | LogUrl) -> LogPlace:
    if isinstance(place, LogUrl):
        with _needs_psycopg(place):
            from decider.log.postgres.transfer import PostgresPlace
        return PostgresPlace(place)
    return SqlitePlace(place)


def open_log(
    path: Path | LogUrl,
    *,
    synchronous: Synchronous = "NORMAL",
    clock: Callable[[], Time] = now,
    on_commit: Callable[[int, float], None] = _ignore_commit,
    on_lost: Callable[[], None] = lambda: None,
    archives: Sequence[Path] = (),
) -> EventLog:
    """A log to write beside other writers; made if there is none, upgraded if an older release made it.

    See SqliteLog and PostgresLog, whose commits are always safe on the disk of PostgreSQL. on_lost: called where a
    connection to a database is lost. Raises LogError.
    """
    if isinstance(path, LogUrl):
        with _needs_psycopg(path):
            from decider.log.postgres.writer import PostgresLog
        return PostgresLog(path, clock=None if clock is now else clock, on_commit=on_commit, on_lost=on_lost)
    return SqliteLog(path, synchronous=synchronous, clock=clock, on_commit=on_commit, archives=archives)


@contextmanager
def _needs_psycopg(url: LogUrl) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise LogError(f"{url}: needs the extra `postgres`: in its source folder, pip install '.[postgres]'") from error


def open_in_memory() -> EventLog:
    """An empty log without a file, to try something out."""
    from decider.log.memory import MemoryLog  # whoever serves has no use for it

    return MemoryLog(clock=now)


def open_to_forget(path: Path | LogUrl, *, archives: Sequence[Path] = ()) -> ForgettingLog:
    """A log that is there, to remove a unit from it. archives: see `open_to_cut`. Raises LogError."""
    if isinstance(path, LogUrl):
        _open_url(path, archives).close()  # a writer would make one where there is none
        from decider.log.postgres.forgetting import PostgresForgettingLog

        return PostgresForgettingLog(path)
    if not path.is_file():
        raise LogError(f"{path}: there is no such log")
    return SqliteForgettingLog(path, archives=archives)


def open_to_cut(path: Path, *, archives: Sequence[Path] = ()) -> CuttableLog:
    """A log out of which an archive run takes entries, beside its servers. Raises LogError, also where there is none.

    archives: folders with parts of its archive that do not lie any more where they were written.
    """
    if not path.is_file():
        raise LogError(f"{path}: there is no such log")
    return SqliteCuttableLog(path, archives=archives)


@contextmanager
def open_to_survey(place: Path | LogUrl, *, archives: Sequence[Path] = ()) -> Iterator[LogReader]:
    """A log whose models are compared with what they would learn; nothing is written. archives: see `open_to_cut`."""
    with (
        closing(_open_url(place, archives))
        if isinstance(place, LogUrl)
        else open_to_plan(place, archives=archives) as log
    ):
        yield log


@contextmanager
def open_to_plan(path: Path, *, archives: Sequence[Path] = ()) -> Iterator[CuttableLog]:
    """The same to see what a run would do. A log of an older release is not upgraded: a temporary copy is."""
    if not is_old(path):
        with closing(open_to_cut(path, archives=archives)) as log:
            yield log
        return
    with TemporaryDirectory(prefix="decider-log-") as folder:
        copy = Path(folder) / path.name
        _upgrade(path, copy)
        with closing(open_to_cut(copy, archives=archives)) as log:
            yield log


def open_reader(path: Path | LogUrl, *, archive: Sequence[Path] = ()) -> LogReader:
    """A log to read. One that an older release wrote is read from an upgraded copy, since reading changes nothing.

    path: of a log, or of a folder with parts of an archive, which is read as the log was then. archive: folders with
    (more) parts; then the whole log is read, put together in a temporary copy.
    Raises LogError; ArchiveMissing, ArchiveDamaged where a part is not what it must be.
    """
    if isinstance(path, LogUrl):
        return _open_url(path, archive)
    if path.is_dir():
        parts = parts_in(path, *archive)
        return _Copy(path, partial(_restore, parts, None), parts)
    if is_old(path):
        return _Copy(path, partial(_upgrade, path))
    return _open_whole(path, archive) if archive else SqliteReader(path)


def is_led(place: Path | LogUrl) -> bool:
    """Whether a server leads a log that is there. Raises LogError."""
    if not isinstance(place, LogUrl):
        return file_is_led(place)
    with closing(_open_url(place, ())) as log:
        return log.is_led()


def check_log(place: Path | LogUrl, archives: Sequence[Path] = ()) -> None:
    """Raises LogError where there is no log: a writer would make one; or archives that its database does not have."""
    if isinstance(place, LogUrl):
        _open_url(place, archives).close()
    elif not place.is_file():
        raise LogError(f"{place}: there is no such log")


def open_beside(path: Path | LogUrl, archives: Sequence[Path]) -> LogReader:
    """A log to read as its servers do: of its archive only what is asked for, where it is asked for.

    archives: folders with parts that do not lie any more where they were written. Raises LogError.
    """
    if isinstance(path, LogUrl):
        return _open_url(path, archives)
    return open_reader(path) if path.is_dir() or is_old(path) else SqliteReader(path, archives=archives)


def _open_url(url: LogUrl, archive: Sequence[Path]) -> PostgresReader:
    if archive:
        raise LogError("nothing is archived out of PostgreSQL yet: leave out --archive")
    with _needs_psycopg(url):
        from decider.log.postgres.reader import PostgresReader as Reader
    return Reader(url)


def _open_whole(path: Path, folders: Sequence[Path]) -> LogReader:
    named = parts_of(path, folders)
    check_same_log(path, folders)
    if not named:
        return SqliteReader(path)
    return _Copy(path, partial(_restore, found_parts(named, folders), path))


class _Copy(SqliteReader):
    """A log in a temporary file, which is gone when it is closed. make: writes it. parts: of which it is made, where
    the entries behind them are not in it."""

    def __init__(self, original: Path, make: Callable[[Path], None], parts: Sequence[Part] = ()) -> None:
        self._original = original
        self._changed = [one for part in parts for one in part.changed]
        self._removals = [one for part in parts for one in part.removals]
        with ExitStack() as opened:
            folder = Path(opened.enter_context(TemporaryDirectory(prefix="decider-log-")))
            copy = folder / original.name
            make(copy)
            super().__init__(copy)
            self._folder = opened.pop_all()

    @property
    def name(self) -> str:
        """See LogReader."""
        return str(self._original)

    def removals(self) -> Sequence[Removal]:
        """See LogReader."""
        return [*super().removals(), *self._removals]

    def close(self) -> None:
        """See LogReader."""
        super().close()
        self._folder.close()


def _upgrade(path: Path, copy: Path) -> None:
    """Copy a log of an older release, and bring the copy up to date."""
    with (
        sqlite_errors(path),
        closing(open_to_read(path)) as source,
        closing(_open_to_write(copy, "NORMAL")) as target,
    ):
        source.backup(target)
        migrate(target)


def _restore(parts: Sequence[Part], live: Path | None, copy: Path) -> None:
    """Put a log together. Raises LogFull with the way out: the copy needs as much room as the whole log."""
    from decider.log.archive.restore import restore  # pyarrow is imported where an archive is read

    try:
        restore(parts, live, copy)
    except LogFull as error:
        raise LogFull(
            f"{copy.parent}: no room for a copy of the whole log; name a folder with more room: TMPDIR=/large"
        ) from error
