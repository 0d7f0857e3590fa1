"""Totals stored in the log, so that a start need not count it all again. Called by the reader, writer and check.

For whoever deletes entries: `write_checkpoint` within his own transaction, or `keep_checkpoint` before he begins. From
then on the log cannot be counted from its start: counting begins at the checkpoint that is kept.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from hashlib import sha256

from decider.log import chain
from decider.log.commits import head_after
from decider.log.protocol import Head, Mark, TotalsCheckpoint
from decider.log.rows import head_in, row_type
from decider.log.sqlite.commits import commits, originals
from decider.log.tables import ENTRY_TABLES
from decider.log.totals import CONTENT_FORMAT as FORMAT
from decider.log.totals import LabelTotals
from decider.types import START, Position, Time

logger = logging.getLogger(__name__)

WITHOUT_GROUPS, BY_SEAL = OLD_FORMATS = (1, 2)
"""Of older builds: the first did not count the policy and the holdout apart, both counted a decision as soon as a final
reward had sealed it. They are only used where the entries may be gone; others are counted anew, once."""

ORDINARY = 2
"""So many are left beside the kept ones: the newest, and one more if that is damaged."""

_ROW = row_type("position, time, chain, format, kept, content, checksum")
_SELECT = f"select {_ROW.columns} from totals_checkpoints"  # noqa: S608 - a constant
_INSERT = f"insert into totals_checkpoints ({_ROW.columns}) values (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_FORGET = f"""
delete from totals_checkpoints where (format in {OLD_FORMATS} and not kept)
  or position < (select coalesce(max(position), 0) from totals_checkpoints where kept)
  or (not kept and position not in (select position from totals_checkpoints order by position desc limit ?))
"""  # noqa: S608 - a constant


class Stored:
    """A row of `totals_checkpoints`."""

    def __init__(self, row: tuple[int, int, bytes, int, int, str, str]) -> None:
        self.row = _ROW.make(row)

    @property
    def position(self) -> Position:
        """Up to and with this entry."""
        return Position(self.row.position)

    @property
    def checkpoint(self) -> TotalsCheckpoint:
        """As the log gives it to others."""
        return TotalsCheckpoint(Mark(self.position, Time(self.row.time)), self.row.chain, self.row.content)

    @property
    def kept(self) -> bool:
        """Whether entries up to here may be gone."""
        return bool(self.row.kept)

    @property
    def is_old(self) -> bool:
        """Whether an older release counted it, and it can be counted anew."""
        return self.row.format in OLD_FORMATS and not self.kept and self._is_as_written

    @property
    def totals(self) -> LabelTotals:
        """The content. Raises ValueError, TypeError or KeyError where it is none."""
        return LabelTotals.from_json(self.row.content)

    @property
    def _is_as_written(self) -> bool:
        checksum: str = self.row.checksum
        return checksum == _checksum(*self.row[:-1])

    def problem(self, connection: sqlite3.Connection) -> str:
        """Why it cannot be used; nothing if it can."""
        if self.row.format not in (FORMAT, *OLD_FORMATS):
            return f"it has format {self.row.format}, this release reads {FORMAT}"
        if not self._is_as_written:
            return "its checksum is wrong"
        return self._problem_of_place(connection)

    def _problem_of_place(self, connection: sqlite3.Connection) -> str:
        end = _head(connection)
        if self.position > end.position or self.row.time > end.time:
            return f"the log ends at position {end.position}"
        # What a kept one counts may be gone, so that no chain leads there.
        if not self.kept and _chain_at(connection, self.position) != self.row.chain:
            return "the log has other entries there"
        return ""


def _checksum(position: int, time: int, chain: bytes, format_: int, kept: int, content: str) -> str:
    place = f"{position} {time} {chain.hex() if isinstance(chain, bytes) else chain} {format_} {kept} "
    return sha256(f"{place}{content}".encode("utf-8", "surrogateescape")).hexdigest()


def stored_checkpoints(connection: sqlite3.Connection, until: Mark | None = None) -> Iterator[Stored]:
    """Those stored, the newest first; usable or not."""
    rows = connection.execute(f"{_SELECT} order by position desc").fetchall()
    for row in map(Stored, rows):
        if row.is_old:
            continue
        if until is None or (row.position <= until.position and row.row.time <= until.time):
            yield row


def newest_checkpoint(connection: sqlite3.Connection, name: str, until: Mark | None = None) -> TotalsCheckpoint | None:
    """The newest that can be used; a line in the server's output names those that cannot. name: of the log."""
    usable = True
    for stored in stored_checkpoints(connection, until):
        problem = stored.problem(connection)
        if not problem:
            return stored.checkpoint
        logger.warning(
            "%s: the totals stored at position %d are not used: %s; counting from an earlier place",
            name, stored.position, problem,
        )  # fmt: skip
        usable = False
    if not usable:
        _say_what_is_missing(connection, name)
    return None


def _say_what_is_missing(connection: sqlite3.Connection, name: str) -> None:
    """No stored totals can be used: what is archived cannot be counted."""
    for (last,) in connection.execute("select position from cut"):
        logger.error(
            "%s: no stored totals can be used, so the archived decisions up to position %d are missing from the "
            "counters; restore a copy of the log to have them again", name, last,
        )  # fmt: skip


def may_be_gone(connection: sqlite3.Connection, after: Position) -> bool:
    """Whether entries behind a position may be gone, since they are counted in totals that are kept."""
    kept = map(Stored, connection.execute(f"{_SELECT} where kept and position > ?", (after,)).fetchall())
    return any(not stored.problem(connection) for stored in kept)


def write_checkpoint(connection: sqlite3.Connection, checkpoint: TotalsCheckpoint, *, kept: bool = False) -> None:
    """Store totals within the caller's transaction, and delete older ones.

    kept: entries up to there may be deleted afterwards. Totals that are kept are replaced by none of the same place.
    """
    mark = checkpoint.mark
    if kept or not may_be_gone(connection, Position(mark.position - 1)):
        row = (mark.position, mark.time, checkpoint.chain, FORMAT, int(kept), checkpoint.content)
        connection.execute("delete from totals_checkpoints where position = ?", (mark.position,))
        connection.execute(_INSERT, (*row, _checksum(*row)))
        connection.execute(_FORGET, (ORDINARY,))


def keep_checkpoint(connection: sqlite3.Connection, position: Position) -> bool:
    """Keep the newest usable totals at a position or beyond it, within the caller's transaction.

    False where there are none yet: then nothing up to there may be deleted.
    """
    for stored in stored_checkpoints(connection):
        if stored.position >= position and not stored.problem(connection):
            if not stored.kept:
                write_checkpoint(connection, stored.checkpoint, kept=True)
            return True
    return False


def _head(connection: sqlite3.Connection) -> Head:
    return head_in(connection.execute("select position, time, chain from head").fetchone())


def known_place(connection: sqlite3.Connection, until: Position) -> Head:
    """The last place up to a position whose chain is written down: a mark or the head."""
    end = _head(connection)
    if end.position <= until:
        return end
    mark = connection.execute(
        "select position, chain from marks where position <= ? order by position desc limit 1", (until,)
    ).fetchone()
    if mark is None:
        start = connection.execute("select position, at from chain_start").fetchone()
        return Head(START, Time(0), chain.start(*start) if start else chain.EMPTY)
    (time,) = connection.execute("select time from entries where position = ?", mark[:1]).fetchone() or (0,)
    return head_in((mark[0], time, mark[1]))


def _kept_place(connection: sqlite3.Connection, until: Position) -> Head:
    for stored in stored_checkpoints(connection):
        if stored.kept and stored.position <= until and not stored.problem(connection):
            return Head(*stored.checkpoint.mark, stored.row.chain)
    return Head(START, Time(0), chain.EMPTY)


def _chain_at(connection: sqlite3.Connection, position: Position) -> bytes | None:
    """The chain after the commit that ends there, computed from the last place before whose chain is written down."""
    place = max(known_place(connection, position), _kept_place(connection, position))
    before = originals(connection)
    for commit in commits(connection, ENTRY_TABLES, after=place.position, until=position):
        place = head_after(place, commit, before)
    return place.chain if place.position == position else None
