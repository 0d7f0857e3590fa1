"""Makes an empty file a log, and upgrades old logs. A migration runs once, in one transaction.

Called when a log is opened for writing, and by `open.py` for a copy of an old log that is only read.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

from sqlite_utils import Database, Migrations

from decider.errors import LogError
from decider.log import chain
from decider.log.commits import Commit, head_after, leaves_mark
from decider.log.protocol import Head
from decider.log.sqlite.archived import ARCHIVED_DECISION, archived_sum
from decider.log.sqlite.commits import commits
from decider.log.sqlite.connection import open_to_read, transaction
from decider.log.sqlite.errors import sqlite_errors
from decider.log.sqlite.models import insert_pieces
from decider.log.sqlite.units import sum_of_persons
from decider.log.tables import (
    ACTIVATIONS,
    BUILDS,
    DECISIONS,
    EXPERIMENTS,
    INTERN_SIGNATURE,
    PUBLISHED_MODELS,
    REWARDS,
    TICKS,
    build_row,
)
from decider.types import START, Position, Time, now

MIGRATIONS = Migrations("decider.log")

TABLES_0_1 = (EXPERIMENTS, DECISIONS, REWARDS, ACTIVATIONS, TICKS)
"""With entries, in a log of 0.1."""

LONGEST_COMMIT = 1000
"""Most entries of an old log in one link of the chain: many may have the same time."""


@MIGRATIONS()
def create_log(db: Database) -> None:
    """Everything in schema.sql, as it is now: later migrations find nothing to do in a log made by this release."""
    for statement in _statements("schema.sql"):
        db.execute(statement)


@MIGRATIONS()
def chain_entries(db: Database) -> None:
    """0.1 -> 0.2: head and chain; published models and builds become entries, stored models pieces."""
    connection = db.conn
    if connection is None or "head" in db.table_names():
        return
    _drop_views(connection)
    for statement in (
        "alter table experiments add column waits integer not null default 0",
        "alter table decisions add column build integer",
        "alter table builds rename to old_builds",
        "alter table models rename to old_models",
        "drop index models_with_data",
    ):
        connection.execute(statement)
    _create_missing(connection)
    head = _enter_builds_and_models(connection, _chain_all(connection))
    connection.execute("update head set position = ?, time = ?, chain = ?", head)
    for name, outcome, count in connection.execute("select name, outcome, count from refused_rewards").fetchall():
        connection.execute(COUNT_REFUSED_SUM, (chain.refused_sum(name, outcome) * count & chain.REFUSED_BITS,))
    connection.execute("drop table old_builds")
    connection.execute("drop table old_models")


@MIGRATIONS()
def bound_growth(db: Database) -> None:
    """0.2 -> 0.3: the tables that keep a log from growing for ever; entries stay as they are."""
    if db.conn is not None:
        _create_missing(db.conn)
        db.conn.execute(OPEN_ALL)
        db.conn.execute(_KEEP_ALL_KINDS)


OPEN_ALL = """
insert into open_versions (version, experiment)
select position, experiment from experiments e where exists (select 1 from decisions d where d.version = e.position)
"""
_KEEP_ALL_KINDS = """
insert into action_kinds (experiment, action, kind)
select experiment, json_extract(value, '$.id'), coalesce(json_extract(value, '$.kind'), 'content')
from (select experiment, case when json_valid(definition) then definition else '{}' end as definition
  from experiments order by position), json_each(definition, '$.actions') where true
on conflict (experiment, action) do update set kind = excluded.kind
"""


@MIGRATIONS()
def know_activations(db: Database) -> None:
    """Early activations, and what was activated among the archived decisions that a log has kept: nothing, since no
    experiment asked for it."""
    connection = db.conn
    if connection is None:
        return
    _create_missing(connection)
    if any(row[1] == "activated" for row in connection.execute("pragma table_info(archived_decisions)")):
        return
    connection.execute("alter table archived_decisions add column activated integer not null default 0")
    connection.execute("alter table archived_decisions add column shown text")
    rows = connection.execute(f"select {ARCHIVED_DECISION.columns} from archived_decisions")  # noqa: S608 - a constant
    connection.execute("update cut set archived = ?", (sum(map(archived_sum, rows)) & chain.REFUSED_BITS,))


@MIGRATIONS()
def bound_limits(db: Database) -> None:
    """What caps count is found by action and by kind; and a final reward ends a reservation."""
    if db.conn is not None:
        _create_missing(db.conn)
        db.conn.execute("drop index if exists exposures_by_unit")
        db.conn.execute(_END_RESERVATIONS)


_END_RESERVATIONS = """
update exposures set reserved_until = s.time from seals s
where s.decision = exposures.decision and exposures.reserved_until > s.time
"""


@MIGRATIONS()
def sum_rows_of_units(db: Database) -> None:
    """Checksums over tables about units, as they are now."""
    connection = db.conn
    if connection is None:
        return
    _create_missing(connection)
    sum_rows(connection)


def sum_rows(connection: sqlite3.Connection) -> None:
    """Write the checksums over tables about units, as these are now."""
    persons = connection.execute("select unit_id, person from persons")
    connection.execute("update row_sums set sum = ? where name = 'persons'", (sum_of_persons(persons),))
    connection.execute(
        "update row_sums set sum = (select coalesce(sum(decision), 0) from assignments) where name = 'assignments'"
    )


@MIGRATIONS()
def know_any_name(db: Database) -> None:
    """A reward without a name, taken back before it came, is the same as one with a name."""
    if db.conn is not None:
        db.conn.execute("drop trigger if exists counted_by_unit")
        _create_missing(db.conn)


@MIGRATIONS()
def know_leave_outs(db: Database) -> None:
    """What models leave out: an older release must not learn from it."""
    if db.conn is not None:
        _create_missing(db.conn)


COUNT_REFUSED_SUM = f"update head set refused = (refused + ?) & {chain.REFUSED_BITS}"  # noqa: S608 - a number


def _statements(name: str) -> list[str]:
    return files(__package__).joinpath(name).read_text(encoding="utf-8").split("\n\n")


def _create(statement: str) -> tuple[str, str]:
    """A statement without the comment above it, and the name of what it creates, or of the table whose first row it
    writes; no name where it does neither."""
    sql = "\n".join(line for line in statement.splitlines() if not line.startswith("--")).rstrip(";\n ")
    kind, *words = sql.split() or [""]
    return sql, words[2 if words[0] == "unique" else 1] if kind in ("create", "insert") else ""


def _create_missing(connection: sqlite3.Connection) -> None:
    """What schema.sql has and an old log has not."""
    there = {name for (name,) in connection.execute("select name from sqlite_master")}
    for statement in _statements("schema.sql"):
        sql, name = _create(statement)
        if name and name not in there:
            connection.execute(sql)


def _chain_all(connection: sqlite3.Connection) -> Head:
    """Chain all entries of an old log as they are now, with marks. Streams: a log may be larger than memory."""
    lasts = [
        connection.execute(f"select coalesce(max(position), 0) from {table.name}").fetchone()  # noqa: S608 - our names
        for table in TABLES_0_1
    ]
    (last,) = max(lasts)
    head = Head(START, Time(0), chain.EMPTY)
    if not last:
        return head
    at = now()
    connection.execute("insert into chain_start (position, at) values (?, ?)", (last, at))
    head = head._replace(chain=chain.start(Position(last), at))
    for commit in commits(connection, TABLES_0_1, until=Position(last), longest=LONGEST_COMMIT):
        head = _advance(connection, head, commit)
    return head


def _advance(connection: sqlite3.Connection, head: Head, commit: Commit) -> Head:
    """The head after a commit, with the mark that it leaves behind."""
    after = head_after(head, commit)
    if leaves_mark(head, after):
        connection.execute("insert into marks (position, chain) values (?, ?)", (head.position, head.chain))
    return after


def _enter_builds_and_models(connection: sqlite3.Connection, head: Head) -> Head:
    """In 0.1 they had no positions: one more commit appends them at the end."""
    entries = [*_old_builds(connection), *_old_models(connection)]
    if not entries:
        return head
    time = head.time or now()
    for position, (table, row) in enumerate(entries, head.position + 1):
        connection.execute(table.insert, (position, time, *row))
    kinds, rows = zip(*[(table.kind, row) for table, row in entries], strict=True)
    last = Position(head.position + len(entries))
    return _advance(connection, head, Commit(Position(head.position + 1), last, time, kinds, rows))


def _old_builds(connection: sqlite3.Connection) -> Iterator[Any]:
    for position, started, build in connection.execute(
        "select position, started, build from old_builds order by position, started"
    ).fetchall():
        yield BUILDS, build_row({**json.loads(build), "from": position + 1, "started": started})


def _old_models(connection: sqlite3.Connection) -> Iterator[Any]:
    rows = connection.execute("select * from old_models order by position, experiment, signature")
    for experiment, position, old_signature, created, learned, checksum, data in rows:
        signature = f"{old_signature} code=1"
        connection.execute(INTERN_SIGNATURE, (signature,))
        if data is not None:
            insert_pieces(connection, (experiment, signature, position), created, checksum, data)
        yield PUBLISHED_MODELS, (experiment, signature, position, learned)


def _drop_views(connection: sqlite3.Connection) -> None:
    for (name,) in connection.execute("select name from sqlite_master where type = 'view'").fetchall():
        connection.execute(f"drop view {name}")


def _make_views(connection: sqlite3.Connection) -> None:
    """Those of views.sql, where a log has others."""
    wanted = [_create(statement)[0] for statement in _statements("views.sql")]
    there = connection.execute("select sql from sqlite_master where type = 'view'")
    if sorted(wanted) == sorted(sql for (sql,) in there):
        return
    with transaction(connection):
        _drop_views(connection)
        for statement in wanted:
            connection.execute(statement)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a log up to date. Raises LogError if a newer release wrote it."""
    db = Database(connection)
    known = {migration.name for migration in MIGRATIONS.pending(Database(memory=True))}
    unknown = [m.name for m in MIGRATIONS.applied(db) if m.name not in known]
    if unknown:
        raise LogError(f"this log was written by a newer release (it knows {', '.join(unknown)}); upgrade to read it")
    MIGRATIONS.apply(db)
    _make_views(connection)


def is_old(path: Path) -> bool:
    """Whether a file is a log of an older release, which lacks a table of schema.sql."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with sqlite_errors(path), closing(open_to_read(path)) as connection:
        names = {name for (name,) in connection.execute("select name from sqlite_master")}
    wanted = {_create(statement)[1] for statement in _statements("schema.sql")} - {""}
    return "decisions" in names and "sealed_decisions" in names and not wanted <= names
