"""A file that is there whole or not at all. Used by import, export and the table of a comparison."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from decider.log.open import check_unused
from simulator.logs.errors import BadLog

SIDE_FILES = ("-wal", "-shm", "-last")
"""What SQLite and we keep beside a log."""


@contextmanager
def atomic_path(path: Path, *, force: bool) -> Iterator[Path]:
    """A temporary path to write to; then it is renamed to `path`, or deleted if the writing failed. Raises BadLog.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with atomic_path(Path(folder, "log.csv"), force=False) as path:
    ...         _ = path.write_text("written")
    ...     Path(folder, "log.csv").read_text()
    'written'
    """
    check_free(path, force=force)
    check_unused(path)  # a server may be writing the log
    try:
        # a folder of its own, so that no other process can take the name
        with TemporaryDirectory(prefix=f".{path.name}.part-", dir=path.parent) as folder:
            temporary = Path(folder, path.name)
            yield temporary
            # before the new log is there: SQLite would replay the old one's write-ahead log into it
            for beside in SIDE_FILES:
                path.with_name(path.name + beside).unlink(missing_ok=True)
            temporary.replace(path)
    except OSError as error:
        raise BadLog(f"{path}: cannot be written ({error.strerror or error}); choose another place") from error


def check_free(path: Path, *, force: bool) -> None:
    """Raises BadLog where something is that must stay.

    >>> check_free(Path("/"), force=True)
    Traceback (most recent call last):
    simulator.logs.errors.BadLog: /: is a folder; name a file in it
    """
    if path.is_dir():
        raise BadLog(f"{path}: is a folder; name a file in it")
    if path.exists() and not force:
        raise BadLog(f"{path}: is there already; name another file, or overwrite it: --force")
