"""Finds the parts of an archive: those that a log names, or all in a folder. Called by `open.py` and by the trainer.

A part is known by its digest, wherever it lies now: at the path where it was written, or in a folder that is named.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

from decider.errors import ArchiveDamaged, ArchiveMissing
from decider.log.archive.files import file_sha256
from decider.log.archive.part import FORGOTTEN, OLD, PART_JSON, UNFINISHED, Part, read_head
from decider.log.sqlite.connection import open_to_read
from decider.log.sqlite.errors import sqlite_errors
from decider.log.tables import json_text
from decider.types import Position

_FIRST_ENTRY = """
select position, time, text from (
  select position, time, definition as text from experiments union all select position, time, build from builds)
order by position limit 1
"""


@dataclass(frozen=True, slots=True)
class NamedPart:
    """A part that a log names. path: where it was written; digest: of its part.json; part: None where it is missing."""

    first: Position
    last: Position
    path: Path
    digest: str
    part: Part | None


def parts_of(log: Path, folders: Sequence[Path] = ()) -> list[NamedPart]:
    """The parts that a log names, in order, looked for where they were written and in the folders. Raises LogError."""
    return [
        NamedPart(first, last, Path(path), digest, _find(Path(path), digest, folders))
        for first, last, path, digest in _rows(log)
    ]


def _rows(log: Path) -> list[tuple[Position, Position, str, str]]:
    with sqlite_errors(log), closing(open_to_read(log)) as connection:
        if not connection.execute("select 1 from sqlite_master where name = 'archives'").fetchone():
            return []  # a log of an older release, which was never trimmed
        return connection.execute("select first, last, path, digest from archives order by first").fetchall()


def archived(path: Path, folders: Sequence[Path] = ()) -> str:
    """Which entries a log or a folder of parts does not have, and how to read them; empty where it has all of them.

    folders: with (more) parts of the archive.
    """
    if path.is_dir():
        begin = parts_in(path, *folders)[0].after.position
        return (
            f"positions 1 to {begin} are in parts that are not there; to include them: --archive DIR" if begin else ""
        )
    rows = _rows(path) if path.is_file() and not folders else []
    if not rows:
        return ""
    places = list(dict.fromkeys(str(Path(place).parent) for _, _, place, _ in rows))
    options = " ".join(f"--archive {place}" for place in places)
    return f"positions {rows[0][0]} to {rows[-1][1]} are in the archive; to include them: {options}"


def found_parts(named: Sequence[NamedPart], folders: Sequence[Path] = ()) -> list[Part]:
    """The parts, which fit together. Raises ArchiveMissing for those that were not found, ArchiveDamaged."""
    missing = [one for one in named if one.part is None]
    if missing:
        names = ", ".join(f"{one.path.name} (positions {one.first} to {one.last})" for one in missing)
        places = list(dict.fromkeys([str(one.path.parent) for one in missing] + [str(folder) for folder in folders]))
        raise ArchiveMissing(
            f"missing parts of the archive: {names}; looked for in {', '.join(places)}; say where they are: "
            "--archive DIR"
        )
    parts = [one.part for one in named if one.part is not None]
    check_joined(parts)
    return parts


def _find(path: Path, digest: str, folders: Sequence[Path]) -> Part | None:
    """By its digest first: what else lies there is none of ours, and need not be whole."""
    there = [one for one in _candidates(path, folders) if is_part(one)]
    for candidate in there:
        if _digest_of(candidate) == digest:
            return read_head(candidate)
    for candidate in there:
        if candidate.name.removeprefix(UNFINISHED) == path.name:
            read_head(candidate)  # says what is wrong with it
    return None


def _digest_of(folder: Path) -> str:
    """Of its part.json; empty where it cannot be read."""
    try:
        return file_sha256(folder / PART_JSON)
    except OSError:
        return ""


def _candidates(path: Path, folders: Sequence[Path]) -> Iterator[Path]:
    """Folders that may be the part: those of its name first; a killed process leaves it with its unfinished name."""
    for place in (path, *[folder / path.name for folder in folders]):
        yield place
        yield place.with_name(f"{UNFINISHED}{path.name}")
        yield place.with_name(f"{FORGOTTEN}{path.name}")
    for folder in folders:
        yield from [folder, *_folders_in(folder)]


def _folders_in(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_dir()) if folder.is_dir() else []


def parts_in(*folders: Path) -> list[Part]:
    """The parts in folders, in order; a folder may be one itself. Raises ArchiveMissing, ArchiveDamaged."""
    parts = sorted(
        [read_head(one) for folder in folders for one in _parts_of_folder(folder)], key=lambda one: one.first
    )
    if not parts:
        left = [one.name for folder in folders for one in _folders_in(folder) if is_part(one)]
        hint = (
            f" but {left[0]}, which gets its own name when the log that names it is next opened by a server or by "
            "`decider archive`; without the log, name it itself"
            if left
            else "; name the folder that `decider archive` wrote to"
        )
        raise ArchiveMissing(f"{folders[0]}: has no part of an archive{hint}")
    check_joined(parts)
    return parts


def _parts_of_folder(folder: Path) -> list[Path]:
    if is_part(folder):
        return [folder]
    return [
        one for one in _folders_in(folder) if is_part(one) and not one.name.startswith((UNFINISHED, FORGOTTEN, OLD))
    ]


def is_part(folder: Path) -> bool:
    """Whether a folder is a part."""
    return (folder / PART_JSON).is_file()


def is_archive(path: Path) -> bool:
    """Whether a path is a folder with parts, or a part."""
    return any(map(is_part, (path, *_folders_in(path))))


def check_joined(parts: Iterable[Part]) -> None:
    """Raises ArchiveDamaged where a part does not begin where the one before it ends."""
    for before, part in pairwise(parts):
        if before.log != part.log:
            raise ArchiveDamaged(
                f"{part.folder}: is of another log than {before.folder.name}; give each log's archive its own folder"
            )
        if part.after.position > before.last:
            raise ArchiveMissing(
                f"{part.folder}: begins at position {part.first}, and {before.folder.name} ends at {before.last}: put "
                "the part between them into the same folder"
            )
        if part.after.position < before.last:
            raise ArchiveDamaged(
                f"{part.folder}: begins at position {part.first}, and {before.folder.name} ends at {before.last}: both "
                "hold the same positions, or they are in the wrong order; move one of them away"
            )
        if part.after != before.until:
            raise ArchiveDamaged(
                f"{part.folder}: does not continue {before.folder.name}: the checksum before it is another than the "
                "one after that; one of them is of another copy of the log"
            )


def identity(connection: sqlite3.Connection) -> str:
    """Tells logs apart: their first definition or build, which stays in a log when it is trimmed."""
    row = connection.execute(_FIRST_ENTRY).fetchone()
    return sha256(json_text(row).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def identity_of(log: Path) -> str:
    """The same of a file. Raises LogError."""
    with sqlite_errors(log), closing(open_to_read(log)) as connection:
        return identity(connection)


def check_same_log(log: Path, folders: Sequence[Path]) -> None:
    """Raises ArchiveMissing for a folder without any part of this log."""
    wanted = identity_of(log)
    for folder in folders:
        there = [one for one in (folder, *_folders_in(folder)) if is_part(one)]
        if not any(_log_of(one) == wanted for one in there):
            has = f"those of another log ({there[0].name})" if there else "none of any log"
            raise ArchiveMissing(f"{folder}: has no part of the archive of {log}, but {has}; name another folder")


def _log_of(folder: Path) -> str:
    """Of which log a part is; empty where it does not say."""
    try:
        return read_head(folder).log
    except (ArchiveDamaged, ArchiveMissing):
        return ""
