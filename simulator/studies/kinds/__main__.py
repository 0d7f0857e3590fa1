"""`make kinds`: how the evaluation judges logs of known truth, wrong ones and right ones, by kind."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import click
from rich.console import Console

from simulator.commands.options import counted
from simulator.studies.kinds.judge import Counts, JudgeTask, add, as_plain, run
from simulator.studies.kinds.registry import KINDS
from simulator.studies.kinds.table import placed, report, summary

CHUNK = 10
"""Logs of a task."""

HERE = Path(__file__).parent
TEXT = "RESULTS.md"

EXAMPLES = """\b
Examples:
  python -m simulator.studies.kinds --kinds leak --logs 20
  python -m simulator.studies.kinds --kinds 'context-free|override' --json kinds.json > kinds.md
  make kinds ARGS="--logs 300 --publish\""""


def tasks_for(kinds: Sequence[str], *, logs: int, seed: int) -> list[JudgeTask]:
    """In chunks.

    >>> tasks_for(["40 units x 50"], logs=12, seed=1)[1]
    JudgeTask(kind='40 units x 50', first=10, logs=2, seed=1)
    """
    return [JudgeTask(kind, first, min(CHUNK, logs - first), seed) for kind in kinds for first in range(0, logs, CHUNK)]


def run_all(tasks: Sequence[JudgeTask], *, workers: int, console: Console) -> list[Counts]:
    """The counts of all tasks, added up by kind and question, with a progress bar."""
    found: dict[tuple[str, str], Counts] = {}
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers) as pool, counted(console, len(tasks), f"{CHUNK} logs each") as progress:
        for counts in pool.imap(run, tasks):
            add(found, counts)
            progress()
    return list(found.values())


def publish_tables(found: Sequence[Counts], *, seed: int, folder: Path, page: Path) -> None:
    """Every table into the folder; the summary into the page, between its markers. Raises OSError and ValueError."""
    (folder / TEXT).write_text(f"# Kinds of logs\n\n{report(found, seed=seed)}", encoding="utf-8")
    page.write_text(placed(page.read_text(encoding="utf-8"), summary(found, seed=seed)), encoding="utf-8")


def _matching(_: click.Context, __: click.Parameter, pattern: str) -> list[str]:
    try:
        found = [name for name in KINDS if re.search(pattern, name)]
    except re.error as error:
        raise click.BadParameter(f"{pattern!r} is not a regular expression: {error}") from error
    if not found:
        raise click.BadParameter(f"{pattern!r} matches none of: {'; '.join(KINDS)}")
    return found


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}, epilog=EXAMPLES)
@click.option("--kinds", callback=_matching, default="", metavar="REGEX", help="Which.  [default: all]")
@click.option("--logs", type=click.IntRange(min=1), default=300, show_default=True, help="Of each kind.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Other logs.")
@click.option("--workers", type=click.IntRange(min=1), default=os.cpu_count, help="Processes.  [default: one per core]")
@click.option("--json", "file", type=click.File("w", lazy=False), metavar="FILE", help="Write every count, too.")
@click.option("--publish", is_flag=True, help="Write the tables into the results files of simulator/studies.")
def main(kinds: list[str], logs: int, seed: int, workers: int, file: TextIO | None, publish: bool) -> None:
    """How the evaluation judges logs of known truth: verdicts, alarms, coverage; Markdown tables.

    Every log goes through the reader (where its fault is one of reading) and through the evaluation. Right kinds count
    false alarms: 300 logs of each kind are more than 5,000 right logs.
    """
    if publish and len(kinds) < len(KINDS):
        raise click.UsageError("--publish writes the tables of all kinds: leave out --kinds")
    # one thread a process: several would wait for each other
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    found = run_all(tasks_for(kinds, logs=logs, seed=seed), workers=workers, console=Console(stderr=True))
    click.echo(report(found, seed=seed), nl=False)
    if file is not None:
        json.dump([as_plain(one) for one in found], file, indent=1)
    if publish:
        publish_tables(found, seed=seed, folder=HERE, page=HERE.parent / TEXT)


if __name__ == "__main__":
    main()
