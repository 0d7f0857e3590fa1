"""`make soak`: an hour of load at a stated share of the largest rate, with everything that happens to a server in it.

A real `decider serve` on a real file, on one core; the load comes by the clock from another core, so that a stall is
seen in the latencies of all calls that it kept waiting. In it: other policies, a pause, an archive run, a copy. At the
end everything acknowledged must be in the log or the archive once, and all of it must replay. Linux only.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from simulator.studies.load import Load
from simulator.studies.served import LOAD_CORE, Served, cpu_seconds, serving
from simulator.studies.soak import check
from simulator.studies.soak.events import Event, Operator
from simulator.studies.soak.plot import drawing
from simulator.studies.soak.samples import Sample, Trend, take_sample, trend
from simulator.studies.soak.traffic import Traffic, Window, fastest

IN_FLIGHT = 32
CONNECTIONS = 4
LONGEST_WAIT = 0.002
"""Seconds between two looks at the clock."""


@dataclass(frozen=True, slots=True)
class Plan:
    """minutes: of load. share: of the largest rate. every: seconds between samples. warm, measure: seconds for the
    largest rate."""

    minutes: float
    share: float
    every: float
    warm: float
    measure: float

    @property
    def seconds(self) -> float:
        """Of load."""
        return self.minutes * 60


class Sampler:
    """Takes samples in a thread of its own, so that the load is not held up by /metrics."""

    def __init__(self, server: Served, db: Path, started: float) -> None:
        self.samples: list[Sample] = []
        self._server, self._db, self._started = server, db, started
        self._windows: SimpleQueue[Window | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="samples")
        self._thread.start()

    def take(self, window: Window | None) -> None:
        """A sample of a window that has ended; None: there will be no more."""
        self._windows.put(window)

    def _run(self) -> None:
        before = cpu_seconds(self._server.pid)
        while (window := self._windows.get()) is not None:
            after, at = cpu_seconds(self._server.pid), window.ended - self._started
            self.samples.append(take_sample(self._server, self._db, window, at=at, cpu=after - before))
            before = after

    def finish(self) -> Sequence[Sample]:
        """All samples, once the last one is taken."""
        self.take(None)
        self._thread.join()
        return self.samples


def send_by_the_clock(
    traffic: Traffic, sampler: Sampler, rate: float, plan: Plan, tell: Callable[[float], None]
) -> None:
    """Decisions at that rate, whether the server keeps up or not."""
    started = time.perf_counter()
    step, due, sample_at, end = 1 / rate, started, started + plan.every, started + plan.seconds
    while (now := time.perf_counter()) < end:
        while due <= now:
            traffic.decide(due)
            due += step
        traffic.reward(now)
        traffic.hear(max(0.0, min(due - now, LONGEST_WAIT)))
        if now >= sample_at:
            sampler.take(traffic.take_window())
            sample_at += plan.every
            tell(now - started)


@dataclass(frozen=True, slots=True)
class Soaked:
    """What the soak has measured. rate: decisions per second that were asked for. unanswered: calls. stopped: seconds
    that the server took to end; exit_code: of it."""

    largest: float
    rate: float
    samples: Sequence[Sample]
    events: Sequence[Event]
    ledger: bytes
    statuses: dict[str, int]
    failures: int
    unanswered: int
    stopped: float
    exit_code: int


def soak(folder: Path, plan: Plan, progress: Progress) -> Soaked:
    """The load, until the server has ended."""
    db = folder / "soak.db"
    with serving(db) as server:
        os.sched_setaffinity(0, LOAD_CORE)
        operator = Operator(server, db, folder, plan.minutes)
        operator.apply_all()
        with Load(server.port, connections=CONNECTIONS) as load:
            traffic = Traffic(load)
            progress.add_task("the largest rate", total=None)
            largest = fastest(traffic, in_flight=IN_FLIGHT, warm=plan.warm, seconds=plan.measure)
            traffic.finish()
            return _under_load(server, db, operator, traffic, largest, plan, progress)


def _under_load(
    server: Served, db: Path, operator: Operator, traffic: Traffic, largest: float, plan: Plan, progress: Progress
) -> Soaked:
    rate = plan.share * largest
    task = progress.add_task(f"{rate:,.0f} decisions/s", total=plan.seconds)
    traffic.take_window()
    sampler = Sampler(server, db, time.perf_counter())
    events = operator.start()
    try:
        send_by_the_clock(traffic, sampler, rate, plan, lambda seconds: progress.update(task, completed=seconds))
    finally:
        operator.stopped.set()
        samples = sampler.finish()
        for event in events:
            event.join()
    unanswered, stopping = traffic.finish(), time.monotonic()
    code = server.stop()
    statuses = {f"{of} {status}": times for (of, status), times in traffic.statuses.items()}
    return Soaked(
        largest, rate, samples, operator.events, bytes(traffic.ledger), statuses, traffic.failures, unanswered,
        time.monotonic() - stopping, code,
    )  # fmt: skip


def calm(soaked: Soaked) -> list[Sample]:
    """The samples while nothing else happened: no event, and no policy that learned the log."""
    spans = [(one.begun, one.ended) for one in soaked.events if one.begun is not None and one.ended is not None]
    return [
        sample
        for before, sample in zip((None, *soaked.samples), soaked.samples, strict=False)
        if not any(ended > (before.at if before else 0) and begun < sample.at for begun, ended in spans)
    ]


def table(soaked: Soaked) -> Table:
    """First third against last third."""
    made = Table(title=f"{soaked.rate:,.0f} decisions/s of at most {soaked.largest:,.0f}")
    for heading in ("what", "first third", "last third", "ratio", "slope"):
        made.add_column(heading, justify="left" if heading == "what" else "right")
    quiet = calm(soaked)
    rows = (
        ("resident memory, MB", trend(soaked.samples, lambda one: one.rss / 1e6)),
        ("p50, ms, no event", trend(quiet, lambda one: one.p50)),
        ("p99, ms, no event", trend(quiet, lambda one: one.p99)),
        ("p99, ms, all", trend(soaked.samples, lambda one: one.p99)),
        ("processor of the server, no event", trend(quiet, lambda one: one.cpu)),
        ("decisions/s", trend(soaked.samples, lambda one: one.rate)),
        ("descriptors", trend(soaked.samples, lambda one: one.descriptors)),
        ("threads", trend(soaked.samples, lambda one: one.threads)),
        ("scrape, s", trend(soaked.samples, lambda one: one.scrape or 0.0)),
        ("model's age, s", trend(quiet, lambda one: one.model_age or 0.0)),
    )
    for name, of in rows:
        made.add_row(name, *_written(of))
    return made


def _written(of: Trend) -> tuple[str, str, str, str]:
    return f"{of.first:,.3g}", f"{of.last:,.3g}", f"{of.ratio:.2f}", f"{of.slope:+.1%}"


def events_table(events: Sequence[Event]) -> Table:
    """What happened when, and how it went."""
    made = Table(title="Events")
    for heading in ("minute", "what", "seconds", "ok", "says"):
        made.add_column(heading)
    for one in events:
        minute = "-" if one.begun is None else f"{one.begun / 60:.1f}"
        lasted = "-" if one.begun is None or one.ended is None else f"{one.ended - one.begun:.1f}"
        made.add_row(minute, one.name, lasted, {True: "yes", False: "NO", None: "-"}[one.ok], one.text)
    return made


def wrong(soaked: Soaked, counts: Sequence[check.Counts], replays: Sequence[check.Replay]) -> list[str]:
    """What must not be."""
    found = [
        f"{one.lost} {what} lost, {one.twice} twice"
        for what, one in zip(WHAT, counts, strict=True)
        if one.lost or one.twice
    ]
    found += [f"{one.what}: {one.text[-400:]}" for one in replays if not one.ok]
    found += [f"{one.name}: {one.text}" for one in soaked.events if one.ok is False]
    if soaked.failures or soaked.unanswered:
        found.append(f"{soaked.failures} calls failed ({soaked.statuses}), {soaked.unanswered} were not answered")
    if soaked.exit_code:
        found.append(f"the server ended with exit code {soaked.exit_code}")
    return found


WHAT = ("decisions", "rewards")


def plan_of(minutes: float, share: float) -> Plan:
    """Samples every ten seconds; more often where the soak is short.

    >>> plan_of(60, 0.6).every, plan_of(2, 0.6).every
    (10.0, 2.0)
    """
    return Plan(minutes, share, every=min(10.0, minutes), warm=min(15.0, 5 * minutes), measure=min(20.0, 5 * minutes))


@click.command(epilog='\b\nExample:\n  make soak ARGS="--minutes 2"')
@click.option("--minutes", type=click.FloatRange(min=0.1), default=60.0, show_default=True, help="Of load.")
@click.option("--share", type=click.FloatRange(min=0, min_open=True, max=1), default=0.6, show_default=True,
              help="Of the largest rate, which is measured first.")  # fmt: skip
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("build/soak"),
              show_default=True, help="New folder for log, copy, archive, figures and plot.")  # fmt: skip
def main(minutes: float, share: float, folder: Path) -> None:
    """Load a server for an hour; exit 1 if anything was lost or does not replay."""
    if (folder / "soak.db").exists():
        raise click.ClickException(f"{folder} holds an earlier soak: delete it, or name another with --folder")
    folder.mkdir(parents=True, exist_ok=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        soaked = soak(folder, plan_of(minutes, share), progress)
        _write(folder, soaked)
        progress.add_task("counting and replaying", total=None)
        counts, replays = _checked(folder, soaked)
    _report(Console(), folder, soaked, counts, replays)


def _checked(folder: Path, soaked: Soaked) -> tuple[Sequence[check.Counts], Sequence[check.Replay]]:
    os.sched_setaffinity(0, os.sched_getaffinity(os.getppid()))
    copy, archive = folder / "copy.db", folder / "archive"
    log = folder / "soak.db"
    counts = [of(log, archive, soaked.ledger) for of in (check.count_decisions, check.count_rewards)]
    replays = check.replay(folder / "soak.db", copy if copy.exists() else None, archive if archive.exists() else None)
    return counts, replays


def _write(folder: Path, soaked: Soaked) -> None:
    """Before the checks, which take long."""
    kept = {name: value for name, value in asdict(soaked).items() if name != "ledger"}
    (folder / "ledger").write_bytes(soaked.ledger)
    (folder / "soak.json").write_text(json.dumps(kept, indent=1), encoding="utf-8")
    title = f"{soaked.rate:,.0f} decisions/s, of at most {soaked.largest:,.0f}"
    (folder / "soak.svg").write_bytes(drawing(soaked.samples, soaked.events, title))


def _report(
    console: Console, folder: Path, soaked: Soaked, counts: Sequence[check.Counts], replays: Sequence[check.Replay]
) -> None:
    console.print(table(soaked), events_table(soaked.events))
    for what, one in zip(WHAT, counts, strict=True):
        console.print(
            f"{what}: {one.acknowledged:,} acknowledged, {one.in_log:,} in the log, {one.in_archive:,} in the archive, "
            f"{one.lost} lost, {one.twice} twice"
        )
    for replay in replays:
        console.print(f"verify of {replay.what}: {replay.equal} of {replay.decisions}, exit code {replay.code}")
    console.print(f"answers other than OK: {soaked.statuses or 'none'}")
    console.print(
        f"SIGTERM to the end: {soaked.stopped:.1f} s, exit code {soaked.exit_code}; all samples: {folder}/soak.json"
    )
    checks = {"counts": [asdict(one) for one in counts], "replays": [asdict(one) for one in replays]}
    (folder / "checks.json").write_text(json.dumps(checks, indent=1), encoding="utf-8")
    found = wrong(soaked, counts, replays)
    for text in found:
        console.print(f"WRONG: {text}", style="bold red")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
