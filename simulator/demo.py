"""The demo: a real server, a simulated storefront over real gRPC, and a table of what was learned.

Called by `simulator demo` (`make demo`). The table is read from the log, so a second run adds to the first's.
"""

from __future__ import annotations

import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from decider.client import Client
from decider.estimate.mean import Interval, Mean
from decider.log.rows import context_of
from decider.log.sqlite import SqliteReader, lock
from simulator.drive import Sent, StorefrontDrive, delivered
from simulator.worlds.scenes import storefront

EXPERIMENT_FILE = Path(__file__).parent / "storefront.toml"
EXPERIMENT = "storefront"
ACTIONS = ("new-arrivals", "sale", "outfit", "free-shipping", "finish-checkout", "none")
WINDOW = 3.0
"""Seconds, as in storefront.toml."""

_VISITS = """
select position, segment, device, channel, location, intent_stage, reward from sealed_decisions
where experiment = ? and reason in ('EXPLOIT', 'EXPLORE') order by position
"""


class ServerFailed(Exception):
    """The server ended before it was ready; its output says why."""


class DemoServer(NamedTuple):
    """The demo's own server process and where it listens."""

    process: subprocess.Popen[bytes]
    target: str
    http: str


@contextmanager
def server(db: Path, *, listen: str, http: str) -> Iterator[DemoServer]:
    """`decider serve` as a process of its own, ready; drained at the end, also when this process is told to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    command = [sys.executable, "-m", "decider.cli", "serve", "--experiments", str(EXPERIMENT_FILE)]
    output = Path(f"{db}.log")
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--db", str(db), "--listen", listen, "--http", http], stdout=file, stderr=file
        )
    try:
        yield DemoServer(process, *_ready(process, output))
    finally:
        process.terminate()
        process.wait(timeout=30)


def _ready(process: subprocess.Popen[bytes], output: Path) -> tuple[str, str]:
    """What the process says when it serves; so nobody else's server on the same port is taken for ours."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        told = re.search(r"^gRPC on (\S+), metrics on http://([^/\s]+)", output.read_text(), re.MULTILINE)
        if told:
            return told[1], told[2]
        if process.poll() is not None:
            raise ServerFailed(output.read_text().strip().removeprefix("Error: "))
        time.sleep(0.1)
    raise ServerFailed(f"not ready after 60 s; see {output}")


def drive(target: str, visitors: int, *, seed: int, console: Console) -> Sent:
    """The storefront's visitors, with a progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Client(target) as client, Progress(*columns, console=console) as progress:
        task = progress.add_task("visitors", total=visitors)
        visits = StorefrontDrive(client, experiment=EXPERIMENT, window=WINDOW, seed=seed)
        return visits.run(visitors, on_decision=lambda: progress.advance(task))


class _Row:
    """What one group of visitors earned, and would have earned."""

    def __init__(self) -> None:
        self.learned, self.uniform, self.fixed = Mean(), Mean(), Mean()
        self.above_uniform, self.above_fixed = Mean(), Mean()

    def add(self, reward: float, uniform: float, fixed: float) -> None:
        self.learned.add(reward)
        self.uniform.add(uniform)
        self.fixed.add(fixed)
        self.above_uniform.add(reward - uniform)
        self.above_fixed.add(reward - fixed)


def table(db: Path) -> Table:
    """Rewards of the learning policy against what the same visitors were worth to others, by segment."""
    with closing(SqliteReader(db)) as log:
        visits = [(context_of(fields, {}), reward) for _, *fields, reward in log.query(_VISITS, (EXPERIMENT,))]
    arriving = delivered(WINDOW)
    means = [{action: arriving * storefront.mean(context, action) for action in ACTIONS} for context, _ in visits]
    best = max(ACTIONS, key=lambda action: sum(m[action] for m in means))
    names = [*storefront.SEGMENTS, "(unknown)", "all", "all, last third"]
    rows = {name: _Row() for name in names}
    for index, ((context, reward), known) in enumerate(zip(visits, means, strict=True)):
        groups = [context.segment or "(unknown)", "all"]
        if index >= len(visits) * 2 // 3:
            groups.append("all, last third")
        for group in groups:
            rows[group].add(reward, sum(known.values()) / len(known), known[best])
    return _rendered(rows, best)


def _rendered(rows: dict[str, _Row], best: str) -> Table:
    result = Table(
        title="Clicks per visit, with 95 % intervals",
        caption=f"* always {best}. uniform and best fixed: the same visitors' known means in this world",
        title_justify="left",
        caption_justify="left",
    )
    for heading in ("segment", "visits", "learning", "uniform", "best fixed*"):
        result.add_column(heading, justify="left" if heading == "segment" else "right")
    result.add_column("- uniform", justify="right")
    result.add_column("- best fixed", justify="right")
    for name, row in rows.items():
        if name == "all":
            result.add_section()
        if not row.learned.count:
            continue
        result.add_row(
            name,
            str(row.learned.count),
            _shown(row.learned.interval()),
            f"{row.uniform.value:.3f}",
            f"{row.fixed.value:.3f}",
            _shown(row.above_uniform.interval(), sign="+"),
            _shown(row.above_fixed.interval(), sign="+"),
        )
    return result


def _shown(interval: Interval, sign: str = "") -> str:
    if not math.isfinite(interval.high):
        return f"{interval.value:{sign}.3f}"
    return f"{interval.value:{sign}.3f} ±{interval.high - interval.value:.3f}"


def remove(db: Path) -> None:
    """Forget an earlier run. Raises LogLocked while a server writes it."""
    with lock(db):
        for suffix in ("", "-wal", "-shm", ".log"):
            Path(f"{db}{suffix}").unlink(missing_ok=True)


def wait_until_sealed(db: Path) -> None:
    """Until the last visitors' windows are over."""
    deadline = time.monotonic() + WINDOW + 10
    with closing(SqliteReader(db)) as log:
        while time.monotonic() < deadline and any(
            log.next_deadline(version, after=log.end().time) for version in log.versions()
        ):
            time.sleep(0.2)
