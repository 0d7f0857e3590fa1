"""The strangers' process: attacks while it is told to, counts how each attack ended, and writes that to a file.

`python -m simulator.studies.attack.attacker AIM.json FINDINGS.json` reads `on`, `off` and `end` from its input. Started
by `__main__.py`. A stranger has one machine: the table says how many steps a second each attack makes.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

from simulator.studies.attack import wire, wire_web
from simulator.studies.attack.calls import Calls
from simulator.studies.attack.findings import Finding, Findings
from simulator.studies.attack.frontends import Frontends
from simulator.studies.attack.names import Aim
from simulator.studies.attack.web import Web

NICE = 10
"""Strangers have machines of their own: here they leave the processor to the other callers, also where those are
started with real-time priority (`chrt -r 1 make attack`, on a machine that does other work)."""


class Attack(Protocol):
    """name: of its rows in the tables."""

    name: str

    def cards(self) -> Sequence[tuple[str, str]]:
        """(stranger, what it tries), all of them."""

    def step(self, random: Random) -> Finding:
        """One more attack, to its end."""

    def drop(self) -> None:
        """Close what is open."""


@dataclass(frozen=True, slots=True)
class Paced:
    """rate: steps a second, of all its threads together."""

    attack: Attack
    rate: float
    threads: int = 1


WIRE: Sequence[tuple[str, wire.Attack, float, int]] = (
    ("handshakes", wire.shake_hands, 7.5, 0),
    ("silent connections", wire.stay_silent, 5, 100),
    ("idle connections", wire.stay_idle, 5, 100),
    ("random bytes", wire.send_bytes, 2.5, 0),
    ("calls without requests", wire.open_calls, 1, 10),
    ("watches", wire.watch, 0.5, 8),
    ("rapid reset", wire.reset_rapidly, 0.5, 0),
    ("floods of frames", wire.flood, 0.25, 0),
    ("headers without end", wire.never_end_headers, 0.25, 0),
    ("nothing taken", wire.take_nothing, 0.5, 10),
    ("large calls", wire.send_large, 0.5, 0),
    ("many headers", wire.flood_headers, 1, 0),
    ("large bodies", wire.send_body, 0.5, 0),
    ("trickles", wire.trickle, 2, 40),
    ("answers not read", wire.read_slowly, 1, 20),
    ("streams of events", wire_web.crowd_events, 3, 60),
    ("bombs", wire_web.drop_bombs, 1.5, 0),
    ("requests with two ends", wire_web.smuggle, 2, 0),
    ("a page's key too often", wire_web.call_too_often, 0.25, 0),
    ("pages' calls without an end", wire_web.crowd_callers, 3, 60),
    ("pages' answers not read", wire_web.read_no_answers, 0.5, 10),
    ("preflights", wire_web.preflight_often, 1, 0),
)
"""Name, what it does, steps a second, connections that stay open."""

CALLS_RATE, PAGES_RATE, FRONTENDS_RATE = 60.0, 15.0, 20.0
"""Steps a second."""


def attacks(aim: Aim) -> Sequence[Paced]:
    """All of them, or those that were asked for."""
    random = Random(aim.seed)
    all_ = [
        Paced(Calls(aim, random), aim.rate * CALLS_RATE, 4),
        Paced(Web(aim, random), aim.rate * PAGES_RATE, 2),
        Paced(Frontends(aim, random), aim.rate * FRONTENDS_RATE, 2),
        *[Paced(wire.Wire(name, do, aim, most=most), aim.rate * rate) for name, do, rate, most in WIRE],
    ]
    return [one for one in all_ if not aim.only or one.attack.name in aim.only]


class Strangers:
    """Threads that attack from `on` to `off`."""

    def __init__(self, paced: Sequence[Paced], findings: Findings, seed: int) -> None:
        self._findings = findings
        self._on, self._ended = threading.Event(), threading.Event()
        self._attacks = [one.attack for one in paced]
        self._threads = [
            threading.Thread(target=self._run, args=(one, Random(f"{seed} {one.attack.name} {number}")), daemon=True)
            for one in paced
            for number in range(one.threads)
        ]
        for thread in self._threads:
            thread.start()

    def on(self) -> None:
        """Begin, or go on."""
        self._on.set()

    def off(self) -> None:
        """Stop, and close all connections."""
        self._on.clear()
        for attack in self._attacks:
            attack.drop()

    def end(self, patience: float = 15.0) -> None:
        """For good."""
        self._ended.set()
        self.off()  # what waits for an answer gets none
        end = time.monotonic() + patience
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self.off()

    def _run(self, paced: Paced, random: Random) -> None:
        pause = paced.threads / paced.rate
        due = time.monotonic()
        while not self._ended.is_set():
            if not self._on.wait(0.2) or self._ended.is_set():
                continue
            try:
                self._findings.add(paced.attack.step(random))
            except Exception as error:  # counted: what was not tried must be seen
                if self._on.is_set():  # else its connection was closed by `off`
                    self._findings.fail(paced.attack.name, error)
            if not self._on.is_set():
                paced.attack.drop()  # what it opened meanwhile
            due = max(due + pause * random.uniform(0.5, 1.5), time.monotonic() - pause)
            self._ended.wait(max(0.0, due - time.monotonic()))


def main() -> None:
    """Obey until the input ends."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.nice(NICE)
    aim, output = Aim.of_json(json.loads(Path(sys.argv[1]).read_text())), Path(sys.argv[2])
    paced = attacks(aim)
    findings = Findings({one.attack.name: one.attack.cards() for one in paced})
    strangers = Strangers(paced, findings, aim.seed)
    try:
        for line in sys.stdin:
            match line.strip():
                case "on":
                    strangers.on()
                case "off":
                    strangers.off()
                case _:
                    break
            output.write_text(json.dumps(findings.to_json(), indent=1))
    finally:
        strangers.end()
        output.write_text(json.dumps(findings.to_json(), indent=1))
    os._exit(0)  # threads that still wait for an answer must not meet an interpreter that is taken down


if __name__ == "__main__":
    main()
