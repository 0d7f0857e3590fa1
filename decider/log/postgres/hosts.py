"""What the processes of a log on several hosts share beside its entries: the newest models, and what the leader says.
Called by `writer.py`. See Hosts.
"""

from __future__ import annotations

from collections.abc import Callable

from decider.errors import LogError
from decider.log.postgres.commit_tables import INTERN_SIGNATURE, SIGNATURE
from decider.log.postgres.connection import Pool, execute, waits
from decider.log.postgres.lease import PostgresLease, check_epoch, is_led
from decider.log.postgres.share import PostgresShare
from decider.log.protocol import LeaderNews, ModelName
from decider.policy.saved import SavedModel
from decider.types import ExperimentId, Position, Time

KEPT = 2
"""Models of an owner: a worker may look for the one before the newest."""

MOST_BYTES = 32_000_000
"""Of a model that is shared; a larger one reaches other hosts when it is stored."""

_OWNER = f"experiment = %(experiment)s and signature = {SIGNATURE}"
_SHARE = f"""
insert into shared_models (experiment, signature, position, checksum, data)
values (%(experiment)s, {SIGNATURE}, %(position)s, %(checksum)s, %(data)s)
on conflict (experiment, signature, position) do update
set shared = now(), checksum = excluded.checksum, data = excluded.data
"""  # noqa: S608 - our names
_KEEP_NEWEST = f"""
delete from shared_models where {_OWNER} and position not in (
  select position from shared_models where {_OWNER} order by position desc limit {KEPT})
"""  # noqa: S608 - our names
_DROP = f"delete from shared_models where {_OWNER}"  # noqa: S608 - our names
# What nobody has shared for a day is stored long since, or belongs to nobody any more.
_DROP_OLD = "delete from shared_models where shared < now() - interval '1 day'"
_LOAD = f"select checksum, data from shared_models where {_OWNER} and position = %(position)s"  # noqa: S608 - our names
# A model whose publishing failed is none.
_NEWEST = f"""
select position from shared_models m where {_OWNER} and exists (
  select 1 from published p where p.experiment = m.experiment and p.signature = m.signature and p.model = m.position)
order by position desc limit 1
"""  # noqa: S608 - our names
_SAY = """
insert into leader_news (epoch, address, content) values (%(epoch)s, %(address)s, %(content)s)
on conflict (is_only) do update set epoch = excluded.epoch, address = excluded.address, content = excluded.content,
  at = now()
"""
_NEWS = "select address, content, extract(epoch from now() - at)::double precision as age from leader_news"
_TIME = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint as time"


class PostgresHosts:
    """See Hosts. lease, share: of this process, while it leads or learns."""

    def __init__(
        self, pool: Pool, lease: Callable[[], PostgresLease | None], share: Callable[[], PostgresShare | None]
    ) -> None:
        self._pool = pool
        self._lease = lease
        self._share = share

    def is_led(self) -> bool:
        """See Hosts."""
        with self._pool.connection() as connection:
            led, may_lead = is_led(connection)
        return led or not may_lead

    def share_model(self, name: ModelName, saved: SavedModel) -> None:
        """See Hosts."""
        if len(saved.data) > MOST_BYTES:
            raise LogError(
                f"{self._pool.name}: a model of {len(saved.data) / 1e6:.0f} MB reaches other hosts only when it is "
                f"stored, see --store-interval; at most {MOST_BYTES / 1e6:.0f} MB are shared"
            )
        values = {"experiment": name.experiment, "signature": name.signature}
        row = {**values, "position": name.position, "checksum": saved.checksum, "data": saved.data}
        with self._pool.writing() as connection:
            share, lease = self._share(), self._lease()
            if share is not None:
                share.check(connection, [name.experiment])
            elif lease is not None:
                check_epoch(connection, lease.epoch, self._pool.name)
            execute(connection, INTERN_SIGNATURE, {"signature": name.signature})
            execute(connection, _SHARE, row)
            execute(connection, _KEEP_NEWEST, values)

    def drop_models(self, experiment: ExperimentId, signature: str) -> None:
        """See Hosts."""
        with self._pool.connection() as connection:
            execute(connection, _DROP, {"experiment": experiment, "signature": signature})

    def drop_old_models(self) -> None:
        """Called by the leader now and then."""
        with self._pool.connection() as connection:
            execute(connection, _DROP_OLD)

    def load_model(self, name: ModelName) -> SavedModel | None:
        """What was shared under a name."""
        row = self._pool.one(
            _LOAD, {"experiment": name.experiment, "signature": name.signature, "position": name.position}
        )
        return SavedModel(name.signature, row["checksum"], bytes(row["data"])) if row else None

    def newest_model(self, experiment: ExperimentId, signature: str) -> Position | None:
        """Of those that are shared and published."""
        row = self._pool.one(_NEWEST, {"experiment": experiment, "signature": signature})
        return Position(row["position"]) if row else None

    def say(self, address: str, content: str) -> None:
        """See Hosts."""
        lease = self._lease()
        with self._pool.writing() as connection:
            if lease is not None:
                check_epoch(connection, lease.epoch, self._pool.name)
                execute(connection, _SAY, {"epoch": lease.epoch, "address": address, "content": content})

    def news(self) -> LeaderNews | None:
        """See Hosts."""
        row = self._pool.one(_NEWS)
        return LeaderNews(row["address"], row["content"], row["age"]) if row else None

    def waits(self) -> bool:
        """See Hosts."""
        return waits()

    def time(self) -> Time:
        """See Hosts."""
        return Time(self._pool.one(_TIME)["time"])
