"""Hosts of a log in PostgreSQL, for tests: each is a `decider serve --workers N` of its own, on other ports."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from tests.rpc_clients import ServerProcess, until


class Host(ServerProcess):
    """A parent with its leader's process and workers. folder: of the output; TMPDIR, where the processes report."""

    def __init__(self, folder: Path, name: str, url: str, *options: str, workers: int = 1) -> None:
        self._boards = folder
        given = ("--workers", str(workers), "--learn-interval", "0.05", *options)
        super().__init__(folder / name, *given, url=url)

    def pid(self, name: str) -> int:
        """Of a child; 0: it has not reported yet."""
        parent = self.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        found = [int(json.loads(path.read_text())["pid"]) for path in self._boards.glob(f"*-workers-*/{name}.json")]
        return next((pid for pid in found if str(pid) in children), 0)

    @property
    def led(self) -> int:
        """How often it has begun to lead."""
        return self.output.count("leads now")

    def leads(self, since: int = 0) -> None:
        """Wait until it does once more."""
        until(lambda: self.led > since, what="it leads")

    def signal(self, name: str, number: signal.Signals) -> None:
        """To a child."""
        os.kill(until(lambda: self.pid(name), what=f"{name} is there"), number)

    def kill_all(self) -> None:
        """SIGKILL to parent and children: the host is gone."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        self.kill()
        for pid in children:
            os.kill(int(pid), signal.SIGKILL)
