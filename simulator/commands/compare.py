"""`simulator compare`. Added to the command in `simulator/cli.py`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from simulator.commands.options import (
    FILE,
    FOLDER,
    REFUSED,
    SEED_COUNT,
    VISITS,
    bad_input,
    bar,
    counted,
    json_option,
    log_options,
    read_log,
    refuse_overwriting,
    write_json,
)
from simulator.compare import on_log, on_world
from simulator.compare.grid import read_grid
from simulator.compare.on_decisions import REWARD, family
from simulator.compare.on_log import LOGGED, Judged, LogTask, Reading, judge
from simulator.compare.on_world import Tried, tried
from simulator.compare.result import BadComparison, Compared, Row, ranked
from simulator.compare.table import FORMATS, write_table
from simulator.evaluate.checks.log import log_findings
from simulator.evaluate.result import to_json
from simulator.logs.columns import Columns
from simulator.report.comparison import shown
from simulator.report.pages.comparison import write_comparison_report
from simulator.run.policies import NAMES
from simulator.run.result import tasks_of
from simulator.run.result_store import prepared
from simulator.run.sweep import sweep
from simulator.run.versions import version_of
from simulator.worlds.registry import NoSuchWorld, find, log_of
from simulator.worlds.world import World

ROUNDS, SEEDS = 20_000, 10

EXAMPLES = """\b
Examples:
  simulator compare storefront --policies default epsilon_greedy softmax
  simulator compare storefront --policies default --grid grid.toml --rounds 5000 --seeds 20 --report report
  simulator compare demo.db --policies A.toml B.toml fixed:sale --against logged --out compared

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
        return super().parse_args(ctx, list(repeated(args, "--policies")))


def repeated(args: Sequence[str], option: str) -> Iterator[str]:
    """The option before every value that follows it.

    >>> list(repeated(["world", "--policies", "a", "b", "--seeds", "3"], "--policies"))
    ['world', '--policies', 'a', '--policies', 'b', '--seeds', '3']
    """
    inside, first = False, False
    for arg in args:
        if arg.startswith("-") and arg != "-":
            inside = first = arg == option
            yield arg
        else:
            yield from [option, arg] if inside and not first else [arg]
            first = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for, besides the policies. out: where results and the table go."""

    subject: str
    against: str
    every_pair: bool
    delayed: bool
    workers: int | None
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
@click.option("--no-delay", is_flag=True, help="Every reward is learned at once, not when its window ends.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Processes.  [default: one a core]")
@click.option("--out", type=FOLDER, metavar="DIR", help="Results and the table.  [default: compare-NAME]")
@click.option("--format", "format_", type=click.Choice(FORMATS), default=FORMATS[0], show_default=True, help="Of it.")
@click.option("--report", type=FOLDER, metavar="DIR", help="Write a page with plots.")
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
    out: Path | None,
    format_: str,
    report: Path | None,
    json_file: Path | None,
    **reading: Any,
) -> None:
    """Compare policies on LOG or WORLD, and say which differences are real.

    On a world every policy plays the same visitors, seed by seed; on a log all are judged by the same decisions. All
    intervals of a table hold together. Every result is kept in DIR: after an interruption the same command goes on.
    Exits 1 if a policy failed or was refused (the others are compared), 2 on bad input.
    """
    started = time.perf_counter()
    stderr = Console(stderr=True)
    with bad_input():
        refuse_overwriting(json_file, *names, grid, log_of(subject), reading["mapping"])
        policies = _policies(names, grid, against, stderr)
        folder = prepared(out or Path(f"compare-{_slug(subject)}"))
        if report:
            prepared(report)
        asked = Asked(subject, against or policies[0], all_pairs, not no_delay, workers, folder, stderr)
        world = _world(subject)
        if world is None:
            _only_for_worlds(rounds=rounds, seeds=seeds)
            found, rows = _on_log(policies, asked, reading)
        else:
            _only_for_logs(reading)
            found, rows = _on_world(world, policies, asked, rounds=rounds or ROUNDS, seeds=seeds or SEEDS)
        found = replace(found, seconds=time.perf_counter() - started)
        _write(found, rows, folder / f"runs.{format_}", json_file=json_file, report=report)
    if any(one.estimate is None for one in found.standings):
        sys.exit(REFUSED)


def _policies(names: Sequence[str], grid: Path | None, against: str | None, console: Console) -> list[str]:
    """Without repetitions; the reference first if it is not among them."""
    asked = [*names, *(read_grid(grid) if grid else [])]
    if not asked:
        raise BadComparison("there is nothing to run: name policies (--policies A B) or a grid (--grid FILE.toml)")
    distinct = list(dict.fromkeys(asked))
    if len(distinct) < len(asked):
        console.print(f"{len(asked) - len(distinct)} policies are named twice and run once", highlight=False)
    return distinct if against is None or against in distinct else [against, *distinct]


def _world(subject: str) -> World | None:
    """None where it is a log."""
    try:
        return find(subject)
    except NoSuchWorld as error:
        if Path(subject).exists() or subject.startswith("open-bandit:"):
            return None
        raise BadComparison(f"{subject}: there is no such log; and {error}") from error


def _only_for_worlds(**given: int | None) -> None:
    wrong = [f"--{name}" for name, value in given.items() if value is not None]
    if wrong:
        raise BadComparison(f"{wrong[0]}: is for worlds; a log has its own decisions, leave it out")


def _only_for_logs(reading: dict[str, Any]) -> None:
    wrong = [f"--{name.removesuffix('s').replace('_', '-')}" for name, value in reading.items() if value]
    if wrong:
        raise BadComparison(f"{wrong[0]}: says how to read a log, but this is a world; leave it out")


def _on_world(
    world: World, policies: list[str], asked: Asked, *, rounds: int, seeds: int
) -> tuple[Compared, list[Row]]:
    given = {name: on_world.parameters(name, world) for name in policies}
    tasks = tasks_of(asked.subject, policies, seeds=range(1, seeds + 1), rounds=rounds, delayed=asked.delayed)
    what = f"{len(policies)} policies x {seeds} seeds of {rounds:,} visits"
    with _counted(tasks, what, asked) as done:
        runs = sweep(
            tasks,
            tried,
            result=Tried,
            folder=asked.out / "kept",
            workers=asked.workers,
            version=version_of,
            on_done=done,
        )
    by_policy = {name: [one for task, one in zip(tasks, runs, strict=True) if task.policy == name] for name in policies}
    found = on_world.compared(world, given, by_policy, reference=asked.against, every_pair=asked.every_pair)
    return found, [on_world.row(task, one, given[task.policy]) for task, one in zip(tasks, runs, strict=True)]


def _on_log(policies: list[str], asked: Asked, reading: dict[str, Any]) -> tuple[Compared, list[Row]]:
    columns = read_log(asked.subject, asked.console, **reading)
    for name in policies:
        on_log.candidate(name, columns, delayed=asked.delayed)
    given = {name: on_log.parameters(name, columns) for name in policies}
    how = _reading(asked.subject, reading)
    tasks = [LogTask(how, name, asked.delayed) for name in policies]
    with _counted(tasks, f"{len(policies)} policies on {len(columns):,} decisions", asked) as done:
        judged = sweep(
            tasks,
            judge,
            result=Judged,
            folder=asked.out / "kept",
            workers=asked.workers,
            version=on_log.version_of,
            on_done=done,
        )
    found = _compared_on_log(columns, dict(zip(policies, judged, strict=True)), given, asked)
    return found, [on_log.row(task, one, given[task.policy]) for task, one in zip(tasks, judged, strict=True)]


def _reading(log: str, given: dict[str, Any]) -> Reading:
    return Reading(
        log,
        experiment=given["experiment"],
        columns=given["columns"],
        mapping=str(given["mapping"]) if given["mapping"] else None,
        reward_range=given["reward_range"] or None,
        skip_bad=given["skip_bad"],
    )


def _compared_on_log(columns: Columns, judged: dict[str, Judged], given: dict[str, Any], asked: Asked) -> Compared:
    sums = on_log.comparable(judged, asked.against)
    standings = [on_log.standing(name, one, given[name]) for name, one in judged.items()]
    with bar(asked.console, "comparing") as progress:
        families = [
            family(sums, columns.reward_range, reference=asked.against, every_pair=every_pair, on_done=progress)
            for every_pair in ([False, True] if asked.every_pair else [False])
        ]
    return Compared(
        subject=columns.name,
        line="",
        figure=REWARD,
        conditions=f"{len(columns):,} decisions; estimands stand with the policies.",
        reference=asked.against,
        standings=ranked(on_log.careful(standings, sums, asked.against)),
        families=tuple([one for one in families if one.comparisons]),
        notes=_notes(columns, judged, sums, asked),
    )


def _notes(columns: Columns, judged: dict[str, Judged], sums: dict[str, Any], asked: Asked) -> tuple[str, ...]:
    notes = [f"{one.name}: {one.text}" for one in log_findings(columns) if one.verdict == "do not use"]
    for name, one in judged.items():
        if one.result and not one.result.refused and one.result.diagnostics.verdict != "fine" and name != LOGGED:
            notes.append(f"{name}, {one.result.diagnostics.verdict}: {' '.join(one.result.diagnostics.reasons)}")
    if not sums:
        notes.append(f"{asked.against} cannot be compared with on this log; name another one: --against logged")
    return tuple(notes)


@contextmanager
def _counted(tasks: Sequence[Any], what: str, asked: Asked) -> Iterator[Callable[[Any, Any], None]]:
    """Says how much there is to do, then how much is done."""
    asked.console.print(f"{len(tasks)} runs: {what}; results go to {asked.out}", highlight=False, soft_wrap=True)
    with counted(asked.console, len(tasks), f"{len(tasks)} runs") as done:
        yield done


def _write(found: Compared, rows: list[Row], table: Path, *, json_file: Path | None, report: Path | None) -> None:
    """Files first: whoever reads only the beginning of the tables (`| head`) has them, too."""
    write_table(rows, table)
    write_json(json_file, to_json(found))
    page = write_comparison_report(found, report) if report else None
    console = Console(emoji=False, markup=False)
    for part in shown(found):
        console.print(part)
    console.print(f"Table: {table}", soft_wrap=True)
    if page:
        console.print(f"Report: {page}", soft_wrap=True)


def _slug(subject: str) -> str:
    """A part of a folder's name."""
    return "".join(char if char.isalnum() or char in "-_" else "-" for char in Path(subject).name)
