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
from decider.log.archive.part import PART_JSON, UNFINISHED, Part, read_head
from decider.log.sqlite.errors import sqlite_errors
from decider.log.sqlite.reader import _open_to_read
from decider.log.sqlite.tables import json_text
from decider.types import START, Position

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
    with sqlite_errors(log), closing(_open_to_read(log)) as connection:
        if not connection.execute("select 1 from sqlite_master where name = 'archives'").fetchone():
            return []  # a log of an older release, which was never trimmed
        return connection.execute("select first, last, path, digest from archives order by first").fetchall()


def archived(log: Path) -> str:
    """Which entries a log has given to an archive and how to read them, in words; empty where it has all of them."""
    rows = _rows(log) if log.is_file() else []
    if not rows:
        return ""
    first, last = rows[0][0], rows[-1][1]
    folders = list(dict.fromkeys(str(Path(path).parent) for _, _, path, _ in rows))
    options = " ".join(f"--archive {folder}" for folder in folders)
    return f"positions {first} to {last} are in the archive; to include them: {options}"


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
    for candidate in _candidates(path, folders):
        if is_part(candidate):
            part = read_head(candidate)
            if part.digest == digest:
                return part
    return None


def _candidates(path: Path, folders: Sequence[Path]) -> Iterator[Path]:
    """Folders that may be the part: those of its name first; a killed process leaves it with its unfinished name."""
    for place in (path, *[folder / path.name for folder in folders]):
        yield place
        yield place.with_name(f"{UNFINISHED}{path.name}")
    for folder in folders:
        yield from [folder, *_folders_in(folder)]


def _folders_in(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.is_dir()) if folder.is_dir() else []


def parts_in(folder: Path) -> list[Part]:
    """The parts in a folder, in order; the folder may be one itself. Raises ArchiveMissing, ArchiveDamaged."""
    if is_part(folder):
        return [read_head(folder)]
    finished = [one for one in _folders_in(folder) if not one.name.startswith(UNFINISHED)]
    parts = sorted([read_head(one) for one in finished if is_part(one)], key=lambda part: part.first)
    if not parts:
        raise ArchiveMissing(f"{folder}: has no part of an archive; name the folder that `decider archive` wrote to")
    check_joined(parts)
    return parts


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


def check_begins(parts: Sequence[Part]) -> None:
    """Raises ArchiveMissing where the first part does not begin with the log's first entry."""
    if parts and parts[0].after.position != START:
        raise ArchiveMissing(
            f"{parts[0].folder}: begins at position {parts[0].first}: put the parts before it into the same folder"
        )


def identity(connection: sqlite3.Connection) -> str:
    """Tells logs apart: their first definition or build, which stays in a log when it is trimmed."""
    row = connection.execute(_FIRST_ENTRY).fetchone()
    return sha256(json_text(row).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def check_same_log(log: Path, folders: Sequence[Path]) -> None:
    """Raises ArchiveMissing for a folder without any part of this log."""
    with sqlite_errors(log), closing(_open_to_read(log)) as connection:
        wanted = identity(connection)
    for folder in folders:
        there = [one for one in (folder, *_folders_in(folder)) if is_part(one)]
        if not any(read_head(one).log == wanted for one in there):
            has = f"those of another log ({there[0].name})" if there else "none of any log"
            raise ArchiveMissing(f"{folder}: has no part of the archive of {log}, but {has}; name another folder")
