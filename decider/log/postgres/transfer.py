"""A log in PostgreSQL as one end of a copy. See `log/transfer.py`; called by `open.py`.

The copy is one transaction: a run that was killed leaves an empty log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

from decider.errors import LogCorrupt, LogError
from decider.log.place import name_of
from decider.log.postgres.check import check
from decider.log.postgres.checkpoints import store_checkpoint, stored_checkpoints
from decider.log.postgres.commit_tables import INTERN_SIGNATURE, derived
from decider.log.postgres.connection import (
    Connection,
    Pool,
    connect,
    execute,
    postgres_errors,
    read,
    read_one,
    stream,
    to_stored,
)
from decider.log.postgres.migrations import is_log, migrate, refuse_newer
from decider.log.postgres.statements import copy, select
from decider.log.protocol import Damage, Head, Mark, OnProgress, TotalsCheckpoint
from decider.log.tables import ENTRY_TABLES, EXPERIMENTS, PUBLISHED_MODELS, EntryTable
from decider.log.transfer import SIDE_TABLES, LogTarget, Row, SideTable, StoredModel, has_entries
from decider.types import START

_HEAD = "select position, time, chain from head"
_START = "select position, at from chain_start"
_SIGNATURES = "select id, signature from signatures order by id"
_MODELS = """
select m.experiment, s.signature, m.position, m.created, m.checksum, m.data
from models m join signatures s on s.id = m.signature order by 1, 2, 3
"""
_TAKE = f"{_HEAD} for update"
_MOVE_HEAD = """
update head set position = %(position)s, time = %(time)s, chain = %(chain)s, changed = greatest(
  (select coalesce(max(position), 0) from experiments), (select coalesce(max(position), 0) from serves))
"""
_INSERT_START = "insert into chain_start (position, at) values (%(position)s, %(time)s)"

_WITH_TRIGGERS = ("head", "decisions", "rewards", "activations", "seals", "recalls")
"""Their rows bring with them what the triggers would write."""


class PostgresSource:
    """See LogSource. connection: in a transaction that sees one moment."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self.name = name
        self.head = Head(*read_one(connection, _HEAD))

    def chain_start(self) -> Mark | None:
        """See LogSource."""
        row = read_one(self._connection, _START)
        return Mark(*row) if row else None

    def marks(self) -> Iterator[Row]:
        """See LogSource."""
        return stream(self._connection, "select position, chain from marks order by position")

    def signatures(self) -> Sequence[str]:
        """See LogSource."""
        return [row["signature"] for row in read(self._connection, _SIGNATURES)]

    def entries(self, table: EntryTable) -> Iterator[Row]:
        """See LogSource."""
        return stream(self._connection, select(table), {"after": START, "until": self.head.position})

    def side_rows(self, table: SideTable) -> Iterator[Row]:
        """See LogSource."""
        return stream(self._connection, f"select {', '.join(table.columns)} from {table.name}")  # noqa: S608 - our names

    def models(self) -> Iterator[StoredModel]:
        """See LogSource."""
        return (StoredModel(*row) for row in stream(self._connection, _MODELS, at_once=1))

    def checkpoints(self) -> Iterator[TotalsCheckpoint]:
        """See LogSource."""
        stored = stored_checkpoints(self._connection)
        return reversed([one.checkpoint for one in stored if not one.problem(self._connection)])


@contextmanager
def postgres_source(url: str) -> Iterator[PostgresSource]:
    """The log as it is now, whoever writes it. Raises LogError."""
    with closing(Pool(url)) as pool, pool.snapshot() as connection:
        if not is_log(connection):
            raise LogError(f"{pool.name}: there is no log")
        refuse_newer(connection, pool.name)
        yield PostgresSource(connection, pool.name)


class PostgresTarget:
    """See LogTarget. connection: in a transaction that has the head."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._signatures: Mapping[str, int] = {}
        self._set_triggers("disable")

    def _set_triggers(self, how: str) -> None:
        for table in _WITH_TRIGGERS:
            execute(self._connection, f"alter table {table} {how} trigger user")

    def write_signatures(self, signatures: Sequence[str]) -> None:
        """See LogTarget."""
        for signature in signatures:
            execute(self._connection, INTERN_SIGNATURE, {"signature": signature})
        self._signatures = {row["signature"]: row["id"] for row in read(self._connection, _SIGNATURES)}

    def write_entries(self, table: EntryTable, rows: Iterable[Row]) -> None:
        """See LogTarget."""
        self._copy(copy(table), (self._with_more(table, row) for row in rows))

    def _with_more(self, table: EntryTable, row: Row) -> Row:
        if table is EXPERIMENTS:
            return [*row, *derived(row[2 + table.columns.index("definition")])]
        if table is PUBLISHED_MODELS:
            place = 2 + table.columns.index("signature")
            return [*row[:place], self._signatures[row[place]], *row[place + 1 :]]
        return row

    def write_side(self, table: SideTable, rows: Iterable[Row]) -> None:
        """See LogTarget."""
        execute(self._connection, f"delete from {table.name}")  # noqa: S608 - our names
        self._copy(f"copy {table.name} ({', '.join(table.columns)}) from stdin", rows)

    def _copy(self, sql: str, rows: Iterable[Row]) -> None:
        with self._connection.cursor() as cursor, cursor.copy(sql.encode()) as stream_:
            for row in rows:
                stream_.write_row([*map(to_stored, row)])

    def write_marks(self, marks: Iterable[Row], start: Mark | None) -> None:
        """See LogTarget."""
        self._copy("copy marks (position, chain) from stdin", marks)
        if start is not None:
            execute(self._connection, _INSERT_START, start._asdict())

    def write_models(self, models: Iterable[StoredModel]) -> None:
        """See LogTarget."""
        self._copy(
            "copy models (experiment, signature, position, created, checksum, data) from stdin",
            ((one.experiment, self._signature_of(one), *one[2:]) for one in models),
        )

    def _signature_of(self, model: StoredModel) -> int:
        try:
            return self._signatures[model.signature]
        except KeyError:
            raise LogCorrupt(
                f"a model of {model.experiment} up to position {model.position} is stored but was never published"
            ) from None

    def write_checkpoint(self, checkpoint: TotalsCheckpoint) -> None:
        """See LogTarget."""
        store_checkpoint(self._connection, checkpoint)

    def finish(self, head: Head) -> None:
        """See LogTarget. Tables are analysed: PostgreSQL would do it by itself minutes later."""
        execute(self._connection, _MOVE_HEAD, head._asdict())
        self._set_triggers("enable")
        for table in (*ENTRY_TABLES, *SIDE_TABLES):
            execute(self._connection, f"analyze {table.name}")

    def check(self, on_progress: OnProgress) -> Sequence[Damage]:
        """See LogTarget."""
        return check(self._connection, on_progress)


class PostgresPlace:
    """See LogPlace. The schema may have the tables already, without entries. Writers wait until the copy is there."""

    def __init__(self, url: str) -> None:
        self._url = url

    @contextmanager
    def filling(self) -> Iterator[LogTarget]:
        """See LogPlace."""
        name = name_of(self._url)
        with postgres_errors(name), closing(connect(self._url)) as connection:
            migrate(connection, name)
            with connection.transaction():
                head = Head(*read_one(connection, _TAKE))
                if head.position > START:
                    raise has_entries(name, head)
                yield PostgresTarget(connection)
