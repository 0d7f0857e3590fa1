"""Stored models: read by everybody, stored and deleted in pieces by the leader. See ModelStore.

The log's entries say which models were published; what is stored here can be learned again from the log.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from hashlib import sha256
from itertools import islice
from typing import Any

from decider.errors import LogCorrupt
from decider.log.protocol import Base, ModelName
from decider.log.stored_models import AT_ONCE, compress, read_whole, surplus
from decider.policy.saved import SavedModel
from decider.types import ExperimentId, Position, now

PIECE_BYTES = 256 * 1024
"""Size of a piece; no commit waits for longer than the writing of one."""

PAUSE = 0.001
"""Seconds between two pieces, so that a waiting commit gets the lock: Python's locks have no queue."""

_COMPLETE = """
select position from models where experiment = ? and signature = ?
group by position having count(*) = max(parts) order by position
"""

_INSERT = """
insert into models (experiment, signature, position, part, parts, created, checksum, data)
values (?, ?, ?, ?, ?, ?, ?, ?)
"""

_STORED_MODELS = """
select signature, position, created, sum(length(data)) as size, count(*) = max(parts) as complete
from models where experiment = ? group by signature, position order by position desc
"""

_DELETE_PIECE = "delete from models where experiment = ? and signature = ? and position = ? and part = ?"

_BASE = "select position, time, checksum from bases where experiment = ? and signature = ?"
_BASE_PIECES = "select data from base_pieces where experiment = ? and signature = ? and position = ? order by part"

PAGE_BYTES = 4096
"""What a small model takes in the file at least."""

Key = tuple[str, str, int]
"""Experiment, signature and position of a stored model."""

Query = Callable[..., Iterator[Any]]
"""Rows of a query, columns by name."""


class SqliteModelReader:
    """See ModelReader. read: queries the log's file."""

    def __init__(self, read: Query) -> None:
        self._read = read

    def newest(self, experiment: ExperimentId, signature: str) -> tuple[Position, SavedModel] | None:
        """See ModelReader."""
        for position in reversed(self.stored_positions(experiment, signature)):
            saved = self.load(ModelName(experiment, position, signature))
            if saved is not None:
                return position, saved
        return None

    def load(self, name: ModelName) -> SavedModel | None:
        """See ModelReader. None, too, where a piece is missing or the checksum is another."""
        rows = list(
            self._read(
                "select checksum, data from models "
                "where experiment = ? and signature = ? and position = ? order by part",
                (name.experiment, name.signature, name.position),
            )
        )
        data = read_whole([row["data"] for row in rows], rows[0]["checksum"]) if rows else None
        return None if data is None else SavedModel(name.signature, rows[0]["checksum"], data)

    def stored_positions(self, experiment: ExperimentId, signature: str) -> Sequence[Position]:
        """See ModelReader. Those of which no piece is missing; their checksums are not looked at here."""
        return [row["position"] for row in self._read(_COMPLETE, (experiment, signature))]

    def published_positions(self, experiment: ExperimentId, signature: str) -> Sequence[Position]:
        """See ModelReader."""
        sql = (
            "select model from published where experiment = ? "
            "and signature = (select id from signatures where signature = ?) order by model"
        )
        return [row["model"] for row in self._read(sql, (experiment, signature))]

    def last_published_position(self, experiment: ExperimentId, signature: str) -> Position:
        """See ModelReader."""
        sql = (
            "select coalesce(max(model), 0) as model from published where experiment = ? "
            "and signature = (select id from signatures where signature = ?)"
        )
        (row,) = self._read(sql, (experiment, signature))
        return Position(row["model"])

    def signatures(self, experiment: ExperimentId) -> Sequence[str]:
        """See ModelReader. In the order in which they first came anywhere in the log."""
        sql = (
            "select s.signature from signatures s where exists "
            "(select 1 from published p where p.experiment = ? and p.signature = s.id) order by s.id"
        )
        return [row["signature"] for row in self._read(sql, (experiment,))]

    def base(self, experiment: ExperimentId, signature: str) -> Base | None:
        """See ModelReader."""
        for row in list(self._read(_BASE, (experiment, signature))):
            return Base(ModelName(experiment, row["position"], signature), row["time"], row["checksum"])
        return None

    def load_base(self, base: Base) -> SavedModel:
        """See ModelReader."""
        name = base.name
        key = (name.experiment, name.signature, name.position)
        data = b"".join([piece["data"] for piece in list(self._read(_BASE_PIECES, key))])
        if sha256(data).hexdigest() != base.checksum:
            raise LogCorrupt(
                f"the model of {name.experiment} up to position {name.position}, from which learning goes on behind "
                "the archive, is damaged; restore a copy of the log"
            )
        return SavedModel(name.signature, base.checksum, data)


class SqliteModelStore(SqliteModelReader):
    """See ModelStore.

    exclusive: the right to write alone. Taken for one piece at a time.
    """

    def __init__(
        self,
        read: Query,
        writer: sqlite3.Connection,
        exclusive: Callable[[], AbstractContextManager[None]],
        *,
        piece_bytes: int,
    ) -> None:
        super().__init__(read)
        self._writer = writer
        self._exclusive = exclusive
        self._piece_bytes = piece_bytes

    def store(self, name: ModelName, saved: SavedModel, *, keep_bytes: int, keep: Collection[str] = ()) -> int:
        """See ModelStore. The checksum is that of the data as saved: the compressed bytes depend on zlib's release."""
        key = (name.experiment, name.signature, name.position)
        data = compress(saved.data)
        self._delete(key)
        for row in pieces(key, now(), saved.checksum, data, self._piece_bytes):
            self._execute(_INSERT, row)
        self._forget(name.experiment, keep_bytes, {name.signature, *keep})
        return -(-len(data) // PAGE_BYTES) * PAGE_BYTES

    def _execute(self, sql: str, row: Sequence[Any]) -> None:
        with self._exclusive():
            self._writer.execute(sql, row)
        time.sleep(PAUSE)

    def _forget(self, experiment: ExperimentId, keep_bytes: int, keep: set[str]) -> None:
        """Delete what a killed process left incomplete, and what is too much; of signatures in `keep` the newest
        stays."""
        rows = list(self._read(_STORED_MODELS, (experiment,)))
        for row in list(islice(surplus(rows, keep_bytes, set(keep)), AT_ONCE)):
            self._delete((experiment, row["signature"], row["position"]))

    def _delete(self, key: Key) -> None:
        sql = "select part from models where experiment = ? and signature = ? and position = ? order by part desc"
        # The last piece first: what a killed process leaves is then the beginning of a model, which `check` accepts.
        for row in list(self._read(sql, key)):
            self._execute(_DELETE_PIECE, (*key, row["part"]))


def pieces(key: Key, created: int, checksum: str, data: bytes, size: int = PIECE_BYTES) -> Iterator[tuple[Any, ...]]:
    """The rows of a model."""
    starts = range(0, len(data), size) or range(1)
    for part, first in enumerate(starts):
        yield *key, part, len(starts), created, checksum, data[first : first + size]


def insert_pieces(connection: sqlite3.Connection, key: Key, created: int, checksum: str, data: bytes) -> None:
    """Store a model within somebody else's transaction."""
    connection.executemany(_INSERT, pieces(key, created, checksum, data))
