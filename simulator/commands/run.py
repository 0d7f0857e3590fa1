"""`simulator run`. Added to the command in `group.py`."""

from __future__ import annotations

import time
from pathlib import Path

import click
from rich.console import Console

from simulator.commands.options import (
    FOLDER,
    SEED_COUNT,
    VISITS,
    at_once_option,
    bad_input,
    counted,
    json_option,
    on_option,
    print_results,
    refuse_overwriting,
    report_option,
    workers_option,
    write_json,
)
from simulator.evaluate.result import to_json
from simulator.report.pages.run import write_run_report
from simulator.report.run import terminal_parts
from simulator.run.policies import NAMES, LearningPolicy, find_policy
from simulator.run.result import REFERENCES, PolicyRuns, WorldRuns, summarize, summarize_reference, tasks_of
from simulator.run.result_store import make_folder
from simulator.run.sweep import sweep
from simulator.run.task import Run, run
from simulator.run.versions import version_of
from simulator.worlds.registry import find, log_of

EXAMPLES = """\b
Examples:
  simulator run storefront --policy default
  simulator run storefront --policy default --policy epsilon_greedy:epsilon=0.1 --policy fixed:sale --report report
  simulator run storefront --policy my.toml --rounds 100000 --seeds 20 --keep runs --json run.json
  simulator run storefront --policy default --seeds 200 --keep runs --on ray://head-node:10001"""


@click.command("run", epilog=EXAMPLES)
@click.argument("world_name", metavar="WORLD")
@click.option("--policy", "names", multiple=True, required=True, metavar="P", help=f"May be repeated. One of: {NAMES}.")
@click.option("--rounds", type=VISITS, default=20_000, show_default=True, help="Visits of each seed.")
@click.option("--seeds", type=SEED_COUNT, default=5, show_default=True, help="How many; each draws other visits.")
@click.option("--first-seed", type=click.IntRange(min=0), default=1, show_default=True, help="The others follow it.")
@at_once_option
@workers_option
@on_option
@click.option("--keep", type=FOLDER, metavar="DIR", help="Keep every run there: the same again runs what is missing.")
@json_option
@report_option
def run_command(
    world_name: str,
    names: tuple[str, ...],
    rounds: int,
    seeds: int,
    first_seed: int,
    no_delay: bool,
    workers: int | None,
    on: str,
    keep: Path | None,
    json_file: Path | None,
    report: Path | None,
) -> None:
    """Play WORLD with policies that learn as they go, and show what they earn of what can be earned.

    The world knows the true mean reward of every action. A uniform choice, the best single action and the best action
    of every visit are shown for comparison. `simulator worlds` lists the worlds. Exits 2 on bad input.
    """
    started = time.perf_counter()
    with bad_input():
        refuse_overwriting(json_file, *names, log_of(world_name))
        world, policies = find(world_name), list(dict.fromkeys(names))
        learns = {name: isinstance(find_policy(name, world), LearningPolicy) for name in policies}
        for folder in filter(None, (keep, report)):
            make_folder(folder)
        numbers = range(first_seed, first_seed + seeds)
        tasks = tasks_of(world_name, policies, seeds=numbers, rounds=rounds, delayed=not no_delay)
        with counted(Console(stderr=True), len(tasks), f"{len(tasks)} runs") as done:
            runs = sweep(tasks, run, result=Run, folder=keep, on=on, workers=workers, version=version_of, on_done=done)
        found = WorldRuns(
            world=world.name,
            line=world.line,
            fitted=world.fitted,
            rounds=rounds,
            seeds=tuple(numbers),
            delayed=not no_delay,
            policies=_summaries(runs, learns),
            seconds=time.perf_counter() - started,
        )
        write_json(json_file, to_json(found))
        page = write_run_report(found, report) if report else None
        print_results(terminal_parts(found), report=page)


def _summaries(runs: list[Run], learns: dict[str, bool]) -> tuple[PolicyRuns, ...]:
    """References first. A policy that has a reference's name is not shown twice."""
    of = {name: [run for run in runs if run.task.policy == name] for name in learns}
    any_policy = next(iter(of.values()))
    references = [summarize_reference(name, any_policy) for name in REFERENCES if name not in learns]
    return (*references, *[summarize(name, of[name], learns=learns[name]) for name in learns])
