"""Totals stored in the log, so that a start need not count it all again; and places whose chain is written down. Called
by the reader and the writer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from hashlib import sha256

from decider.log import chain
from decider.log.commits import head_after
from decider.log.postgres.commits import commits
from decider.log.postgres.connection import Connection, execute, read, read_one
from decider.log.protocol import Head, Mark, TotalsCheckpoint
from decider.log.totals import CONTENT_FORMAT
from decider.types import START, Position, Time

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
where position <= %(position)s and time <= %(time)s order by position desc
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


def newest_checkpoint(connection: Connection, name: str, until: Mark | None) -> TotalsCheckpoint | None:
    """The newest that can be used; a line in the server's output names those that cannot. name: of the log."""
    end = Head(*read_one(connection, _HEAD))
    limit = end.mark if until is None else Mark(min(until.position, end.position), Time(min(until.time, end.time)))
    for row in read(connection, _STORED, limit._asdict()):
        values = {column: row[column] for column in ("position", "time", "chain", "format", "content")}
        is_ours = row["format"] == CONTENT_FORMAT and row["checksum"] == _checksum(values)
        if is_ours and chain_at(connection, row["position"]) == row["chain"]:
            return TotalsCheckpoint(Mark(row["position"], row["time"]), row["chain"], row["content"])
        logger.warning(
            "%s: the totals stored at position %d are not used: they do not fit the log or this release; counting from "
            "an earlier place", name, row["position"],
        )  # fmt: skip
    return None


def known_place(connection: Connection, until: Position) -> Head:
    """The last place up to a position whose chain is written down: a mark or the head."""
    end = Head(*read_one(connection, _HEAD))
    if end.position <= until:
        return end
    mark = read_one(connection, _MARK, {"until": until})
    return Head(*mark) if mark else Head(START, Time(0), chain.EMPTY)


def chain_at(connection: Connection, position: Position) -> bytes | None:
    """The chain after the commit that ends there, computed from the last place before whose chain is written down."""
    place = known_place(connection, position)
    for commit in commits(connection, after=place.position, until=position):
        place = head_after(place, commit)
    return place.chain if place.position == position else None
