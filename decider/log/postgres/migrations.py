"""Makes the tables of a log, and brings those of an older release up to date. Called by the writer when it opens one.

A migration is a named function; it runs once, in one transaction with the record of it. Views are made anew where their
file has changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from decider.errors import LogCorrupt, LogError
from decider.log.postgres.connection import Connection, execute, read, read_one

_SCHEMA = (Path(__file__).parent / "schema.sql").read_text(encoding="utf-8")
_VIEWS = (Path(__file__).parent / "views.sql").read_text(encoding="utf-8")
_VIEWS_NAME = f"views {sha256(_VIEWS.encode()).hexdigest()[:16]}"

_TABLE = """
create table if not exists migrations (
  name text collate "C" primary key,
  applied_at timestamptz not null default now()
)
"""
_LOCK = "select pg_advisory_xact_lock(hashtextextended('decider migrations ' || current_schema(), 0))"
_TABLES = """
select table_name from information_schema.tables where table_schema = current_schema() and table_type = 'BASE TABLE'
order by 1
"""
_OUR_VIEWS = re.findall(r"^create view (\w+)", _VIEWS, re.MULTILINE)
"""The schema may have others: of extensions, which only these may drop, or of whoever looks at the log."""
_DROP_VIEWS = """
select format('drop view if exists %%I.%%I cascade', current_schema(), view) as drop
from unnest(%(views)s::text[]) as one(view)
"""
_THERE = "select to_regclass(quote_ident(current_schema()) || '.head') is not null as there"


def create_tables(connection: Connection) -> None:
    """The first schema."""
    connection.execute(_SCHEMA.encode())


def know_start_of_chain(connection: Connection) -> None:
    """A log from before the chain can be copied here; see sqlite/schema.sql."""
    connection.execute(b"create table chain_start (position bigint not null, at bigint not null)")


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (create_tables, know_start_of_chain)
"""In the order in which they run; none is ever changed or taken away once it was released."""

_OURS = {migration.__name__ for migration in MIGRATIONS}


def migrate(connection: Connection, name: str) -> None:
    """Bring the log up to date; one process at a time. Without the right to make tables it only looks whether that is
    needed. Raises LogError for a log of a newer release, LogCorrupt for another application's tables."""
    if _is_up_to_date(connection, name):
        return
    with connection.transaction():
        connection.execute(_LOCK.encode())
        connection.execute(_TABLE.encode())
        done = {row["name"] for row in read(connection, "select name from migrations")}
        for migration in MIGRATIONS:
            if migration.__name__ not in done:
                migration(connection)
                _note(connection, migration.__name__)
        if _VIEWS_NAME not in done:
            _make_views(connection)


def _is_up_to_date(connection: Connection, name: str) -> bool:
    tables = [row["table_name"] for row in read(connection, _TABLES)]
    if not tables:
        return False
    if "migrations" not in tables or "decisions" not in tables:
        raise LogCorrupt(f"{name}: is another application's database, with {', '.join(tables[:3])}; name another")
    return {*_OURS, _VIEWS_NAME} <= refuse_newer(connection, name)


def refuse_newer(connection: Connection, name: str) -> set[str]:
    """The migrations of a log. Raises LogError for a log of a newer release: it may have tables that are not known."""
    done = {row["name"] for row in read(connection, "select name from migrations")}
    newer = {one for one in done if not one.startswith("views ")} - _OURS
    if newer:
        raise LogError(f"{name}: was written by a newer release (it has {', '.join(sorted(newer))}); upgrade this one")
    return done


def _make_views(connection: Connection) -> None:
    for row in read(connection, _DROP_VIEWS, {"views": _OUR_VIEWS}):
        connection.execute(row["drop"].encode())
    connection.execute(_VIEWS.encode())
    execute(connection, "delete from migrations where name like 'views %%' and name <> %(name)s", {"name": _VIEWS_NAME})
    _note(connection, _VIEWS_NAME)


def _note(connection: Connection, name: str) -> None:
    execute(connection, "insert into migrations (name) values (%(name)s)", {"name": name})


def is_log(connection: Connection) -> bool:
    """Whether the first schema of the search path has a log of this service; in one behind it a writer would find
    none."""
    return read_one(connection, _THERE)["there"] is True
