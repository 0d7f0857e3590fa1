"""`decider serve` on a host: a leader and its workers, as a service manager keeps them. Called by `stage.py`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from simulator.studies.faults.databases import wait_until
from simulator.studies.faults.hosts import Host
from simulator.studies.served import children

GRPC_PORT, HTTP_PORT = 50051, 8080
WORKERS = 2
DRAIN = 30.0
_SERVES = "gRPC on "


@dataclass(slots=True)
class Group:
    """A parent with its leader and workers. restarts: how often it had ended by itself."""

    host: Host
    folder: Path
    options: tuple[str, ...]
    process: subprocess.Popen[str] | None = None
    restarts: int = 0

    @property
    def output(self) -> Path:
        """What all of its processes say."""
        return self.folder / f"{self.host.name}.output"

    @property
    def _temporary(self) -> Path:
        return self.folder / f"{self.host.name}-tmp"

    def start(self) -> None:
        """Without waiting for it."""
        self._temporary.mkdir(exist_ok=True)
        command = [
            "env", f"TMPDIR={self._temporary}", sys.executable, "-m", "decider.cli", "serve", "--workers", str(WORKERS),
            "--listen", f"0.0.0.0:{GRPC_PORT}", "--http", f"0.0.0.0:{HTTP_PORT}", *self.options,
        ]  # fmt: skip
        self.process = self.host.start(command, self.output)

    def revive(self) -> bool:
        """Start it again where it has ended, as a service manager does; whether it had."""
        if self.process is not None and self.process.poll() is None:
            return False
        self.restarts += 1
        self.start()
        return True

    def wait_until_serving(self) -> None:
        """Raises NoHosts."""
        wait_until(lambda: self._times_serving() > self.restarts, f"{self.host.name} does not serve: see {self.output}")

    def _times_serving(self) -> int:
        return self.output.read_text(encoding="utf-8", errors="replace").count(_SERVES) if self.output.exists() else 0

    def pid(self, name: str) -> int | None:
        """Of the leader or a worker, as it has said itself; None where it is not there now."""
        alive = children(self.process.pid) if self.process is not None and self.process.poll() is None else []
        for file in self._temporary.glob(f"*-workers-*/{name}.json"):
            with suppress(OSError, ValueError):
                pid = int(json.loads(file.read_text())["pid"])
                if pid in alive:
                    return pid
        return None

    def kill_child(self, name: str) -> bool:
        """SIGKILL to the leader or a worker; whether it was there."""
        pid = self.pid(name)
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        return True

    def kill(self) -> None:
        """SIGKILL to all of its processes at once."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code. Raises subprocess.TimeoutExpired."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(DRAIN)
