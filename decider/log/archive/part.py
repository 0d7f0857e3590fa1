"""A part of an archive: a folder of Parquet files with all entries of a log between two positions.

`part.json` names every file with its checksum. Called by the other modules of this room and by `open.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from decider.errors import ArchiveDamaged, ArchiveMissing, LogCorrupt, LogError
from decider.log.archive.files import file_sha256, sync
from decider.log.forgotten import ChangedCommit, Removal, removals
from decider.log.protocol import Head, Mark
from decider.log.tables import (
    DECISIONS,
    ENTRY_TABLES,
    LEAVE_OUTS,
    LINKS,
    RECALLS,
    REWARD_CHANGES,
    SEALS,
    UNIT_REWARDS,
    VERSION_NOTES,
    WITHHELD,
    EntryTable,
)
from decider.types import Position, Time

FORMAT = 1
"""Of the files of a part."""

PART_JSON = "part.json"
"""Written last, so that a part that has it is complete."""

UNFINISHED = ".unfinished-"
"""Before the name of a part's folder until the log names the part."""

WRITER = ".writer"
"""A file of an unfinished part that says which file of a log it was written from."""

FORGOTTEN, OLD = ".forgotten-", ".old-"
"""Before the name of a part's folder that takes its place once a unit is removed, and of the one that it replaces."""

MARKS = "marks.parquet"

NAMED = "named-"
"""Before the name of a file with rows of earlier positions that the part's decisions name."""


def file_of(table: EntryTable) -> str:
    """The name of the file with a table's entries."""
    return f"{table.name}.parquet"


DECISIONS_FILE = file_of(DECISIONS)

LATER_TABLES = (REWARD_CHANGES, SEALS, UNIT_REWARDS, LINKS, WITHHELD, RECALLS, LEAVE_OUTS, VERSION_NOTES)
"""Of which parts of older releases have no file."""

FILES = (*[file_of(table) for table in ENTRY_TABLES if table not in LATER_TABLES], MARKS)
"""The files that every part has."""


@dataclass(frozen=True, slots=True)
class PartFile:
    """What a file of a part must be. sha256: in hexadecimal."""

    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Part:
    """The entries of a log in (after, until], in a folder.

    log: says of which log it is a part: `identity` in write.py. chain_start: see LogReader.chain_start. digest: of
    part.json, in hexadecimal. changed: commits out of which something was removed (`log/forgotten.py`). removals: those
    that changed this part; their entries lie behind it.
    """

    folder: Path
    log: str
    after: Head
    until: Head
    chain_start: Mark | None
    files: Mapping[str, PartFile]
    digest: str
    changed: tuple[ChangedCommit, ...] = ()
    removals: tuple[Removal, ...] = ()

    @property
    def first(self) -> Position:
        """The position of the first entry."""
        return Position(self.after.position + 1)

    @property
    def last(self) -> Position:
        """The position of the last entry."""
        return self.until.position

    @property
    def name(self) -> str:
        """Of the folder, once the part is finished."""
        return self.folder.name.removeprefix(UNFINISHED).removeprefix(FORGOTTEN).removeprefix(OLD)


def to_text(part: Part) -> str:
    """The content of part.json. It has no word of when and where it was written: the same entries give the same text.

    >>> text = to_text(Part(Path("x"), "7a", Head(0, 0, b""), Head(1, 5, b"A"), None, {}, ""))
    >>> json.loads(text)["until"]
    {'position': 1, 'time': 5, 'chain': '41'}
    """
    content = {
        "format": FORMAT,
        "log": part.log,
        "after": _from_head(part.after),
        "until": _from_head(part.until),
        "chain_start": part.chain_start and part.chain_start._asdict(),
        "files": {name: asdict(file) for name, file in part.files.items()},
    }
    if part.changed:
        content["changed"] = [one.to_json() for one in part.changed]
    if part.removals:
        content["removals"] = [one.to_build() for one in part.removals]
    return json.dumps(content, indent=1) + "\n"


def _from_head(head: Head) -> dict[str, Any]:
    return {"position": head.position, "time": head.time, "chain": head.chain.hex()}


def _to_head(content: Mapping[str, Any]) -> Head:
    return Head(Position(_whole(content, "position")), Time(_whole(content, "time")), bytes.fromhex(content["chain"]))


def _to_file(content: Mapping[str, Any]) -> PartFile:
    return PartFile(_whole(content, "rows"), _whole(content, "bytes"), str(content["sha256"]))


def _whole(content: Mapping[str, Any], name: str) -> int:
    value = content[name]
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{name} is {value!r}")
    return value


def read_head(folder: Path) -> Part:
    """What part.json says; the files are not looked at. Raises ArchiveMissing, ArchiveDamaged."""
    file = folder / PART_JSON
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ArchiveMissing(f"{folder}: is no part of an archive, it has no readable {PART_JSON} ({error})") from error
    try:
        return _parse(folder, text)
    except (ValueError, KeyError, TypeError, AttributeError, LogCorrupt) as error:
        raise ArchiveDamaged(f"{file}: is damaged ({error}); put a copy of it in its place") from error


def _parse(folder: Path, text: bytes) -> Part:
    content = json.loads(text)
    if content["format"] != FORMAT:
        raise ArchiveDamaged(
            f"{folder / PART_JSON}: has format {content['format']}, this release reads format {FORMAT}; upgrade to "
            "read it"
        )
    start = content["chain_start"]
    return Part(
        folder=folder,
        log=str(content["log"]),
        after=_to_head(content["after"]),
        until=_to_head(content["until"]),
        chain_start=Mark(Position(_whole(start, "position")), Time(_whole(start, "time"))) if start else None,
        files={name: _to_file(file) for name, file in content["files"].items()},
        digest=sha256(text).hexdigest(),
        changed=tuple(map(ChangedCommit.from_json, content.get("changed", ()))),
        removals=tuple(removals(content.get("removals", ()))),
    )


def finish_part(part: Part) -> Part:
    """Give a part its own name, once the log names it; nothing is done where it has it. Raises LogError."""
    final = part.folder.with_name(part.name)
    try:
        if part.folder != final and part.folder.exists():
            part.folder.rename(final)
            sync(final.parent)
            (final / WRITER).unlink(missing_ok=True)
    except OSError as error:
        raise LogError(
            f"{part.folder}: the part of the archive cannot get its name {final.name} ({error}); make its folder "
            "writable, or run `decider archive` where it is"
        ) from error
    return read_head(final)


def read_part(folder: Path) -> Part:
    """A part whose files are all what was written. Raises ArchiveMissing, ArchiveDamaged."""
    part = read_head(folder)
    check_sizes(part)
    for name in part.files:
        check_content(part, name)
    return part


def check_sizes(part: Part) -> None:
    """Whether the files are there and as long as they should be, without reading them. Raises ArchiveMissing,
    ArchiveDamaged."""
    for name in FILES:
        if name not in part.files:
            raise ArchiveDamaged(f"{part.folder / PART_JSON}: does not name {name}; put a copy of it in its place")
    for name, expected in part.files.items():
        path = part.folder / name
        if not path.is_file():
            raise ArchiveMissing(f"{path}: is missing; put a copy of it there")
        found = path.stat().st_size
        if found != expected.bytes:
            raise ArchiveDamaged(f"{path}: has {found} bytes and not {expected.bytes}; put a copy of it in its place")


def check_content(part: Part, name: str) -> None:
    """Whether a file is what was written; a file that has not changed is read once. Raises ArchiveDamaged."""
    path = part.folder / name
    status = path.stat()
    if (
        _sha256_of(path, (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
        != part.files[name].sha256
    ):
        raise ArchiveDamaged(f"{path}: was changed since it was written (sha256); put a copy of it in its place")


@lru_cache(maxsize=1024)
def _sha256_of(path: Path, _state: tuple[int, ...]) -> str:
    return file_sha256(path)
