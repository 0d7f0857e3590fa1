"""`simulator run`. Added to the command in `simulator/cli.py`."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.console import Console

from simulator.commands.options import (
    FOLDER,
    SEED_COUNT,
    VISITS,
    bad_input,
    counted,
    json_option,
    refuse_overwriting,
    write_json,
)
from simulator.evaluate.result import to_json
from simulator.report.pages.run import write_run_report
from simulator.report.run import shown
from simulator.run.policies import NAMES, Learner, named
from simulator.run.result import REFERENCES, PolicyRuns, WorldRuns, of_policy, reference, tasks_of
from simulator.run.result_store import prepared
from simulator.run.sweep import sweep
from simulator.run.task import Run, Task, run
from simulator.run.versions import version_of
from simulator.worlds.registry import find, log_of

EXAMPLES = """\b
Examples:
  simulator run storefront --policy default
  simulator run storefront --policy default --policy epsilon_greedy:epsilon=0.1 --policy fixed:sale --report report
  simulator run storefront --policy my.toml --rounds 100000 --seeds 20 --keep runs --json run.json"""


@click.command("run", epilog=EXAMPLES)
@click.argument("world_name", metavar="WORLD")
@click.option("--policy", "names", multiple=True, required=True, metavar="P", help=f"May be repeated. One of: {NAMES}.")
@click.option("--rounds", type=VISITS, default=20_000, show_default=True, help="Visits of each seed.")
@click.option("--seeds", type=SEED_COUNT, default=5, show_default=True, help="How many times, each another.")
@click.option("--first-seed", type=click.IntRange(min=0), default=1, show_default=True, help="The others follow it.")
@click.option("--no-delay", is_flag=True, help="Every reward is learned at once, not when its window ends.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Processes.  [default: one a core]")
@click.option("--keep", type=FOLDER, metavar="DIR", help="Keep every run there: the same again runs what is missing.")
@json_option
@click.option("--report", type=FOLDER, metavar="DIR", help="Write a page with plots.")
def run_command(
    world_name: str,
    names: tuple[str, ...],
    rounds: int,
    seeds: int,
    first_seed: int,
    no_delay: bool,
    workers: int | None,
    keep: Path | None,
    json_file: Path | None,
    report: Path | None,
) -> None:
    """Play WORLD with policies that learn as they go, and say what they earn of what can be earned.

    The world knows what every action is truly worth. An even choice, the best single action and the best action of
    every visit are shown for comparison. `simulator worlds` lists the worlds. Exits 2 on bad input.
    """
    started = time.perf_counter()
    with bad_input():
        refuse_overwriting(json_file, *names, log_of(world_name))
        world, policies = find(world_name), list(dict.fromkeys(names))
        learns = {name: isinstance(named(name, world), Learner) for name in policies}
        for folder in filter(None, (keep, report)):
            prepared(folder)
        numbers = range(first_seed, first_seed + seeds)
        tasks = tasks_of(world_name, policies, seeds=numbers, rounds=rounds, delayed=not no_delay)
        runs = _swept(tasks, keep=keep, workers=workers)
        found = WorldRuns(
            world=world.name,
            line=world.line,
            fitted=world.fitted,
            rounds=rounds,
            seeds=tuple(numbers),
            delayed=not no_delay,
            policies=_summed_up(runs, learns),
            seconds=time.perf_counter() - started,
        )
        _show(found, json_file=json_file, report=report)


def _swept(tasks: list[Task], *, keep: Path | None, workers: int | None) -> list[Run]:
    with counted(Console(stderr=True), len(tasks), f"{len(tasks)} runs") as done:
        return sweep(tasks, run, result=Run, folder=keep, workers=workers, version=version_of, on_done=done)


def _summed_up(runs: list[Run], learns: dict[str, bool]) -> tuple[PolicyRuns, ...]:
    """References first. What was asked for by a reference's name is not shown twice."""
    of = {name: [run for run in runs if run.task.policy == name] for name in learns}
    any_policy = next(iter(of.values()))
    references = [reference(name, any_policy) for name in REFERENCES if name not in learns]
    return (*references, *[of_policy(name, of[name], learns=learns[name]) for name in learns])


def _show(found: WorldRuns, *, json_file: Path | None, report: Path | None) -> None:
    """Files first: whoever reads only the beginning of the tables (`| head`) has them, too."""
    write_json(json_file, to_json(found))
    page = write_run_report(found, report) if report else None
    console = Console(emoji=False, markup=False)
    for part in shown(found):
        console.print(part)
    if page:
        console.print(f"Report: {page}", soft_wrap=True)
