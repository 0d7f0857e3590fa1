"""Our own server: `decider serve` as a process, which may be killed and started again at the same address.

Called by the demo and by `simulator drive --serve`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from decider.errors import DeciderError
from decider.log.open import LogUrl, open_reader
from decider.types import ExperimentId

ANY_PORT = "127.0.0.1:0"
STARTING = 60.0
"""Seconds within which it must be ready."""


class ServerFailed(DeciderError):
    """The server ended before it was ready; its output says why."""

    reason = "SERVER_FAILED"


class OwnServer:
    """target, http, web: HOST:PORT of gRPC, of HTTP, and of the port for pages (where options ask for one, else empty).
    output: the file of what it says. options: further ones."""

    def __init__(
        self,
        db: Path | LogUrl,
        *,
        listen: str,
        http: str,
        output: Path,
        experiments: Sequence[Path] = (),
        options: Sequence[str] = (),
    ) -> None:
        self.db = db
        self._options = [part for path in experiments for part in ("--experiments", str(path))] + list(options)
        self._output = output  # written to at its end: it may be another server's, too
        self.target, self.http, self.web = listen, http, ""
        self.start()

    def start(self) -> None:
        """At the same address as before. Raises ServerFailed."""
        addresses = ["--listen", self.target, "--http", self.http]
        command = [sys.executable, "-m", "decider.cli", "serve", "--db", os.fspath(self.db), *addresses, *self._options]
        with self._opened() as file:
            said = file.tell()
            self.process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        try:
            self.target, self.http, self.web = self._ready(said)
        except BaseException:  # Ctrl-C, too: it does not reach the process by itself
            self.kill()
            raise

    def _opened(self) -> BinaryIO:
        try:
            return self._output.open("ab")
        except OSError as error:
            raise ServerFailed(f"{self._output}: cannot be written ({error.strerror}); name another log") from error

    def _ready(self, since: int) -> tuple[str, str, str]:
        """What the process says when it serves; so nobody else's server on the same port is taken for ours."""
        deadline = time.monotonic() + STARTING
        while time.monotonic() < deadline:
            output = self._output.read_bytes()[since:].decode()
            told = re.search(r"^gRPC on (\S+), metrics on http://([^/\s]+)", output, re.MULTILINE)
            if told:
                web = re.search(r"^Connect and JSON on http://([^/\s]+)", output, re.MULTILINE)
                return told[1], told[2], web[1] if web else ""
            if self.process.poll() is not None:
                raise ServerFailed(output.strip().removeprefix("Error: "))
            time.sleep(0.05)
        raise ServerFailed(f"not ready after {STARTING:g} s; see {self._output}")

    def kill(self) -> None:
        """SIGKILL, also of its workers."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Drain and end it."""
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def serving(
    db: Path,
    *,
    listen: str = ANY_PORT,
    http: str = ANY_PORT,
    experiments: Sequence[Path] = (),
    options: Sequence[str] = (),
) -> Iterator[OwnServer]:
    """A server, ready; drained at the end, also when this process is told to end. Raises ServerFailed."""
    with terminable():
        output = Path(f"{db}.log")
        server = OwnServer(db, listen=listen, http=http, output=output, experiments=experiments, options=options)
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends this process as an exception does, so that what it has started is ended, too."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def wait_until_sealed(db: Path | LogUrl, experiment: str, *, window: float) -> None:
    """Until the last visitors' windows (seconds) are over; not much longer than that."""
    deadline = time.monotonic() + window + 10
    with closing(open_reader(db)) as log:
        while time.monotonic() < deadline and log.next_deadline(
            after=log.head().time, experiment=ExperimentId(experiment)
        ):
            time.sleep(0.2)
