"""Stored models: read by everybody, stored and deleted by the leader. See ModelStore.

A model is one row, written beside the commits: nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice

from decider.log.postgres.commit_tables import INTERN_SIGNATURE, SIGNATURE
from decider.log.postgres.connection import Pool, execute, read
from decider.log.postgres.hosts import PostgresHosts
from decider.log.protocol import Base, ModelName
from decider.log.stored_models import AT_ONCE, compress, read_whole, surplus
from decider.policy.saved import SavedModel
from decider.types import ExperimentId, Position, now

_POSITIONS = f"""
select position from models where experiment = %(experiment)s and signature = {SIGNATURE} order by position
"""  # noqa: S608 - our names
_LOAD = f"""
select checksum, data from models
where experiment = %(experiment)s and signature = {SIGNATURE} and position = %(position)s
"""  # noqa: S608 - our names
_PUBLISHED = f"""
select model from published where experiment = %(experiment)s and signature = {SIGNATURE} order by model
"""  # noqa: S608 - our names
_LAST_PUBLISHED = f"""
select coalesce(max(model), 0) as model from published
where experiment = %(experiment)s and signature = {SIGNATURE}
"""  # noqa: S608 - our names
_SIGNATURES = """
select s.signature from signatures s
where exists (select 1 from published p where p.experiment = %(experiment)s and p.signature = s.id) order by s.id
"""
_STORE = f"""
insert into models (experiment, signature, position, created, checksum, data)
values (%(experiment)s, {SIGNATURE}, %(position)s, %(created)s, %(checksum)s, %(data)s)
on conflict (experiment, signature, position) do update
set created = excluded.created, checksum = excluded.checksum, data = excluded.data
"""  # noqa: S608 - our names
_STORED = """
select s.signature, m.position, m.created, octet_length(m.data) as size, true as complete
from models m join signatures s on s.id = m.signature where m.experiment = %(experiment)s order by m.position desc
"""
_DELETE = f"""
delete from models where experiment = %(experiment)s and signature = {SIGNATURE} and position = %(position)s
"""  # noqa: S608 - our names


class PostgresModelReader:
    """See ModelReader."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def newest(self, experiment: ExperimentId, signature: str) -> tuple[Position, SavedModel] | None:
        """See ModelReader."""
        for position in reversed(self.stored_positions(experiment, signature)):
            saved = self.load(ModelName(experiment, position, signature))
            if saved is not None:
                return position, saved
        return None

    def load(self, name: ModelName) -> SavedModel | None:
        """See ModelReader. None, too, where the checksum is another."""
        row = self._pool.one(_LOAD, _values(name))
        data = read_whole([row["data"]], row["checksum"]) if row else None
        return None if data is None else SavedModel(name.signature, row["checksum"], data)

    def stored_positions(self, experiment: ExperimentId, signature: str) -> Sequence[Position]:
        """See ModelReader."""
        rows = self._pool.read(_POSITIONS, {"experiment": experiment, "signature": signature})
        return [row["position"] for row in rows]

    def published_positions(self, experiment: ExperimentId, signature: str) -> Sequence[Position]:
        """See ModelReader."""
        rows = self._pool.read(_PUBLISHED, {"experiment": experiment, "signature": signature})
        return [row["model"] for row in rows]

    def last_published_position(self, experiment: ExperimentId, signature: str) -> Position:
        """See ModelReader."""
        row = self._pool.one(_LAST_PUBLISHED, {"experiment": experiment, "signature": signature})
        return Position(row["model"])

    def signatures(self, experiment: ExperimentId) -> Sequence[str]:
        """See ModelReader. In the order in which they first came anywhere in the log."""
        return [row["signature"] for row in self._pool.read(_SIGNATURES, {"experiment": experiment})]

    def base(self, experiment: ExperimentId, signature: str) -> Base | None:  # noqa: ARG002
        """See ModelReader. Nothing is archived out of PostgreSQL yet."""
        return None

    def load_base(self, base: Base) -> SavedModel:
        """See ModelReader. There is none."""
        raise KeyError(base)


class PostgresModelStore(PostgresModelReader):
    """See ModelStore. hosts: has models that are shared; they count as stored for whoever goes on from the newest."""

    def __init__(self, pool: Pool, hosts: PostgresHosts) -> None:
        super().__init__(pool)
        self._hosts = hosts

    def load(self, name: ModelName) -> SavedModel | None:
        """See ModelReader."""
        return super().load(name) or self._hosts.load_model(name)

    def newest(self, experiment: ExperimentId, signature: str) -> tuple[Position, SavedModel] | None:
        """See ModelReader."""
        stored = super().newest(experiment, signature)
        shared = self._hosts.newest_model(experiment, signature)
        if shared is None or (stored is not None and shared <= stored[0]):
            return stored
        saved = self._hosts.load_model(ModelName(experiment, shared, signature))
        return stored if saved is None else (shared, saved)

    def store(self, name: ModelName, saved: SavedModel, *, keep_bytes: int, keep: Collection[str] = ()) -> int:
        """See ModelStore. The checksum is that of the data as saved."""
        data = compress(saved.data)
        with self._pool.writing() as connection:
            execute(connection, INTERN_SIGNATURE, {"signature": name.signature})
            row = {**_values(name), "created": now(), "checksum": saved.checksum, "data": data}
            execute(connection, _STORE, row)
            stored = read(connection, _STORED, {"experiment": name.experiment})
            for one in islice(surplus(stored, keep_bytes, {name.signature, *keep}), AT_ONCE):
                old = ModelName(name.experiment, one["position"], one["signature"])
                execute(connection, _DELETE, _values(old))
        return len(data)


def _values(name: ModelName) -> dict[str, str | int]:
    return {"experiment": name.experiment, "signature": name.signature, "position": name.position}
