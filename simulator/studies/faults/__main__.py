"""`make faults`: hosts, processes and lines fail: what becomes of a log in PostgreSQL, its servers and its clients?

Five hosts on this machine, each a network namespace. One fault after the other; after each all must work again. At the
end everything that was acknowledged must be in the log once, and all of it must replay. Linux only, needs root.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import click
from rich.console import Console

from decider.errors import LogError
from simulator.studies.faults.check import count_log
from simulator.studies.faults.hosts import NoHosts, check_root
from simulator.studies.faults.kinds import KINDS, Kind, draw
from simulator.studies.faults.ledger import read_ledger
from simulator.studies.faults.report import Happened, Outcome, laws, page, table, words
from simulator.studies.faults.stage import Stage, staged
from simulator.studies.faults.watch import takeover
from simulator.studies.results import write_results
from simulator.studies.soak.check import verify

MARKERS = ("<!-- faults -->\n", "<!-- /faults -->\n")

Tell = Callable[[str], None]


def suffer(stage: Stage, number: int, kind: Kind, random: Random, longest: float) -> Happened:
    """One fault, until all works again. Raises NoHosts where it does not."""
    before = Counter(stage.clients.read().failed)
    restarts = sum(group.restarts for group in stage.servers.values())
    at = time.time()
    did = kind.do(stage, random, random.uniform(longest / 4, longest))
    ended = time.time()
    stage.recover(ended)
    recovered = time.time()
    answers = stage.clients.read()
    return Happened(
        number=number,
        kind=kind.name,
        did=did,
        at=at,
        ended=ended,
        recovered=recovered,
        gaps={name: answers.gap(name, at, recovered) for name in stage.servers},
        failed=dict(answers.failed - before),
        takeover=takeover(stage.watch.sights, at),
        takes_leader=kind.takes_leader,
        restarts=sum(group.restarts for group in stage.servers.values()) - restarts,
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """faults: how many, of these kinds. longest: seconds of a fault. rate: decisions a second."""

    faults: int
    seed: int
    longest: float
    rate: float = 60.0
    kinds: Sequence[Kind] = KINDS


def run(folder: Path, plan: Plan, tell: Tell) -> Outcome:
    """All of it. folder: is there, and empty.

    Raises NoHosts where the hosts cannot be made, or do not work before the first fault.
    """
    outcome, random = Outcome(plan.seed), Random(plan.seed)
    with (
        staged(folder, rate=plan.rate, seed=plan.seed, tell=tell) as stage,
        (folder / "faults.jsonl").open("w") as file,
    ):
        try:
            for number, kind in enumerate(draw(plan.faults, random, plan.kinds), 1):
                happened = suffer(stage, number, kind, random, plan.longest)
                outcome.happened.append(happened)
                file.write(json.dumps(happened.to_json()) + "\n")
                file.flush()
                tell(happened.line(plan.faults))
        except NoHosts as error:
            outcome.broken = f"fault {len(outcome.happened) + 1}, {kind.name}: {error}"
            tell(outcome.broken)
        try:
            _finish(stage, outcome, tell)
        except (LogError, subprocess.TimeoutExpired) as error:
            outcome.broken += f" at the end: {error}"
    return outcome


def _finish(stage: Stage, outcome: Outcome, tell: Tell) -> None:
    """The clients end, then the servers; then everything is counted and recomputed."""
    tell("the last calls")
    stage.clients.finish()
    outcome.refused = dict(stage.clients.answers.refused)
    outcome.exit_codes = {name: group.stop() for name, group in stage.servers.items()}
    tell("counting and recomputing")
    outcome.counts = count_log(stage.url, read_ledger(stage.clients.path))
    outcome.replays = [verify("the log", [stage.url])]


@click.command(epilog='\b\nExample:\n  make faults ARGS="--faults 15 --seed 1"')
@click.option("--faults", type=click.IntRange(min=1), default=200, show_default=True, help="How many.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the faults, their order and length.")
@click.option("--longest", type=click.FloatRange(min=0.1), default=5.0, show_default=True,
              help="Seconds of a fault; the shortest takes a quarter of it.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True,
              help="Decisions a second, in all.")  # fmt: skip
@click.option("--only", default="", metavar="TEXT", help="Kinds of faults whose name has this text.")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), default=Path("build/faults"),
              show_default=True, help="New folder for ledger, faults and what all processes say.")  # fmt: skip
@click.option("--publish", is_flag=True, help="Write the table to RESULTS.md.")
def main(faults: int, seed: int, longest: float, rate: float, only: str, folder: Path, publish: bool) -> None:
    """Fail in many ways; exit 1 if anything was lost, doubled or does not replay, or if a takeover took too long."""
    if folder.exists() and any(folder.iterdir()):
        raise click.ClickException(f"{folder} holds earlier faults: delete it, or name another with --folder")
    plan = Plan(faults, seed, longest, rate, [kind for kind in KINDS if only in kind.name])
    if not plan.kinds:
        raise click.BadParameter(f"no kind has it: {', '.join(kind.name for kind in KINDS)}", param_hint="--only")
    console = Console(width=160)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is removed
    try:
        check_root()
        folder.mkdir(parents=True, exist_ok=True)
        outcome = run(folder.resolve(), plan, console.print)
    except NoHosts as error:
        raise click.ClickException(str(error)) from error
    found = [*laws(outcome)]
    console.print(table(outcome), words(outcome))
    for text in found:
        console.print(f"WRONG: {text}", style="bold red")
    console.print(f"the faults: {folder}/faults.jsonl; what was acknowledged: {folder}/answers.jsonl")
    if publish:
        write_results(page(outcome, found), MARKERS)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
