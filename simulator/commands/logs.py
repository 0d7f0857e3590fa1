"""`simulator import` and `simulator export`. Added to the command in `group.py`."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from simulator.commands.options import (
    FILE,
    bad_input,
    bar,
    json_option,
    log_options,
    read_log,
    refuse_overwriting,
    write_json,
)
from simulator.evaluate.checks.leaks import set_leaks_aside
from simulator.evaluate.checks.log import log_findings
from simulator.evaluate.verdicts import by_severity
from simulator.logs.columns import Columns
from simulator.logs.errors import BadLog
from simulator.logs.export_log import check_kind, export_log
from simulator.logs.import_log import import_log
from simulator.logs.open import KINDS
from simulator.logs.output_file import atomic_path, check_free


def _report(columns: Columns, written: Any, seconds: float) -> dict[str, Any]:
    return {
        "source": columns.name,
        **asdict(written),
        "left_out": dict(columns.left_out),
        "counts": dict(columns.counts),
        "seconds": round(seconds, 3),
    }


def _refuse_itself(source: str, destination: Path) -> None:
    """Raises BadLog: with --force the source would be gone."""
    if Path(source).resolve() == destination.resolve():
        raise BadLog(f"{destination}: is the log that is read; name another file")


def _findings(columns: Columns) -> list[dict[str, Any]]:
    """What `simulator inspect` would find of the log, where it is not fine: it is written all the same."""
    found = by_severity(log_findings(set_leaks_aside(columns)))
    return [asdict(one) for one in found if one.verdict != "fine"]


def _tell(report: dict[str, Any], destination: Path, json_file: Path | None) -> None:
    """One line for people, and everything for scripts."""
    click.echo(f"{report['decisions']} decisions written to {destination}")
    for kind, count in {**report["left_out"], **report["counts"]}.items():
        if count:
            click.echo(f"  {count} {kind}" + (" (left out)" if kind in report["left_out"] else ""))
    for what in report.get("lost", ()):
        click.echo(f"  not kept: {what}")
    for one in report.get("findings", ()):
        click.echo(f"  {one['verdict']}, {one['name']}: {one['text']} Needed: {one['needed']}")
    write_json(json_file, json.dumps({"destination": str(destination), **report}, indent=1, ensure_ascii=False))


@click.command(
    "import",
    epilog="\b\nExamples:\n  simulator import personalizer/ shop.db\n"
    "  simulator import clicks.csv shop.db --column reward=clicked --skip-bad",
    help=f"Write the decisions of the foreign log SRC into a new log of ours, DEST.\n\nSRC is {KINDS}.\n\n"
    "Propensities, rewards, contexts and times stay as they are. `simulator verify` cannot recompute what another "
    "system drew. Exits 2 if SRC cannot be read or DEST not be written.",
)
@click.argument("src")
@click.argument("dest", type=FILE)
@click.option("--as", "name", metavar="ID", help="The experiment's id in DEST.  [default: from SRC]")
@click.option("--force", is_flag=True, help="Overwrite DEST.")
@json_option
@log_options
def import_command(src: str, dest: Path, name: str | None, force: bool, json_file: Path | None, **given: Any) -> None:
    """See `help` above."""
    console, started = Console(stderr=True), time.perf_counter()
    with bad_input():
        check_free(dest, force=force)
        _refuse_itself(src, dest)
        refuse_overwriting(json_file, src, dest)
        columns = read_log(src, console, **given)
        with atomic_path(dest, force=force) as path, bar(console, "writing") as progress:
            written = import_log(columns, path, experiment=name, on_progress=progress)
        report = _report(columns, written, time.perf_counter() - started)
        _tell({**report, "findings": _findings(columns)}, dest, json_file)


@click.command(
    "export",
    epilog="\b\nExamples:\n  simulator export demo.db demo.parquet\n"
    "  simulator export open-bandit:random/men men.dsjson.gz\n  vw --dsjson --cb_explore_adf -q CA -d men.dsjson.gz",
    help=f"Write the decisions of LOG to DEST: dsjson, CSV or Parquet, by its suffix.\n\nLOG is {KINDS}.\n\n"
    "Prints what DEST cannot hold. Exits 2 if LOG cannot be read or DEST not be written.",
)
@click.argument("log")
@click.argument("dest", type=FILE)
@click.option("--force", is_flag=True, help="Overwrite DEST.")
@json_option
@log_options
def export_command(log: str, dest: Path, force: bool, json_file: Path | None, **given: Any) -> None:
    """See `help` above."""
    console, started = Console(stderr=True), time.perf_counter()
    with bad_input():
        check_kind(dest)
        check_free(dest, force=force)
        _refuse_itself(log, dest)
        refuse_overwriting(json_file, log, dest)
        columns = read_log(log, console, **given)
        with atomic_path(dest, force=force) as path, bar(console, "writing") as progress:
            written = export_log(columns, path, kind=dest.name, on_progress=progress)
        _tell(_report(columns, written, time.perf_counter() - started), dest, json_file)
