"""How an empty file becomes a log, and an old log a new one. A migration runs once, in one transaction."""

from __future__ import annotations

from importlib.resources import files

from sqlite_utils import Database, Migrations

from decider.errors import LogError

MIGRATIONS = Migrations("decider.log")


@MIGRATIONS()
def create_log(db: Database) -> None:
    """Version 0.1: tables, indexes and views of schema.sql."""
    for statement in files(__package__).joinpath("schema.sql").read_text(encoding="utf-8").split("\n\n"):
        db.execute(statement)


def migrate(db: Database) -> None:
    """Bring a log up to date. Raises LogError if a newer release wrote it."""
    known = {migration.name for migration in MIGRATIONS.pending(Database(memory=True))}
    unknown = [m.name for m in MIGRATIONS.applied(db) if m.name not in known]
    if unknown:
        raise LogError(f"this log was written by a newer release (it knows {', '.join(unknown)}); upgrade to read it")
    MIGRATIONS.apply(db)
