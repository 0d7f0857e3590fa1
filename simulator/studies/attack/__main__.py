"""`make attack`: an hour of attacks by strangers, beside customers who must not notice them.

A real `decider serve` on a real file with TLS, on one core; customers and strangers on another. Stretches with and
without the attack alternate, so that latencies are compared within a run. At the end: was anything decided, changed or
read that must not be, was anything of the customers' lost, and what did it cost them? Linux only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import click
from rich.console import Console

from decider.channel import open_channel
from decider.v1.decider_service_pb2_grpc import DeciderServiceStub
from simulator.studies.attack.check import wrong_in_log
from simulator.studies.attack.customers import Customers, counts
from simulator.studies.attack.names import KNOWN_DECISIONS, KNOWN_UNIT
from simulator.studies.attack.report import Phase, failed, grown, page, table
from simulator.studies.attack.stage import KINDS, Stage, staged
from simulator.studies.results import write_results
from simulator.studies.served import (
    LOAD_CORE,
    count_descriptors,
    count_threads,
    cpu_seconds,
    peak_bytes,
    resident_bytes,
)
from simulator.studies.soak.check import replay

MARKERS = ("<!-- attack -->\n", "<!-- /attack -->\n")
FEWEST_STRETCHES = 5
"""With the attack, beside each server."""

MOST_STRETCHES = 5
"""Times as many as planned, where some RPC was not tried yet: strangers leave the processor to others."""

LEFTOVERS = 15.0
"""Seconds after the last attack within which the server lets go of what the strangers left."""


@dataclass(frozen=True, slots=True)
class Plan:
    """minutes: of attack, in all. on, off: seconds of a stretch with the attack and without. settle: seconds after the
    attack that belong to neither. calls: of the customers, each second. rate, only: of the attacks, see Aim."""

    minutes: float
    on: float = 60.0
    off: float = 20.0
    settle: float = 2.0
    calls: float = 100.0
    rate: float = 1.0
    kinds: Sequence[str] = KINDS
    only: tuple[str, ...] = ()
    guarded: bool = True

    @property
    def stretches(self) -> int:
        """With the attack, of each kind."""
        return max(1, round(60 * self.minutes / len(self.kinds) / self.on))


@dataclass(slots=True)
class Sampled:
    """Of the server's process, every few seconds. rss: bytes."""

    rss: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def take(self, pid: int) -> None:
        """Once more."""
        self.rss.append(resident_bytes(pid))
        self.descriptors.append(count_descriptors(pid))
        self.threads.append(count_threads(pid))


class Strangers:
    """Their process."""

    def __init__(self, folder: Path) -> None:
        self._findings = folder / "findings.json"
        command = [sys.executable, "-m", "simulator.studies.attack.attacker", folder / "aim.json", self._findings]
        self._process = subprocess.Popen([*map(str, command)], stdin=subprocess.PIPE, text=True)

    def tell(self, word: str) -> None:
        """on, off or end."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def findings(self) -> dict[str, Any]:
        """As they stood after the last word."""
        try:
            found: dict[str, Any] = json.loads(self._findings.read_text())
        except (OSError, ValueError):  # not yet, or being written
            return {}
        return found

    def end(self) -> dict[str, Any]:
        """Wait for it; what was found."""
        self.tell("end")
        code = self._process.wait(60)
        return {**self.findings(), "exit_code": code}

    def kill(self) -> None:
        """Whatever it does."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


@contextmanager
def strangers_of(folder: Path) -> Iterator[Strangers]:
    """Their process, killed at the end if it has not ended."""
    made = Strangers(folder)
    try:
        yield made
    finally:
        made.kill()


def attack(folder: Path, kind: str, plan: Plan, *, seed: int, console: Console) -> Phase:
    """One server under attack, until it has ended and its log was read."""
    secret = f"s{Random(f'{seed} {kind}').getrandbits(64):016x}"
    with staged(folder, kind, secret=secret, seed=seed, rate=plan.rate, only=plan.only, guarded=plan.guarded) as stage:
        customers = Customers(stage.aim.target, stage.customer, stage.page, secret=secret, rate=plan.calls)
        _decide_known(stage, customers)
        with strangers_of(folder) as strangers:
            phase = _stretches(stage, customers, strangers, Phase(kind), plan, console)
        phase.peak = peak_bytes(stage.server.pid)
        phase.exit_code = stage.server.stop()
    phase.counts = dict(counts(customers.ledger))
    phase.errors = dict(customers.ledger.errors)
    phase.in_log = wrong_in_log(stage.db, customers.ledger, stage.versions)
    (proof,) = replay(stage.db, None, None)
    phase.verified = f"{proof.equal} of {proof.decisions}, exit code {proof.code}"
    phase.verifies = proof.ok
    (folder / "phase.json").write_text(json.dumps(phase.to_json(), indent=1))
    return phase


def _decide_known(stage: Stage, customers: Customers) -> None:
    """Decisions whose ids the strangers know."""
    with open_channel(stage.aim.target, stage.customer) as channel:
        stub = DeciderServiceStub(channel)  # type: ignore[no-untyped-call]
        for id_ in KNOWN_DECISIONS:
            customers.decide(stub, id_, KNOWN_UNIT, time.perf_counter())


def _stretches(
    stage: Stage, customers: Customers, strangers: Strangers, phase: Phase, plan: Plan, console: Console
) -> Phase:
    sampled, busy = Sampled(), (0.0, 0.0)
    customers.start()
    try:
        _wait(stage, Sampled(), plan.off)  # until everything has been done once, and every customer has connected
        while _goes_on(plan, phase):
            customers.take()
            calm = _wait(stage, sampled, plan.off)
            phase.calm.append(customers.take())
            strangers.tell("on")
            attacked = _wait(stage, sampled, plan.on)
            phase.attacked.append(customers.take())
            done = len(phase.attacked)
            busy = busy[0] + calm, busy[1] + attacked
            phase.cpu = busy[0] / done / plan.off, busy[1] / done / plan.on
            strangers.tell("off")
            _wait(stage, sampled, plan.settle)
            phase.note(sampled.rss, sampled.descriptors, sampled.threads)
            phase.take(strangers.findings())
            more = ", and more until each RPC was tried" if done > plan.stretches else ""
            console.print(f"{phase.kind}: {done} of {plan.stretches}{more}: {phase.progress()}")
        phase.take(strangers.end())
        end = time.monotonic() + LEFTOVERS
        while grown(phase) and time.monotonic() < end:
            _wait(stage, sampled, 1.0)
            phase.note(sampled.rss, sampled.descriptors, sampled.threads)
    finally:
        customers.stop()
    return phase


def _goes_on(plan: Plan, phase: Phase) -> bool:
    """Whether there is another stretch."""
    done = len(phase.attacked)
    return done < plan.stretches or (phase.untried_calls > 0 and done < MOST_STRETCHES * plan.stretches)


def _wait(stage: Stage, sampled: Sampled, seconds: float) -> float:
    """Processor seconds of the server meanwhile."""
    before = cpu_seconds(stage.server.pid)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        sampled.take(stage.server.pid)
        time.sleep(min(2.0, left))
    return cpu_seconds(stage.server.pid) - before


def attack_all(folder: Path, plan: Plan, *, seed: int, console: Console) -> list[Phase]:
    """A server of each kind, one after the other."""
    return [attack(folder / kind.replace(" ", "-"), kind, plan, seed=seed, console=console) for kind in plan.kinds]


def plan_of(minutes: float) -> Plan:
    """Stretches of a minute, a third of that between them; shorter ones where the attack is short.

    >>> plan_of(60).on, plan_of(60).off, plan_of(60).stretches, plan_of(5).on, plan_of(5).stretches
    (60.0, 20.0, 20, 20.0, 5)
    """
    on = min(60.0, 60 * minutes / len(KINDS) / FEWEST_STRETCHES)
    return Plan(minutes, on=on, off=on / 3)


@click.command(epilog='\b\nExample:\n  make attack ARGS="--minutes 5 --seed 1"')
@click.option("--minutes", type=click.FloatRange(min=0.1), default=60.0, show_default=True,
              help="Of attack; more if an RPC was not tried by then. A third comes on top without.")  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True, help="Of what the strangers do.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True,
              help="Of the attacks; 2: twice as many.")  # fmt: skip
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("build/attack"),
              show_default=True, help="New folder for logs, certificates and findings.")  # fmt: skip
@click.option("--publish", is_flag=True, help="Write the tables to RESULTS.md.")
def main(minutes: float, seed: int, rate: float, folder: Path, publish: bool) -> None:
    """Attack a server for an hour; exit 1 if anything was decided, changed, read or lost, or if others noticed it."""
    if folder.exists() and any(folder.iterdir()):
        raise click.ClickException(f"{folder} holds an earlier attack: delete it, or name another with --folder")
    console, cores = Console(width=160), os.sched_getaffinity(0)
    plan = replace(plan_of(minutes), rate=rate)
    os.sched_setaffinity(0, LOAD_CORE)
    try:
        phases = attack_all(folder, plan, seed=seed, console=console)
    finally:
        os.sched_setaffinity(0, cores)
    found = [text for phase in phases for text in failed(phase, timed=True)]
    for one in table(phases):
        console.print(one)
    for text in found:
        console.print(f"WRONG: {text}", style="bold red")
    if publish:
        lasted = sum(len(phase.attacked) for phase in phases) * plan.on / 60
        write_results(page(phases, minutes=round(lasted, 1), seed=seed, rate=rate, found=found), MARKERS)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
