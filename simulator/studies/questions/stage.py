"""A server, its log, and the ways in which a person asks it: a command, a metric, a page. Called by `ask.py`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import click

from simulator.drive.live import Options, drive
from simulator.drive.plan import Shares
from simulator.drive.result import DriveResult
from simulator.studies.questions.truth import Truth, read_truth
from simulator.studies.served import Served, scrape
from simulator.worlds.world import World

HOLDOUT = 0.1
WINDOW = 2.0
"""Seconds: long enough that on a busy machine, too, every reward comes in time."""

CAN_BE_ANSWERED = (0, 1)
"""Exit codes: 1 says that the log cannot tell, which is an answer."""


class Timed(NamedTuple):
    """What a way gave, and after how many seconds."""

    seconds: float
    found: Any


class Stage:
    """What is driven for an experiment is noted beside the log, so a later run has it."""

    def __init__(self, db: Path, server: Served, visitors: int) -> None:
        self.db, self.server, self.visitors = db, server, visitors
        self._noted = db.with_suffix(".drives.json")
        self._truths: dict[str, Truth] = {}

    @property
    def target(self) -> str:
        """Of gRPC."""
        return f"127.0.0.1:{self.server.port}"

    def drive(self, world: World, visitors: int, *, seed: int = 1, lost: float = 0.0, **more: Any) -> DriveResult:
        """Send a world's visitors."""
        holdout = world.experiment.holdout or HOLDOUT
        shares = Shares(lost=lost, late=0.0, duplicate=0.0, reordered=0.0)
        options = Options(
            self.target, visitors=visitors, seed=seed, window=WINDOW, shares=shares, holdout=holdout, **more
        )
        return drive(world, options)

    def truth_of(self, world: World, result: DriveResult) -> Truth:
        """Of a drive whose windows are over in a moment."""
        time.sleep(2 * WINDOW + 0.5)
        return read_truth(self.db, world, run=result.run, seed=result.seed, visitors=result.visitors)

    def truth(self, world: World, visitors: int, *, rate: float | None = None) -> Truth:
        """Of the experiment's visitors, who are sent now if they were not. rate: of a second."""
        id_ = world.experiment.id
        noted = json.loads(self._noted.read_text(encoding="utf-8")) if self._noted.exists() else {}
        if id_ not in noted:
            result = self.drive(world, visitors, rate=rate)
            noted[id_] = {"run": result.run, "seed": result.seed, "visitors": visitors}
            self._noted.write_text(json.dumps(noted), encoding="utf-8")
            time.sleep(2 * WINDOW + 0.5)  # until the last windows are over and a round of the leader has been
        if id_ not in self._truths:
            self._truths[id_] = read_truth(self.db, world, **noted[id_])
        return self._truths[id_]

    def simulator(self, name: str, *arguments: str) -> Timed:
        """The JSON of a command."""
        file = self.db.with_suffix(".json")
        seconds, _ = run("simulator.cli", name, *arguments, "--json", str(file))
        return Timed(seconds, json.loads(file.read_text(encoding="utf-8")))

    def view(self, name: str, *, where: str = "1", newest: int = 1_000) -> Timed:
        """The rows of a view or table of the log, the newest ones, by sqlite-utils."""
        order = ("--order", "position desc") if name != "action_summary" else ()
        seconds, text = run(
            "sqlite_utils", "rows", str(self.db), name, "--where", where, "--limit", str(newest), *order
        )
        return Timed(seconds, json.loads(text))

    def get(self, path: str) -> Timed:
        """The text of the HTTP port."""
        started = time.monotonic()
        with urlopen(f"http://{self.server.http}{path}", timeout=60) as answer:
            text = answer.read().decode()
        return Timed(time.monotonic() - started, text)

    def metric(self, family: str, /, **labels: str) -> Timed:
        """One sample, 0 where there is none."""
        found = scrape(self.server.http)
        wanted = ",".join([f'{label}="{value}"' for label, value in sorted(labels.items())])
        values = [
            line.rpartition(" ")[2] for line in found.text.splitlines() if line.startswith(f"{family}{{{wanted}}} ")
        ]
        return Timed(found.seconds, float(values[0]) if values else 0.0)


def run(module: str, *arguments: str) -> Timed:
    """The output of a command of ours. Raises ClickException."""
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)
    if done.returncode not in CAN_BE_ANSWERED:
        raise click.ClickException(f"{module} {' '.join(arguments)}: {done.stdout}{done.stderr}")
    return Timed(time.monotonic() - started, done.stdout)
