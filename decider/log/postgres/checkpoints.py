"""Totals stored in the log, so that a start need not count it all again; and places whose chain is written down. Called
by the reader and the writer."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import NamedTuple

from decider.log.commits import head_after
from decider.log.postgres.commits import begin_of_chain, commits, originals
from decider.log.postgres.connection import Connection, execute, read, read_one
from decider.log.protocol import Head, Mark, TotalsCheckpoint
from decider.log.totals import CONTENT_FORMAT
from decider.types import Position, Time

logger = logging.getLogger(__name__)

_STORE = """
insert into totals_checkpoints (position, time, chain, format, content, checksum)
values (%(position)s, %(time)s, %(chain)s, %(format)s, %(content)s, %(checksum)s)
on conflict (position) do update set time = excluded.time, chain = excluded.chain, format = excluded.format,
  content = excluded.content, checksum = excluded.checksum
"""
_KEEP_TWO = """
delete from totals_checkpoints
where position not in (select position from totals_checkpoints order by position desc limit 2)
"""
_STORED = """
select position, time, chain, format, content, checksum from totals_checkpoints
order by position desc
"""
_HEAD = "select position, time, chain from head"
_MARK = """
select m.position, e.time, m.chain from marks m join entries e on e.position = m.position
where m.position = (select max(position) from marks where position <= %(until)s)
"""


def _checksum(values: Mapping[str, object]) -> str:
    place = f"{values['position']} {values['time']} {values['format']} "
    return sha256(place.encode() + bytes(values["chain"]) + str(values["content"]).encode()).hexdigest()  # type: ignore[call-overload]


def store_checkpoint(connection: Connection, checkpoint: TotalsCheckpoint) -> None:
    """Within the caller's transaction; the newest two stay."""
    values = {
        **checkpoint.mark._asdict(), "chain": checkpoint.chain, "format": CONTENT_FORMAT,
        "content": checkpoint.content,
    }  # fmt: skip
    execute(connection, _STORE, {**values, "checksum": _checksum(values)})
    execute(connection, _KEEP_TWO)


class Stored(NamedTuple):
    """Totals that are stored."""

    checkpoint: TotalsCheckpoint
    format: int
    checksum: str

    def problem(self, connection: Connection) -> str:
        """Why they cannot be used; nothing if they can."""
        mark, chain, content = self.checkpoint
        values = {**mark._asdict(), "chain": chain, "format": self.format, "content": content}
        if self.format != CONTENT_FORMAT:
            return f"it has format {self.format}, this release reads {CONTENT_FORMAT}"
        if self.checksum != _checksum(values):
            return "its checksum is wrong"
        return "" if chain_at(connection, mark.position) == chain else "the log has other entries there"


def stored_checkpoints(connection: Connection) -> Iterator[Stored]:
    """The newest first; usable or not."""
    for position, time, chain, format_, content, checksum in read(connection, _STORED):
        yield Stored(TotalsCheckpoint(Mark(position, time), chain, content), format_, checksum)


def newest_checkpoint(connection: Connection, name: str, until: Mark | None) -> TotalsCheckpoint | None:
    """The newest that can be used; a line in the server's output names those that cannot. name: of the log."""
    end = Head(*read_one(connection, _HEAD))
    limit = end.mark if until is None else Mark(min(until.position, end.position), Time(min(until.time, end.time)))
    for stored in stored_checkpoints(connection):
        mark = stored.checkpoint.mark
        if mark.position > limit.position or mark.time > limit.time:
            continue
        problem = stored.problem(connection)
        if not problem:
            return stored.checkpoint
        logger.warning(
            "%s: the totals stored at position %d are not used: %s; counting from an earlier place",
            name, mark.position, problem,
        )  # fmt: skip
    return None


def known_place(connection: Connection, until: Position) -> Head:
    """The last place up to a position whose chain is written down: a mark or the head."""
    end = Head(*read_one(connection, _HEAD))
    if end.position <= until:
        return end
    mark = read_one(connection, _MARK, {"until": until})
    return Head(*mark) if mark else begin_of_chain(connection)


def chain_at(connection: Connection, position: Position) -> bytes | None:
    """The chain after the commit that ends there, computed from the last place before whose chain is written down."""
    place = known_place(connection, position)
    before = originals(connection)
    for commit in commits(connection, after=place.position, until=position):
        place = head_after(place, commit, before)
    return place.chain if place.position == position else None
