"""`simulator import` and `simulator export`, and the options that every command with a log has. Added by `cli.py`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress

from decider.errors import DeciderError
from simulator.logs.bad import BadLog
from simulator.logs.columns import Columns
from simulator.logs.export_log import check_kind, export_log
from simulator.logs.import_log import import_log
from simulator.logs.open import KINDS, ReadOptions, open_log
from simulator.logs.writing import check_free, replacing

FILE = click.Path(path_type=Path, dir_okay=False)


def log_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say how to read a log; their names are those that `read_options` takes.

    >>> sorted(option.name for option in click.command(log_options(lambda **given: None)).params)
    ['columns', 'experiment', 'mapping', 'reward_range', 'skip_bad']
    """
    for option in (
        click.option("--experiment", metavar="ID", help="Which one, where a log of ours has several."),
        click.option(
            "--column",
            "columns",
            multiple=True,
            metavar="WORD=NAME",
            help="What a table's column is, like reward=clicked.",
        ),
        click.option("--mapping", type=FILE, help='The same as a TOML file: reward = "clicked".'),
        click.option("--reward-range", nargs=2, type=float, metavar="LOW HIGH", help="Declared; otherwise as seen."),
        click.option("--skip-bad", is_flag=True, help="Leave bad rows out and count them."),
    ):
        command = option(command)
    return command


def read_options(console: Console, progress: Callable[[float], None], **given: Any) -> ReadOptions:
    """What `log_options` got.

    >>> read_options(Console(), print, skip_bad=True).skip_bad
    True
    """
    return ReadOptions(
        experiment=given.get("experiment"),
        skip_bad=given.get("skip_bad", False),
        mapping=given.get("mapping"),
        columns=tuple(given.get("columns") or ()),
        reward_range=given.get("reward_range") or None,
        on_progress=progress,
        on_note=lambda note: console.print(note, soft_wrap=True, markup=False, highlight=False),
    )


@contextmanager
def _bar(console: Console, what: str) -> Iterator[Callable[[float], None]]:
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task(what, total=1.0)
        yield lambda fraction: progress.update(task, completed=fraction)


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Bad input is one line and exit code 2."""
    try:
        yield
    except DeciderError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)


def _read(name: str, console: Console, given: dict[str, Any]) -> Columns:
    with _bar(console, "reading") as progress:
        return open_log(name, read_options(console, progress, **given))


def _report(columns: Columns, written: Any, seconds: float) -> dict[str, Any]:
    return {
        "source": columns.name,
        **asdict(written),
        "left_out": dict(columns.left_out),
        "counts": dict(columns.counts),
        "seconds": round(seconds, 3),
    }


def _tell(report: dict[str, Any], destination: Path, json_file: Path | None) -> None:
    """One line for people, and everything for scripts."""
    click.echo(f"{report['decisions']} decisions written to {destination}")
    for kind, count in {**report["left_out"], **report["counts"]}.items():
        if count:
            click.echo(f"  {count} {kind}" + (" (left out)" if kind in report["left_out"] else ""))
    for what in report.get("lost", ()):
        click.echo(f"  not kept: {what}")
    if json_file is not None:
        _write_json(json_file, {"destination": str(destination), **report})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadLog(f"{path}: cannot be written ({error.strerror}); choose another place") from error


@click.command(
    "import",
    epilog="\b\nExamples:\n  simulator import personalizer/ shop.db\n"
    "  simulator import clicks.csv shop.db --column reward=clicked --skip-bad",
    help=f"Write the decisions of the foreign log SRC into a new log of ours, DEST.\n\nSRC is {KINDS}.\n\n"
    "Propensities, rewards, contexts and times stay as they are. `simulator verify` cannot hold for what another "
    "system drew. Exits 2 if SRC cannot be read or DEST not be written.",
)
@click.argument("src")
@click.argument("dest", type=FILE)
@click.option("--as", "name", metavar="ID", help="The experiment's id in DEST.  [default: from SRC]")
@click.option("--force", is_flag=True, help="Overwrite DEST.")
@click.option("--json", "json_file", type=FILE, help="Write the counts to this file, as JSON.")
@log_options
def import_command(src: str, dest: Path, name: str | None, force: bool, json_file: Path | None, **given: Any) -> None:
    """See `help` above."""
    console, started = Console(stderr=True), time.perf_counter()
    with _exit_codes():
        check_free(dest, force=force)
        columns = _read(src, console, given)
        with replacing(dest, force=force) as path, _bar(console, "writing") as progress:
            written = import_log(columns, path, experiment=name, on_progress=progress)
        _tell(_report(columns, written, time.perf_counter() - started), dest, json_file)


@click.command(
    "export",
    epilog="\b\nExamples:\n  simulator export demo.db demo.parquet\n"
    "  simulator export open-bandit:random/men men.dsjson.gz\n  vw --dsjson --cb_explore_adf -q CA -d men.dsjson.gz",
    help=f"Write the decisions of LOG to DEST: dsjson, CSV or Parquet, by its suffix.\n\nLOG is {KINDS}.\n\n"
    "What DEST cannot hold is told. Exits 2 if LOG cannot be read or DEST not be written.",
)
@click.argument("log")
@click.argument("dest", type=FILE)
@click.option("--force", is_flag=True, help="Overwrite DEST.")
@click.option("--json", "json_file", type=FILE, help="Write the counts to this file, as JSON.")
@log_options
def export_command(log: str, dest: Path, force: bool, json_file: Path | None, **given: Any) -> None:
    """See `help` above."""
    console, started = Console(stderr=True), time.perf_counter()
    with _exit_codes():
        check_kind(dest)
        check_free(dest, force=force)
        columns = _read(log, console, given)
        with replacing(dest, force=force) as path, _bar(console, "writing") as progress:
            written = export_log(columns, path, kind=dest.name, on_progress=progress)
        _tell(_report(columns, written, time.perf_counter() - started), dest, json_file)
