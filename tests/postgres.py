"""A PostgreSQL server for tests, in a folder of its own and without a port. Debian has the programs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg
import pytest

from decider.log.protocol import EventLog
from simulator.studies.faults.databases import programs

ROOT_ID = 0

USER = "postgres"
"""As whom the server runs where the tests run as root: PostgreSQL refuses to."""

FAST = ("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off")
"""For tests in which no machine dies."""


class PostgresServer:
    """A running server. options: of `postgres`."""

    def __init__(self, folder: Path, bin_: Path, options: Sequence[str] = FAST) -> None:
        self.folder, self._bin, self._options = folder, bin_, options
        self._numbers = count(1)
        self._run(
            "initdb", "-D", str(folder / "data"), "-A", "trust", "-U", USER, "-E", "UTF8", "--locale=C.UTF-8", "-N"
        )
        self._process = self._start()

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._bin / program, *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            user=_user(),
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout

    def _start(self) -> subprocess.Popen[bytes]:
        """Started again where it ends at once: processes of a server that was killed may still be there."""
        give_up = time.monotonic() + 60
        process = self._launch()
        while not self._answers():
            if process.poll() is not None and time.monotonic() < give_up:
                process = self._launch()
            assert time.monotonic() < give_up, (self.folder / "log").read_text()
            time.sleep(0.05)
        return process

    def _launch(self) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as output:
            return subprocess.Popen(
                [
                    self._bin / "postgres", "-D", str(self.folder / "data"), "-k", str(self.folder),
                    "-c", "listen_addresses=", "-c", "max_connections=200", *self._options,
                ],
                cwd=self.folder, stdout=output, stderr=output, user=_user(),
            )  # fmt: skip

    def _answers(self) -> bool:
        asked = [str(self._bin / "pg_isready"), "-q", "-h", str(self.folder), "-U", USER]
        return subprocess.run(asked, check=False).returncode == 0

    def url(self, schema: str) -> str:
        """Of a log in a schema."""
        return f"postgresql:///postgres?host={self.folder}&user={USER}&options=-csearch_path%3D{schema}"

    def new_schema(self) -> str:
        """The URL of a log that is not there yet."""
        schema = f"log_{next(self._numbers)}"
        administer(self.url(schema), f"create schema {schema}")
        return self.url(schema)

    def kill(self) -> None:
        """SIGKILL to the server and, since they see it, its processes."""
        self._process.kill()
        self._process.wait()

    def signal_all(self, number: signal.Signals) -> None:
        """To the server and its processes, as where its machine stands still."""
        pid = self._process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in [pid, *map(int, children)]:
            os.kill(one, number)

    def restart(self) -> None:
        """Start it again after `kill`."""
        self._process = self._start()

    def stop(self) -> None:
        """Fast: open connections are ended."""
        self._process.send_signal(2)
        self._process.wait()


def administer(url: str, sql: str) -> None:
    """As whoever owns the database."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.encode())


def damages(log: EventLog) -> list[str]:
    """Of the whole log."""
    return list(map(str, log.check(lambda _: None)))


def _user() -> str | None:
    return USER if os.getuid() == ROOT_ID else None


@contextmanager
def postgres_server(options: Sequence[str] = FAST) -> Iterator[PostgresServer]:
    """Skips the test where PostgreSQL is not installed."""
    bin_ = programs()
    if bin_ is None:
        pytest.skip("there is no PostgreSQL in /usr/lib/postgresql")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        if (user := _user()) is not None:
            shutil.chown(folder, user)
        server = PostgresServer(folder, bin_, options)
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
