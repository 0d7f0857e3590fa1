"""PostgreSQL on two hosts: one writes, the other follows it at once, and takes its place where it dies.

Each has its data on a small file system of its own, which can be made full. A commit is answered once the standby has
it on its disk: so nothing that was acknowledged is lost where the standby is promoted.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from simulator.drive.own_postgres import USER, NoPostgres, programs, user_of_postgres
from simulator.studies.faults.hosts import NETWORK, Host, NoHosts
from simulator.studies.served import children

OWNER, DATABASE = "decider", "shop"
"""Who owns the log: no superuser, so that superusers still come in where all connections are taken."""

PORT = 5432
ROOM = "2g"
CONNECTIONS = 80
PATIENCE = 60.0

_SETTINGS = (
    "listen_addresses=*", f"max_connections={CONNECTIONS}", "shared_buffers=32MB", "max_wal_size=96MB",
    "wal_keep_size=64MB", "wal_sender_timeout=2s", "wal_receiver_timeout=2s", "wal_retrieve_retry_interval=200ms",
    "wal_receiver_status_interval=1s", "hot_standby=on", "wal_log_hints=on", "restart_after_crash=on",
    "logging_collector=off", "autovacuum_naptime=20s", "superuser_reserved_connections=6",
)  # fmt: skip
_SYNCHRONOUS = "alter system set synchronous_standby_names = '*'", "select pg_reload_conf()"
_ALONE = "alter system reset synchronous_standby_names", "select pg_reload_conf()"
_FOLLOWED = "select count(*) from pg_stat_replication where state = 'streaming' and sync_state = 'sync'"
TAKER = "taker"
_END_OTHERS = """
select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = %s and application_name <> %s
"""

_LOOK = """
select (select epoch from lease),
  coalesce((select host(a.client_addr) from pg_locks l join pg_stat_activity a using (pid)
    where l.locktype = 'advisory' and l.objsubid = 1 and l.granted and a.datname = current_database()
      and ((l.classid::bigint << 32) | l.objid::bigint)
        = hashtextextended('decider leader ' || current_schema(), 0)), ''),
  coalesce((select time from published order by position desc limit 1), 0) / 1e6::double precision
"""

Connection = psycopg.Connection[tuple[Any, ...]]


class Sight(NamedTuple):
    """epoch: of the lease; each leader has a higher one. holder: address of who has it, "" where nobody has. published:
    when a leader published last, by the log's time, seconds since 1970."""

    at: float
    epoch: int
    holder: str
    published: float


def look(connection: Connection) -> Sight:
    """Who leads now. Raises psycopg.Error."""
    row = connection.execute(_LOOK.encode()).fetchone()
    assert row is not None
    return Sight(time.time(), *row)


@dataclass(slots=True)
class Database:
    """PostgreSQL on a host, running or not. folder: of its data and its socket, a file system of its own."""

    host: Host
    folder: Path
    bin: Path
    process: subprocess.Popen[str] | None = None

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.folder / "data"

    def make(self) -> None:
        """Its first data. Raises NoHosts."""
        self._run("initdb", "-D", str(self.data), "-A", "trust", "-U", USER, "-E", "UTF8", "--locale=C.UTF-8", "-N")
        with (self.data / "pg_hba.conf").open("a") as file:
            file.write(f"host all all {NETWORK}.0/24 trust\nhost replication all {NETWORK}.0/24 trust\n")

    def copy(self, other: Database) -> None:
        """Begin anew as the standby of another one that runs. Raises NoHosts."""
        shutil.rmtree(self.data, ignore_errors=True)
        self._run(
            "pg_basebackup", "-D", str(self.data), "-h", other.host.address, "-U", USER, "-R", "-X", "stream",
            "-c", "fast", "--no-sync",
        )  # fmt: skip

    def _run(self, program: str, *arguments: str) -> None:
        done = self.host.run([str(self.bin / program), *arguments], user=user_of_postgres())
        if done.returncode:
            raise NoHosts(f"{program} failed: {done.stderr or done.stdout}")

    def start(self) -> None:
        """Until it answers; begun again where it ends at once, as it does while processes of one that was killed are
        there. Raises NoHosts."""
        give_up = time.monotonic() + PATIENCE
        while not self.answers():
            if self.process is None or self.process.poll() is not None:
                self.process = self._launch()
            if time.monotonic() > give_up:
                raise NoHosts(f"PostgreSQL does not start: see {self._output}")
            time.sleep(0.05)

    @property
    def _output(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    def _launch(self) -> subprocess.Popen[str]:
        settings = [part for setting in _SETTINGS for part in ("-c", setting)]
        command = [str(self.bin / "postgres"), "-D", str(self.data), "-k", str(self.folder), *settings]
        return self.host.start(command, self._output, user=user_of_postgres())

    def answers(self) -> bool:
        """Whether it takes connections."""
        with suppress(psycopg.Error), self.connect() as connection:
            connection.execute("select 1")
            return True
        return False

    def connect(self, database: str = "postgres", **settings: str) -> Connection:
        """As the superuser, by its socket, from anywhere on this machine. Raises psycopg.Error."""
        given: dict[str, Any] = {"user": USER, "connect_timeout": 2, **settings}
        return psycopg.connect(host=str(self.folder), dbname=database, autocommit=True, **given)

    def execute(self, *statements: str, database: str = "postgres") -> None:
        """Raises psycopg.Error."""
        with self.connect(database) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def value(self, query: str) -> Any:
        """The only one of a query. Raises psycopg.Error."""
        with self.connect() as connection:
            row = connection.execute(query.encode()).fetchone()
            return None if row is None else row[0]

    def kill(self) -> None:
        """SIGKILL to the server and all its processes."""
        if self.process is None:
            return
        with suppress(OSError):
            for pid in [*children(self.process.pid), self.process.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def promote(self) -> None:
        """Let this standby write. Nobody follows it yet, and it waits for nobody."""
        self.execute(*_ALONE, "select pg_promote()")

    def follow_synchronously(self) -> None:
        """From now on an answer waits for the standby, which has to be there."""
        self.execute(*_SYNCHRONOUS)
        wait_until(self.is_followed, f"nobody follows PostgreSQL on {self.host.name}")

    def is_followed(self) -> bool:
        """Whether the standby has everything that is answered."""
        with suppress(psycopg.Error):
            return bool(self.value(_FOLLOWED))
        return False

    def take_connections(self, taken: list[Connection]) -> None:
        """End those of the servers, and take all that there are; they are added to `taken`."""
        with self.connect() as connection:
            connection.execute(_END_OTHERS, (OWNER, TAKER))
        with suppress(psycopg.OperationalError):
            while True:
                taken.append(self.connect(DATABASE, user=OWNER, application_name=TAKER))

    def fill_disk(self) -> None:
        """No byte more."""
        for _ in range(20):
            usage = os.statvfs(self.folder)
            with suppress(NoHosts):  # it has grown since
                self._resize(str((usage.f_blocks - usage.f_bfree) * usage.f_frsize))
                return
        raise NoHosts(f"{self.folder}: cannot be made full")

    def free_disk(self) -> None:
        """Room again; one that has ended for lack of it is started."""
        self._resize(ROOM)

    def _resize(self, size: str) -> None:
        mount("-o", f"remount,size={size}", str(self.folder))


def mount(*arguments: str) -> None:
    """Raises NoHosts."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoHosts(f"mount does not work here: {done.stderr.strip()}")


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """A file system in memory, which is nobody's business once this has ended. Raises NoHosts."""
    folder.mkdir(parents=True)
    mount("-t", "tmpfs", "-o", f"size={ROOM},mode=700", "tmpfs", str(folder))
    shutil.chown(folder, user_of_postgres() or os.getuid())
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)
        folder.rmdir()


@dataclass(slots=True)
class Databases:
    """The one that writes, and the one that follows it."""

    writer: Database
    standby: Database
    both: Sequence[Database] = field(default_factory=tuple)

    def fail_over(self) -> None:
        """The standby, from now on, writes; the other one has to be dead, or cut off."""
        self.standby.promote()
        self.writer, self.standby = self.standby, self.writer

    def follow_again(self) -> None:
        """The one that was replaced begins anew as the standby."""
        self.standby.kill()
        self.standby.copy(self.writer)
        self.standby.start()
        self.writer.follow_synchronously()


@contextmanager
def databases(writer: Host, standby: Host, folder: Path) -> Iterator[Databases]:
    """Both run, with an empty database. Raises NoHosts."""
    try:
        found = programs()
    except NoPostgres as error:
        raise NoHosts(str(error)) from error
    with ExitStack() as opened:
        both = [Database(host, folder / host.name, found) for host in (writer, standby)]
        for one in both:
            opened.enter_context(disk(one.folder))
            opened.callback(one.kill)
        first, second = both
        first.make()
        first.start()
        first.execute(f"create role {OWNER} login", f"create database {DATABASE} owner {OWNER}")
        second.copy(first)
        second.start()
        first.follow_synchronously()
        yield Databases(first, second, both)


def wait_until(condition: Any, otherwise: str, patience: float = PATIENCE) -> None:
    """Raises NoHosts, which says what is otherwise."""
    give_up = time.monotonic() + patience
    while not condition():
        if time.monotonic() > give_up:
            raise NoHosts(otherwise)
        time.sleep(0.05)
