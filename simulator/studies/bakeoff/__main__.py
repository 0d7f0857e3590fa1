"""`make bakeoff`: our policies and those of other libraries on the same visits of all worlds; who wins where.

Runs in the bake-off's environment (see `requirements.txt`), where `vw` and our own policies run just as in ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from rich.console import Console

from simulator.commands.options import bad_input, bar, on_option, workers_option
from simulator.run.sweep import sweep
from simulator.run.task import HORIZONS, Task
from simulator.studies.bakeoff.plan import LABELS, Seeds, everywhere, in_plan, tasks
from simulator.studies.bakeoff.plot import shares
from simulator.studies.bakeoff.results import (
    HERE,
    HorizonShares,
    SeedResult,
    depends_on,
    play_task,
    read,
    rows,
    with_others,
    write,
)
from simulator.studies.bakeoff.table import placed, results, summary
from simulator.worlds.registry import data_names, find, names

CSV, TEXT = "results.csv", "RESULTS.md"

EXAMPLES = """\b
Examples:
  make bakeoff
  make bakeoff ARGS="--worlds storefront --seeds-4k 3 --seeds-20k 0 --seeds-100k 0"
  make bakeoff ARGS="--policies default --beside simulator/studies/bakeoff/results.csv"
  python -m simulator.studies.bakeoff --policies 'default|linucb' --seeds-100k 0 --everybody
  python -m simulator.studies.bakeoff --on ray://head-node:10001"""


def _policies(_: click.Context, __: click.Parameter, pattern: str) -> list[str]:
    found = [policy for policy in LABELS if re.search(pattern, policy)]
    if not found:
        raise click.BadParameter(f"{pattern}: matches none of {', '.join(LABELS)}")
    return found


def _worlds(_: click.Context, __: click.Parameter, given: str | None) -> list[str]:
    return given.split(",") if given else [*names(), *data_names()]


@click.command(epilog=EXAMPLES)
@click.option("--worlds", callback=_worlds, metavar="NAME,...", help="Which.  [default: all]")
@click.option("--policies", callback=_policies, default="", metavar="REGEX", help="Which.  [default: all]")
@click.option("--seeds-4k", type=click.IntRange(min=0), default=15, show_default=True, help="Played for 4,000 rounds.")
@click.option("--seeds-20k", type=click.IntRange(min=0), default=9, show_default=True, help="Of these, for 20,000.")
@click.option("--seeds-100k", type=click.IntRange(min=0), default=3, show_default=True, help="Of these, for 100,000.")
@click.option(
    "--everybody", is_flag=True, help="Also our other algorithms, and in each world the rivals that PLAN.md leaves out."
)
@workers_option
@on_option
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default="build/bakeoff",
    show_default=True,
    help="Keeps every run: the same again runs what is missing.",
)
@click.option(
    "--beside",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A results.csv of an earlier run of the plan: what it has and this run does not play is taken from there.",
)
@click.option("--publish", is_flag=True, help="Write results, tables and plot into the repository.")
@click.option("--again", is_flag=True, help="Run nothing: make tables and plot from the published results.csv.")
def main(
    worlds: list[str],
    policies: list[str],
    seeds_4k: int,
    seeds_20k: int,
    seeds_100k: int,
    everybody: bool,
    workers: int | None,
    on: str,
    folder: Path,
    beside: Path | None,
    publish: bool,
    again: bool,
) -> None:
    """Play all worlds with our default, with what it was before, and with the best rivals of each world (PLAN.md).

    Every policy meets the same visits of a seed, with immediate and with delayed rewards. A run of 100,000 rounds
    counts at 4,000 and 20,000, too. Slow rivals stop at 20,000, data sets at 4,000. Exits 2 on bad input.
    """
    with bad_input():
        if again:
            found = read(HERE / CSV)
        else:
            seeds = Seeds(at_4k=seeds_4k, at_20k=seeds_20k, at_100k=seeds_100k)
            planned = _planned(worlds, policies, seeds, everywhere if everybody else in_plan)
            found = with_others(rows(_swept(planned, folder, on, workers)), read(beside) if beside else ())
            write(folder / CSV, found)
        if publish or again:
            published(found, HERE, HERE.parent / TEXT)
        click.echo(summary(found))


def _planned(
    worlds: Sequence[str], policies: Sequence[str], seeds: Seeds, plays: Callable[[str, str], bool]
) -> list[Task]:
    for world in worlds:
        find(world)
    planned = tasks(worlds, policies, seeds, plays)
    if not planned:
        raise click.UsageError("nothing to play: raise --seeds-4k, --seeds-20k or --seeds-100k, or take --everybody")
    return planned


def _swept(planned: list[Task], folder: Path, on: str, workers: int | None) -> list[HorizonShares]:
    """Progress in rounds, since runs differ in length."""
    rounds = sum(task.rounds for task in planned)
    with bar(Console(stderr=True), f"{len(planned):,} runs") as progress:
        done: list[int] = []

        def count(task: Task, _: HorizonShares) -> None:
            done.append(task.rounds)
            progress(sum(done) / rounds)

        return sweep(
            planned,
            play_task,
            result=HorizonShares,
            folder=folder,
            on=on,
            workers=workers,
            version=depends_on,
            on_done=count,
        )


def published(found: Sequence[SeedResult], folder: Path, page: Path) -> None:
    """Results, tables and plot into the folder; the summary into the page, where it has markers. Raises OSError."""
    write(folder / CSV, found)
    exact = read(folder / CSV)
    (folder / TEXT).write_text(results(exact), encoding="utf-8")
    horizons = {row.horizon for row in exact}
    shown = HORIZONS[1] if HORIZONS[1] in horizons else max(horizons)
    (folder / "shares.svg").write_bytes(shares(exact, shown).svg)
    text = page.read_text(encoding="utf-8")
    page.write_text(placed(text, summary(exact)), encoding="utf-8")


if __name__ == "__main__":
    main()
