"""PostgreSQL for a study, alone or with a standby that each commit waits for. Called by `appends.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from simulator.drive.own_postgres import PORT, USER, OwnPostgres, folder_of_postgres, own_postgres, run_program

STANDBY = "standby"
"""Its name, as `synchronous_standby_names` takes it."""

Settings = Sequence[str]
"""Of `postgres`, as NAME=VALUE."""


@contextmanager
def local_postgres(settings: Settings = (), *, has_standby: bool = False) -> Iterator[OwnPostgres]:
    """A new, empty server with these settings. Raises NoPostgres."""
    with own_postgres([*settings, f"synchronous_standby_names={STANDBY if has_standby else ''}"]) as server:
        if not has_standby:
            yield server
            return
        with _follower(server, settings):
            yield server


@contextmanager
def _follower(server: OwnPostgres, settings: Settings) -> Iterator[None]:
    with folder_of_postgres() as folder:
        follows = f"host={server.folder} port={PORT} user={USER} application_name={STANDBY}"
        run_program("pg_basebackup", "-D", folder / "data", "-d", follows, "-R", "-c", "fast", "-N")
        standby = OwnPostgres(folder, settings)
        try:
            yield
        finally:
            standby.stop()
