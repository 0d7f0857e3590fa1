"""A copy of a log that others write meanwhile, and a copy put in a log's place. Called by `decider backup` and
`decider restore`, through `open.py`.

The copy is made from one snapshot, page by page, with SQLite's own backup. A snapshot holds up no commit: it only keeps
the write-ahead log from beginning anew until the copy is made. `vacuum into` would hold the same snapshot, and takes
twice the processor time, since it builds every index again. A copy is compared with its own checksums, and its end with
that of the snapshot, before it gets its name: so what has the name of a backup is one.
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from decider.errors import LogCorrupt, LogError
from decider.log.protocol import Head
from decider.log.rows import head_in
from decider.log.sqlite.connection import open_to_read
from decider.log.sqlite.errors import sqlite_errors
from decider.log.sqlite.locks import check_unused, name_of_killed_restore, replacing
from decider.log.sqlite.log_files import last_acknowledged, witness_path
from decider.types import START, Position, Time

PAGES = 2_000
"""Of 4 KiB that are copied at once: progress is told in between."""

BESIDE = ("-wal", "-shm", "-last")
"""Endings of what belongs to a log's file: a file that gets its name must not find what belonged to another one."""

OnCopied = Callable[[int, int], None]
"""Called now and then with the pages that are copied, and with all of them."""

Check = Callable[[Path], None]
"""Raises LogCorrupt where a copy is not whole."""


@dataclass(frozen=True, slots=True)
class Copied:
    """head: of the copy; position and time are 0 for a log from before the chain. kept: the old log, if it took the
    place of one."""

    head: Head
    bytes: int
    kept: Path | None = None


def back_up(log: Path, dest: Path, *, force: bool, check: Check, on_copied: OnCopied) -> Copied:
    """A copy of a log as dest. force: also where there is one. Raises LogError; then dest is as it was."""
    check_dest(log, dest, force=force)
    with _copy_of(log, beside=dest, check=check, on_copied=on_copied) as (copy, copied):
        check_dest(log, dest, force=force)  # somebody else may have made it meanwhile
        take_name(copy, dest)
    return copied


def take_name(copy: Path, dest: Path) -> None:
    """A copy gets its name, and finds nothing there that belonged to another log."""
    for ending in BESIDE:
        beside(dest, ending).unlink(missing_ok=True)
    copy.replace(dest)
    sync_folder(dest.parent)


def check_dest(log: Path, dest: Path, *, force: bool) -> None:
    """Whether a copy of a log may get the name `dest`. force: also where there is one. Raises LogError."""
    check_place(dest)
    if dest.exists() and dest.samefile(log):
        raise LogError(f"{dest}: is the log itself; name another file")
    there = (
        [dest] if dest.exists() else [one for one in (beside(dest, "-wal"), beside(dest, "-last")) if _has_content(one)]
    )
    if there and not force:
        raise LogError(f"{there[0]}: is there already; name another file, or replace it with --force")
    check_unused(dest)


def check_place(dest: Path) -> None:
    """Whether a log may be made there. Raises LogError."""
    if dest.is_dir():
        raise LogError(f"{dest}: is a folder; name the file that the copy is to be, for example {dest / 'shop.db'}")
    _check_name(dest)
    if not dest.parent.is_dir():
        raise LogError(f"{dest.parent}: there is no such folder; make it, or name another place")


def _check_name(path: Path) -> None:
    """A log must take the place of no device and of nothing that belongs to another log, whoever may do so."""
    if path.exists() and not path.is_file():
        raise LogError(f"{path}: is no regular file; name another one")
    if path.name.endswith(BESIDE):
        raise LogError(f"{path}: is the name of a file that belongs to a log; take another ending")


def _has_content(path: Path) -> bool:
    """Whoever only reads a log leaves an empty write-ahead log beside it."""
    return path.exists() and path.stat().st_size > 0


def put_in_place(source: Path, log: Path, *, aside: Path, check: Check, on_copied: OnCopied) -> Copied:
    """A copy of source as the log. What was there is kept under the name `aside`, with its write-ahead log. Raises
    LogLocked while somebody writes the log, LogError; then the log is as it was."""
    if log.exists() and log.samefile(source):
        raise LogError(f"{source}: is the log itself; name a backup")
    if log.is_symlink():
        raise LogError(f"{log}: is a link; name the file that it leads to, {log.resolve()}")
    _check_name(log)
    check_unused(log)  # before the work of a copy
    with _copy_of(source, beside=log, check=check, on_copied=on_copied) as (copy, copied), replacing(log):
        # A second name first: killed at any moment, the old log is still whole under one of its names, and a server
        # refuses a file that has two. The file itself is linked last, so that what has the new name is all there.
        # Where a killed run has linked it already, that name has all of it, and this one may lack commits.
        kept = name_of_killed_restore(log)
        for ending in ("-last", "-wal", "") if kept is None else ():
            if beside(log, ending).exists():
                _link(beside(log, ending), beside(aside, ending))
        # SQLite would read the old log's commits as the new one's. Without them the old file looks whole, and ends too
        # early: LOG-last says so to whoever reads it after a kill, and goes when the new log is there.
        for ending in ("-wal", "-shm"):
            beside(log, ending).unlink(missing_ok=True)
        copy.replace(log)
        beside(log, "-last").unlink(missing_ok=True)
        sync_folder(log.parent)
    return replace(copied, kept=kept or (aside if aside.exists() else None))


def _link(old: Path, new: Path) -> None:
    try:
        os.link(old, new)
    except OSError as error:
        raise LogError(
            f"{new}: the old log cannot be kept under this name ({error}); move {old} away by hand, with {old}-wal, "
            "and restore again"
        ) from error


def beside(log: Path, ending: str) -> Path:
    """A file that belongs to a log, by its ending."""
    return witness_path(log) if ending == "-last" else log.with_name(log.name + ending)


@contextmanager
def _copy_of(log: Path, *, beside: Path, check: Check, on_copied: OnCopied) -> Iterator[tuple[Path, Copied]]:
    """A checked copy in a folder of its own on the same disk, which is gone afterwards."""
    if not log.is_file():
        raise LogError(f"{log}: there is no such log")
    with folder_of_our_own(beside) as folder:
        copy = folder / beside.name
        head = _copy(log, copy, on_copied)
        check(copy)
        with sqlite_errors(copy), closing(open_to_read(copy)) as connection:
            if _head(connection) != head:
                raise LogCorrupt(f"{copy}: the copy does not end as the log did; try again")
        sync_file(copy)
        shutil.copymode(log, copy)
        yield copy, Copied(head, copy.stat().st_size)


@contextmanager
def folder_of_our_own(beside: Path) -> Iterator[Path]:
    """Hidden, and locked while it is in use, so that the next run knows what a killed one has left. Raises LogError."""
    prefix = f".{beside.name}-"
    for left in beside.parent.glob(f"{glob.escape(prefix)}????????"):
        _discard(left, beside.name)
    try:
        folder = TemporaryDirectory(prefix=prefix, dir=beside.parent)
    except OSError as error:
        raise LogError(f"{beside.parent}: cannot be written ({error}); name another place") from error
    with folder as name, _locked(Path(name)):
        yield Path(name)


def _discard(folder: Path, name: str) -> None:
    """Remove a folder with the files of a killed run. An empty one takes no room, and may be about to be locked."""
    files = [one.name for one in folder.iterdir()]
    if files and all(one.startswith(name) for one in files):
        with _locked(folder) as mine:
            if mine:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether nobody else has locked it; the operating system ends a lock with its process."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = True
    except OSError:  # or its file system has no locks
        mine = False
    try:
        yield mine
    finally:
        os.close(descriptor)


def _copy(log: Path, copy: Path, on_copied: OnCopied) -> Head:
    """Copy one snapshot; returns its head."""
    acknowledged = last_acknowledged(log)  # before the snapshot, since writers go on
    with (
        sqlite_errors(log),
        closing(open_to_read(log)) as source,
        closing(sqlite3.connect(copy, isolation_level=None)) as target,
    ):
        source.execute("begin")  # else every commit of others would make the copy begin anew
        head = _head(source)
        check_acknowledged(log, head.position, acknowledged)
        source.backup(target, pages=PAGES, progress=lambda _, left, all_: on_copied(all_ - left, all_), sleep=0)
    return head


def check_acknowledged(log: Path, end: Position, acknowledged: Position) -> None:
    """Raises LogCorrupt where a log ends before the last entry that was acknowledged."""
    if START < end < acknowledged:
        raise LogCorrupt(
            f"{log}: positions {end + 1} to {acknowledged} were acknowledged and are not there: the write-ahead log "
            "is damaged or gone; `decider check` says more. A copy without them is no backup"
        )


def _head(connection: sqlite3.Connection) -> Head:
    if not connection.execute("select 1 from sqlite_master where name = 'head'").fetchone():
        return Head(START, Time(0), b"")  # a log from before the chain
    return head_in(connection.execute("select position, time, chain from head").fetchone())


def sync_file(path: Path) -> None:
    """So that its content survives a power loss."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """So that a name survives a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
