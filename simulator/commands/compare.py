"""`simulator compare`. Added to the command in `group.py`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from decider.log.open import OF_SCHEMA, LogUrl, log_place
from simulator.commands.options import (
    FILE,
    FOLDER,
    REFUSED,
    SEED_COUNT,
    VISITS,
    at_once_option,
    bad_input,
    bar,
    counted,
    json_option,
    log_options,
    on_option,
    print_results,
    read_log,
    refuse_overwriting,
    report_option,
    workers_option,
    write_json,
)
from simulator.compare import on_decisions, on_log, on_world
from simulator.compare.grid import read_grid
from simulator.compare.on_log import LogResult, LogTask, Reading, try_evaluate
from simulator.compare.on_world import WorldResult, try_run
from simulator.compare.result import BadComparison, ComparisonResult, TableRow
from simulator.compare.table import FORMATS, write_table
from simulator.evaluate.checks.leaks import set_leaks_aside
from simulator.evaluate.result import to_json
from simulator.report.comparison import terminal_parts
from simulator.report.pages.comparison import write_comparison_report
from simulator.run.policies import NAMES
from simulator.run.result import tasks_of
from simulator.run.result_store import make_folder
from simulator.run.sweep import sweep
from simulator.run.versions import version_of
from simulator.worlds.registry import NoSuchWorld, find, log_of
from simulator.worlds.world import World

ROUNDS, SEEDS = 20_000, 10
NAMED = {"columns": "column"}
"""Options whose values have another name in the code."""

T = TypeVar("T", bound=Hashable)
R = TypeVar("R")

EXAMPLES = """\b
Examples:
  simulator compare storefront --policies default epsilon_greedy softmax
  simulator compare storefront --policies default --grid grid.toml --rounds 5000 --seeds 20 --report report
  simulator compare demo.db --experiment storefront --policies A.toml B.toml fixed:sale --against logged --out compared
  simulator compare storefront --policies default --grid grid.toml --seeds 50 --on ray://head-node:10001

\b
A grid is a TOML file; every combination is run:
  algorithm = ["squarecb", "softmax"]
  squarecb.gamma_scale = [10, 100]
  interactions = [["CA"], ["CA", "CCA"]]
  minimum_propensity = [0.001, 0.01]"""


class Several(click.Command):
    """`--policies A B C` is `--policies A --policies B --policies C`: up to the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """With every value after its own option."""
        return super().parse_args(ctx, list(repeat_option(args, "--policies")))


def repeat_option(args: Sequence[str], option: str) -> Iterator[str]:
    """The option before every value that follows it.

    >>> list(repeat_option(["world", "--policies", "a", "b", "--seeds", "3"], "--policies"))
    ['world', '--policies', 'a', '--policies', 'b', '--seeds', '3']
    """
    current = ""
    for before, arg in pairwise(["", *args]):
        if arg.startswith("-") and arg != "-":
            current = arg
        elif current == option and before != option:
            yield option
        yield arg


@dataclass(frozen=True, slots=True)
class CompareSettings:
    """As on the command line, besides the policies. out: where results and the table go."""

    subject: str
    against: str
    every_pair: bool
    delayed: bool
    workers: int | None
    on: str
    out: Path
    console: Console


@click.command("compare", cls=Several, epilog=EXAMPLES)
@click.argument("subject", metavar="LOG|WORLD")
@click.option("--policies", "names", multiple=True, metavar="P...", help=f"One or more. On a world: {NAMES}.")
@click.option("--grid", type=FILE, metavar="FILE", help="A TOML file of parameters; every combination is run.")
@click.option("--against", metavar="P", help="The policy that all are compared with.  [default: the first]")
@click.option("--all-pairs", is_flag=True, help="Compare every policy with every other one, too.")
@click.option("--rounds", type=VISITS, help=f"Visits of each seed; worlds only.  [default: {ROUNDS:,}]")
@click.option("--seeds", type=SEED_COUNT, help=f"How many; worlds only.  [default: {SEEDS}]")
@at_once_option
@workers_option
@on_option
@click.option("--out", type=FOLDER, metavar="DIR", help="Results and the table.  [default: compare-NAME]")
@click.option("--format", "format_", type=click.Choice(FORMATS), default=FORMATS[0], show_default=True, help="Of it.")
@report_option
@json_option
@log_options
def compare_command(
    subject: str,
    names: tuple[str, ...],
    grid: Path | None,
    against: str | None,
    all_pairs: bool,
    rounds: int | None,
    seeds: int | None,
    no_delay: bool,
    workers: int | None,
    on: str,
    out: Path | None,
    format_: str,
    report: Path | None,
    json_file: Path | None,
    **reading: Any,
) -> None:
    """Compare policies on LOG or WORLD, and say which differences are real.

    On a world every policy plays the same visitors, seed by seed; on a log all are evaluated on the same decisions. The
    95 % confidence intervals of a table are simultaneous. Every result is kept in DIR: after an interruption the same
    command goes on. Exits 1 if a policy failed or was refused (the others are compared), 2 on bad input.
    """
    started = time.perf_counter()
    stderr = Console(stderr=True)
    with bad_input():
        refuse_overwriting(json_file, *names, grid, log_of(subject), reading["mapping"])
        policies = _policies(names, grid, against, stderr)
        folder = make_folder(out or Path(f"compare-{_slug(subject)}"))
        if report:
            make_folder(report)
        settings = CompareSettings(
            subject, against or policies[0], all_pairs, not no_delay, workers, on, folder, stderr
        )
        world = _world(subject)
        if world is None:
            _refuse("is for worlds; a log has its own decisions", rounds=rounds, seeds=seeds)
            found, rows = _on_log(policies, settings, reading)
        else:
            _refuse("says how to read a log, but this is a world", **reading)
            found, rows = _on_world(world, policies, settings, rounds=rounds or ROUNDS, seeds=seeds or SEEDS)
        found = replace(found, seconds=time.perf_counter() - started)
        table = folder / f"runs.{format_}"
        write_table(rows, table)
        write_json(json_file, to_json(found))
        page = write_comparison_report(found, report) if report else None
        print_results(terminal_parts(found), table=table, report=page)
    if any(one.estimate is None for one in found.standings):
        sys.exit(REFUSED)


def _policies(names: Sequence[str], grid: Path | None, against: str | None, console: Console) -> list[str]:
    """Without repetitions; the reference first if it is not among them."""
    given = [*names, *(read_grid(grid) if grid else [])]
    if not given:
        raise BadComparison("there is nothing to run: name policies (--policies A B) or a grid (--grid FILE.toml)")
    distinct = list(dict.fromkeys(given))
    if len(distinct) < len(given):
        console.print(f"{len(given) - len(distinct)} policies are named twice and run once", highlight=False)
    return distinct if against is None or against in distinct else [against, *distinct]


def _world(subject: str) -> World | None:
    """None where it is a log."""
    try:
        return find(subject)
    except NoSuchWorld as error:
        if isinstance(log_place(subject), LogUrl) or Path(subject).exists() or subject.startswith("open-bandit:"):
            return None
        raise BadComparison(f"{subject}: there is no such log; and {error}") from error


def _refuse(why: str, **options: Any) -> None:
    """Raises BadComparison for the first that was given."""
    for name, value in options.items():
        if value or (value == 0 and value is not False):  # `--empty-reward 0` was given, too
            raise BadComparison(f"--{NAMED.get(name, name.replace('_', '-'))}: {why}, leave it out")


def _on_world(
    world: World, policies: list[str], settings: CompareSettings, *, rounds: int, seeds: int
) -> tuple[ComparisonResult, list[TableRow]]:
    given = {name: on_world.parameters(name, world) for name in policies}
    tasks = tasks_of(settings.subject, policies, seeds=range(1, seeds + 1), rounds=rounds, delayed=settings.delayed)
    what = f"{len(policies)} policies x {seeds} seeds of {rounds:,} visits"
    results = _sweep(tasks, try_run, WorldResult, version_of, what, settings)
    of = {name: [one for task, one in zip(tasks, results, strict=True) if task.policy == name] for name in policies}
    found = on_world.compare(world, given, of, reference=settings.against, every_pair=settings.every_pair)
    return found, [on_world.row(task, one, given[task.policy]) for task, one in zip(tasks, results, strict=True)]


def _on_log(
    policies: list[str], settings: CompareSettings, reading: dict[str, Any]
) -> tuple[ComparisonResult, list[TableRow]]:
    columns = set_leaks_aside(read_log(settings.subject, settings.console, **reading))
    for name in policies:
        on_log.candidate(name, columns, delayed=settings.delayed)
    given = {name: on_log.parameters(name, columns) for name in policies}
    tasks = [LogTask(Reading(settings.subject, **reading), name, settings.delayed) for name in policies]
    what = f"{len(policies)} policies on {len(columns):,} decisions"
    results = _sweep(tasks, try_evaluate, LogResult, on_log.version_of, what, settings)
    with bar(settings.console, "comparing") as progress:
        found = on_decisions.compare(
            columns,
            dict(zip(policies, results, strict=True)),
            given,
            reference=settings.against,
            every_pair=settings.every_pair,
            on_done=progress,
        )
    return found, [on_log.row(task, one, given[task.policy]) for task, one in zip(tasks, results, strict=True)]


def _sweep(
    tasks: list[T],
    function: Callable[[T], R],
    result: type[R],
    version: Callable[[T], str],
    what: str,
    settings: CompareSettings,
) -> list[R]:
    """Says how much there is to do, then how much is done."""
    console, many = settings.console, f"{len(tasks)} runs"
    console.print(f"{many}: {what}; results go to {settings.out}", highlight=False, soft_wrap=True)
    with counted(console, len(tasks), many) as done:
        return sweep(
            tasks,
            function,
            result=result,
            folder=settings.out / "kept",
            on=settings.on,
            workers=settings.workers,
            version=version,
            on_done=done,
        )


def _slug(subject: str) -> str:
    """A part of a folder's name."""
    name = Path(str(log_place(subject)).replace(OF_SCHEMA, "-")).name  # of an address, database and schema
    return "".join(char if char.isalnum() or char in "-_" else "-" for char in name)
