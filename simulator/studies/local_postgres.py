"""A PostgreSQL server of a study's own: in a temporary folder, on a Unix socket, gone afterwards. Debian's programs.

Called by `appends.py`. Its standby is a second server that follows the first one.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from decider.log.open import LogUrl

OWNER = "postgres"
"""As whom the server runs where a study runs as root: PostgreSQL refuses to."""

PORT = 5432
"""Names the socket; nothing listens on it."""

STANDBY = "standby"
"""Its name, as `synchronous_standby_names` takes it."""

PATIENCE = 60.0
"""Seconds until a server must answer."""

Settings = Sequence[str]
"""Of `postgres`, as NAME=VALUE."""


class NoPostgres(Exception):
    """PostgreSQL is not installed, or does not start; says why."""


def programs() -> Path:
    """The folder of the newest `postgres`. Raises NoPostgres."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise NoPostgres("there is no PostgreSQL in /usr/lib/postgresql: apt-get install postgresql")
    return found[-1].parent


def _user() -> str | None:
    return OWNER if os.getuid() == 0 else None


def _run(program: str, *arguments: str | Path) -> None:
    command = [str(programs() / program), *map(str, arguments)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, user=_user(), check=False)
    if done.returncode:
        raise NoPostgres(f"{program}: {done.stderr.strip()}")


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running server. folder: of its socket."""

    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Of the process whose children serve connections."""
        return self.process.pid

    def new_database(self, name: str) -> LogUrl:
        """The address of a log that is not there yet. Raises NoPostgres."""
        _run("createdb", "-h", self.folder, "-p", str(PORT), "-U", OWNER, name)
        return LogUrl(f"postgresql:///{name}?host={self.folder}&user={OWNER}")


@contextmanager
def local_postgres(settings: Settings = (), *, has_standby: bool = False) -> Iterator[LocalServer]:
    """A new, empty server with these settings; with a standby that each commit waits for. Raises NoPostgres."""
    with ExitStack() as opened:
        folder = opened.enter_context(_folder())
        _run("initdb", "-D", folder / "data", "-A", "trust", "-U", OWNER, "-E", "UTF8", "--locale=C.UTF-8", "-N")
        if not has_standby:
            yield opened.enter_context(_started(folder, settings))
            return
        waits = f"synchronous_standby_names={STANDBY}"
        server = opened.enter_context(_started(folder, [*settings, waits]))
        copy = opened.enter_context(_folder())
        primary = f"host={folder} port={PORT} user={OWNER} application_name={STANDBY}"
        _run("pg_basebackup", "-D", copy / "data", "-d", primary, "-R", "-c", "fast", "-N")
        opened.enter_context(_started(copy, settings))
        yield server


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        if (user := _user()) is not None:
            shutil.chown(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _started(folder: Path, settings: Settings) -> Iterator[LocalServer]:
    options = ["-D", str(folder / "data"), "-k", str(folder), "-p", str(PORT)]
    for setting in ("listen_addresses=", "max_connections=100", *settings):
        options += ["-c", setting]
    with (folder / "output").open("ab") as output:
        process = subprocess.Popen(
            [programs() / "postgres", *options], cwd="/", stdout=output, stderr=output, user=_user()
        )
    try:
        _wait_until_it_answers(folder, process)
        yield LocalServer(folder, process)
    finally:
        process.send_signal(signal.SIGINT)  # fast: connections are ended
        process.wait(PATIENCE)


def _wait_until_it_answers(folder: Path, process: subprocess.Popen[bytes]) -> None:
    asked = [str(programs() / "pg_isready"), "-q", "-h", str(folder), "-p", str(PORT), "-U", OWNER]
    give_up = time.monotonic() + PATIENCE
    while subprocess.run(asked, check=False).returncode:
        if process.poll() is not None or time.monotonic() > give_up:
            raise NoPostgres((folder / "output").read_text(encoding="utf-8"))
        time.sleep(0.05)
