"""`simulator evaluate` and `simulator inspect`. Added to the command in `simulator/cli.py`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from decider.errors import DeciderError
from simulator.evaluate.candidates import Candidate
from simulator.evaluate.importance import Without, without_fields
from simulator.evaluate.log_checks import log_findings
from simulator.evaluate.parse import NAMES, logged, parse
from simulator.evaluate.result import Evaluation, to_json
from simulator.evaluate.run import evaluate, summary
from simulator.evaluate.show import shown
from simulator.evaluate.show_checks import log_panel
from simulator.logs.columns import Columns
from simulator.logs.open import open_log
from simulator.logs.options import ReadOptions
from simulator.report.page import write_report

REFUSED, BAD_INPUT = 1, 2
"""Exit codes, besides 0."""

EVALUATE_EXAMPLES = """\b
Examples:
  simulator evaluate demo.db --policy uniform --policy baseline --policy simulator/storefront.toml
  simulator evaluate open-bandit:random/all --policy table:bts.csv --json result.json --report report
  simulator evaluate clicks.csv --column reward=clicked --column action=banner --policy fixed:sale"""
INSPECT_EXAMPLES = """\b
Examples:
  simulator inspect demo.db
  simulator inspect personalizer.dsjson --skip-bad --json findings.json"""


def _writable(_: click.Context, __: click.Parameter, file: Path | None) -> Path | None:
    """Said before the work, not after it."""
    if file is not None and not file.parent.is_dir():
        raise click.BadParameter(f"{file}: there is no folder {file.parent}; make it first")
    return file


def writes_json(command: Callable[..., None]) -> Callable[..., None]:
    """The option --json."""
    kind = click.Path(path_type=Path, dir_okay=False)
    return click.option("--json", "file", type=kind, callback=_writable, metavar="FILE", help="Write it as JSON, too.")(
        command
    )


def reads_a_log(command: Callable[..., None]) -> Callable[..., None]:
    """The argument LOG and the options that say how it is read."""
    options = (
        click.argument("log"),
        click.option("--experiment", metavar="ID", help="Which one, where a log holds several."),
        click.option(
            "--column", "columns", multiple=True, metavar="OURS=THEIRS", help="Which column of a table is what."
        ),
        click.option(
            "--mapping", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="The same as TOML."
        ),
        click.option("--reward-range", type=float, nargs=2, metavar="LOW HIGH", help="Declared; else what was seen."),
        click.option("--skip-bad", is_flag=True, help="Count bad rows instead of ending at the first."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command("evaluate", epilog=EVALUATE_EXAMPLES)
@reads_a_log
@click.option("--policy", "names", multiple=True, required=True, metavar="P", help=f"May be repeated. One of: {NAMES}.")
@click.option("--no-delay", is_flag=True, help="What learns sees every reward at once, not when the log did.")
@click.option("--importance", is_flag=True, help="What each field of the context is worth to what learns (slow).")
@click.option("--force", is_flag=True, help="Print numbers even where the log cannot carry the question.")
@writes_json
@click.option(
    "--report", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Write a page with plots."
)
def evaluate_command(
    log: str,
    names: tuple[str, ...],
    no_delay: bool,
    importance: bool,
    force: bool,
    file: Path | None,
    report: Path | None,
    **reading: Any,
) -> None:
    """What other policies would have earned on LOG: a path, or a data set such as open-bandit:random/men.

    A policy in a TOML file learns as it goes: every decision is scored before it is learned from, and its reward
    comes when the log knew it. Exits 1 if a policy was refused (the log cannot carry the question), 2 on bad input.
    """
    started = time.perf_counter()
    with _progress() as progress, _bad_input():
        columns = _read(log, progress, **reading)
        candidates = [parse(name, columns, delayed=not no_delay) for name in _with_logged(names)]
        candidates[0] = logged(columns)
        without = _without(names, candidates, columns, delayed=not no_delay) if importance else []
        task = progress.add_task("evaluating", total=len(columns))
        done = evaluate(
            columns, candidates, force=force, without=without, on_rows=lambda rows: progress.advance(task, rows)
        )
    done = replace(done, seconds=time.perf_counter() - started)
    console = Console()
    for part in shown(done):
        console.print(part)
    if file:
        _write(file, to_json(done))
    if report:
        console.print(f"Report: {_reported(done, report)}", soft_wrap=True)
    if any(policy.refused for policy in done.policies):
        sys.exit(REFUSED)


@click.command("inspect", epilog=INSPECT_EXAMPLES)
@reads_a_log
@writes_json
def inspect_command(log: str, file: Path | None, **reading: Any) -> None:
    """What LOG can carry, without any policy: each check with a verdict in plain words.

    Exits 1 if something is so wrong that the log should not be used, 2 if it cannot be read.
    """
    with _progress() as progress, _bad_input():
        columns = _read(log, progress, **reading)
        found = summary(columns, log_findings(columns))
    Console().print(log_panel(found))
    if file:
        _write(file, to_json(found))
    if found.verdict == "do not use":
        sys.exit(REFUSED)


def _with_logged(names: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(["logged", *names]))


def _without(
    names: tuple[str, ...], candidates: list[Candidate], columns: Columns, *, delayed: bool
) -> list[tuple[int, Without]]:
    found: list[tuple[int, Without]] = []
    for index, name in enumerate(_with_logged(names)):
        fresh = partial(parse, name, columns, delayed=delayed)
        found += [(index, one) for one in without_fields(candidates[index], fresh, columns)]
    return found


def _read(
    log: str,
    progress: Progress,
    *,
    experiment: str | None,
    columns: tuple[str, ...],
    mapping: Path | None,
    reward_range: tuple[float, float] | None,
    skip_bad: bool,
) -> Columns:
    task = progress.add_task("reading", total=1.0)
    options = ReadOptions(
        experiment=experiment,
        columns=columns,
        mapping=mapping,
        reward_range=reward_range or None,
        skip_bad=skip_bad,
        on_progress=lambda fraction: progress.update(task, completed=fraction),
        on_note=lambda note: progress.console.print(note, style="dim", highlight=False),
    )
    found = open_log(log, options)
    progress.update(task, completed=1.0)
    return found


@contextmanager
def _progress() -> Iterator[Progress]:
    bar = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*bar, console=Console(stderr=True), transient=True) as progress:
        yield progress


@contextmanager
def _bad_input() -> Iterator[None]:
    """Errors that name what is wrong, and the exit code that says so."""
    try:
        yield
    except (DeciderError, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(BAD_INPUT)


def _write(file: Path, text: str) -> None:
    with _bad_input():
        file.write_text(text + "\n", encoding="utf-8")


def _reported(evaluation: Evaluation, folder: Path) -> Path:
    with _bad_input():
        return write_report(evaluation, folder)
