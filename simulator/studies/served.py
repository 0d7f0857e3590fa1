"""`decider serve` as a process that is measured: started on chosen cores, looked at through /proc and /metrics.

Linux only. Called by `bench.py`, `growth.py`, `soak`, `attack` and `kills`.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

ALL_CORES = frozenset(os.sched_getaffinity(0))
SERVER_CORE = frozenset({min(ALL_CORES)})
LOAD_CORE = frozenset({max(ALL_CORES)})
"""The same one where there is only one."""

DRAIN = 300.0
"""Seconds that a server gets to end after SIGTERM."""

_READY = re.compile(r"^gRPC on \S+:(\d+), metrics on https?://([^/\s]+)", re.MULTILINE)
_SCHEDULED = 2
"""Makes a process id the number of its clock, as `clock_getcpuclockid` of Linux does; Python has no such function."""


class NotServing(Exception):
    """The server ended, or was not ready in time; its output says why."""


@dataclass(frozen=True, slots=True)
class Served:
    """port: of gRPC. http: HOST:PORT of HTTP. start_up: seconds from the start of the process to the first call that it
    would take."""

    process: subprocess.Popen[bytes]
    port: int
    http: str
    start_up: float

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    def stop(self) -> int:
        """SIGTERM; the exit code. Raises subprocess.TimeoutExpired."""
        self.process.terminate()
        return self.process.wait(DRAIN)


@contextmanager
def serving(
    db: Path,
    *options: str,
    cores: Collection[int] = SERVER_CORE,
    patience: float = 60.0,
    program: Sequence[str] = ("-m", "decider.cli"),
) -> Iterator[Served]:
    """A server on free ports unless `options` say otherwise, ready; its output is in DB.output. Killed at the end if it
    has not been stopped.

    patience: seconds until it must be ready. program: what Python runs. Raises NotServing.
    """
    addresses = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    command = [sys.executable, *program, "serve", "--db", str(db), *addresses, *options]
    output, started = db.with_name(f"{db.name}.output"), time.monotonic()
    process = start(command, cores, output)
    try:
        port, http = _wait_until_ready(process, output, started + patience)
        yield Served(process, port, http, time.monotonic() - started)
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """On which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def start(command: Sequence[str], cores: Collection[int], output: Path) -> subprocess.Popen[bytes]:
    """A process on some of the cores, with both of its streams in a file."""
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    # Not by `preexec_fn`: Python would fork then, and a fork of a process whose threads call gRPC may crash.
    with suppress(ProcessLookupError):  # it has ended already
        os.sched_setaffinity(process.pid, cores)
    return process


def _wait_until_ready(process: subprocess.Popen[bytes], output: Path, end: float) -> tuple[int, str]:
    while time.monotonic() < end:
        ready = _READY.search(output.read_text(encoding="utf-8", errors="replace"))
        if ready:
            return int(ready[1]), ready[2]
        if process.poll() is not None:
            raise NotServing(output.read_text(encoding="utf-8", errors="replace").strip())
        time.sleep(0.02)
    raise NotServing(f"not ready in time; {output} has what it said")


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, all of its threads, to the nanosecond. Raises OSError where there is none."""
    return time.clock_gettime(~pid << 3 | _SCHEDULED)


def children(pid: int) -> list[int]:
    """The processes that a process has started and that have not ended, the oldest first."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()]


def keep_to(pid: int, cores: Collection[int]) -> None:
    """Move a process with all of its threads to some of the cores."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), cores)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_bytes(pid: int) -> int:
    """The most resident memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def count_threads(pid: int) -> int:
    """Threads of a process."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def count_descriptors(pid: int) -> int:
    """Open files and connections of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def file_bytes(db: Path, suffix: str = "") -> int:
    """Size of the log, or of a file beside it (`-wal`); 0 where there is none."""
    path = db.with_name(db.name + suffix)
    return path.stat().st_size if path.exists() else 0


@dataclass(frozen=True, slots=True)
class Scrape:
    """An answer of /metrics, and how long it took."""

    seconds: float
    text: str

    def value(self, name: str, experiment: str | None = None) -> float | None:
        """The sample with that name (of an experiment); None where there is none.

        >>> Scrape(0.1, 'age_seconds{experiment="home"} 0.5').value("age_seconds", "home")
        0.5
        """
        labels = f'{{experiment="{experiment}"}}' if experiment else r"(?:\{[^}]*\})?"
        pattern = f"^{name}{re.escape(labels) if experiment else labels} (\\S+)$"
        found = re.search(pattern, self.text, re.MULTILINE)
        return float(found[1]) if found else None


def scrape(http: str, *, patience: float = 120.0) -> Scrape:
    """What Prometheus would get now."""
    started = time.monotonic()
    with urlopen(f"http://{http}/metrics", timeout=patience) as answer:
        text = answer.read().decode()
    return Scrape(time.monotonic() - started, text)
