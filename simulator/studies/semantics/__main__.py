"""`make semantics`: what a decision and a reward mean, against a known truth, by the code that serves."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TextIO

import click
from rich.console import Console

from simulator.commands.options import counted
from simulator.studies.results import write_results
from simulator.studies.semantics.judge import Result, Task, add, run
from simulator.studies.semantics.scenes import SCENES
from simulator.studies.semantics.table import MARKERS, summary
from simulator.verify import Verification

CHUNK = 10
"""Logs of a task; the first one of each is replayed, too."""


EXAMPLES = """\b
Examples:
  python -m simulator.studies.semantics --scenes slates --logs 20
  make semantics ARGS="--publish\""""


def run_all(tasks: Sequence[Task], *, workers: int, console: Console) -> tuple[list[Result], list[Verification]]:
    """The sums of all tasks by question, with a progress bar, and the replays."""
    found, checked = dict[Any, Result](), []
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers) as pool, counted(console, len(tasks), f"{CHUNK} logs each") as progress:
        for results, replays in pool.imap(run, tasks):
            add(found, results)
            checked += replays
            progress()
    return list(found.values()), checked


def tasks_for(scenes: Sequence[str], *, logs: int, visits: int, seed: int) -> list[Task]:
    """In chunks.

    >>> tasks_for(["sticky"], logs=12, visits=300, seed=1)[1]
    Task(scene='sticky', first=10, logs=2, visits=300, seed=1)
    """
    return [
        Task(scene, first, min(CHUNK, logs - first), visits, seed)
        for scene in scenes
        for first in range(0, logs, CHUNK)
    ]


def _matching(_: click.Context, __: click.Parameter, pattern: str) -> list[str]:
    try:
        found = [name for name in SCENES if re.search(pattern, name)]
    except re.error as error:
        raise click.BadParameter(f"{pattern!r} is not a regular expression: {error}") from error
    if not found:
        raise click.BadParameter(f"{pattern!r} matches none of: {'; '.join(SCENES)}")
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}, epilog=EXAMPLES)
@click.option("--scenes", callback=_matching, default="", metavar="REGEX", help="Which.  [default: all]")
@click.option("--logs", type=click.IntRange(min=1), default=200, show_default=True, help="Of each scene.")
@click.option("--visits", type=click.IntRange(min=60), default=300, show_default=True, help="Of each log.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Other logs.")
@click.option("--workers", type=click.IntRange(min=1), default=os.cpu_count, help="Processes.  [default: one per core]")
@click.option("--json", "file", type=click.File("w", lazy=False), metavar="FILE", help="Write every sum, too.")
@click.option("--publish", is_flag=True, help="Write the tables into simulator/studies/RESULTS.md.")
def main(
    scenes: list[str], logs: int, visits: int, seed: int, workers: int, file: TextIO | None, publish: bool
) -> None:
    """Whether estimates and lessons are right whatever a frontend does; Markdown tables.

    Every log is made by the serving code in this process: handlers, sampler, log and learner. Its truth is a sum.
    """
    if publish and len(scenes) < len(SCENES):
        raise click.UsageError("--publish writes the tables of all scenes: leave out --scenes")
    # one thread a process: several would wait for each other
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    tasks = tasks_for(scenes, logs=logs, visits=visits, seed=seed)
    found, checked = run_all(tasks, workers=workers, console=Console(stderr=True))
    equal, decisions = sum(one.equal for one in checked), sum(one.decisions for one in checked)
    text = (
        f"{summary(found, visits=visits, seed=seed)}\nverify, {len(checked)} of the logs: {equal:,} of {decisions:,} "
    )
    text += "decisions equal.\n"
    click.echo(text, nl=False)
    if file is not None:
        json.dump([asdict(one) for one in found], file, indent=1)
    if publish:
        write_results(text, MARKERS)


if __name__ == "__main__":
    main()
