"""`simulator import` and `simulator export`. Added to the command in `group.py`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.console import Console

from decider.experiment.schema import from_message
from decider.experiment_files import read_toml
from decider.options import LogFile
from simulator.commands.options import (
    bad_input,
    bar,
    json_option,
    log_options,
    read_log,
    read_options,
    refuse_overwriting,
    write_json,
)
from simulator.evaluate.checks.leaks import set_leaks_aside
from simulator.evaluate.checks.log import log_findings
from simulator.evaluate.verdicts import by_severity
from simulator.logs.columns import Columns
from simulator.logs.errors import BadLog
from simulator.logs.export_log import check_kind, export_log
from simulator.logs.import_fit import fit_to
from simulator.logs.import_log import ImportCounts, check_importable, import_fit, import_log
from simulator.logs.open import KINDS, ReadOptions, definition_in, experiments_in
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
    for what in report.get("notes", ()):
        click.echo(f"  note: {what}")
    if report.get("sent"):
        click.echo("  what these decisions had, and Decide has to send from now on:")
    for field, kind in report.get("sent", {}).items():
        click.echo(f"    {field}: {kind}")
    for one in report.get("findings", ()):
        click.echo(f"  {one['verdict']}, {one['name']}: {one['text']} Needed: {one['needed']}")
    write_json(json_file, json.dumps({"destination": str(destination), **report}, indent=1, ensure_ascii=False))


class Pairs(click.ParamType[tuple[str, str]]):
    """Two names with a sign between them; the last sign counts.

    >>> Pairs("OLD=NEW").convert("a=b=c", None, None)
    ('a=b', 'c')
    """

    name = "pair"

    def __init__(self, form: str) -> None:
        self._form = form

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """The two names."""
        first, _, last = str(value).rpartition("=")
        if not first or not last:
            self.fail(f"{value!r} is not like {self._form}", param, ctx)
        return first, last


def _once_each(_: click.Context, param: click.Parameter, pairs: tuple[tuple[str, str], ...]) -> dict[str, str]:
    names = [first for first, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise click.BadParameter(f"{twice!r} is named twice", param=param)
    return dict(pairs)


class _Names(NamedTuple):
    """What the user says of ids and kinds."""

    id: str | None
    kinds: Mapping[str, str]
    renames: Mapping[str, str]


def _read(src: str, console: Console, given: Mapping[str, Any], experiment: str | None) -> Columns:
    return read_log(src, console, experiment=experiment, **given)


Write = Callable[..., ImportCounts]
"""Called with the path of the new log, and with `on_progress`."""


def _as_file(src: str, file: str, read: Callable[[str | None], Columns], given: _Names) -> tuple[Columns, Write]:
    """The decisions, and what writes them as those of the experiment that a file defines. Of several experiments in a
    log of ours the one with the file's id is read."""
    for option, value in (("--as", given.id), ("--kind", given.kinds)):
        if value:
            raise BadLog(f"{option}: leave it out; {file} says it")
    experiment = from_message(read_toml(Path(file)))
    columns = read(experiment.id if experiment.id in experiments_in(src) else None)
    check_importable(columns)
    return columns, partial(import_fit, fit_to(experiment, columns, file=file, renames=given.renames))


def _as_found(
    src: str, experiment: str | None, read: Callable[[str | None], Columns], given: _Names
) -> tuple[Columns, Write]:
    """The decisions, and what writes them as those of an experiment made from them; a log of ours defines its own."""
    if given.renames:
        raise BadLog("--rename: is for actions of a file; name it: --experiment FILE.toml")
    columns = read(experiment)
    definition = definition_in(src, ReadOptions(experiment=experiment))
    known = {str(action.id): action for action in definition.actions} if definition else {}
    return columns, partial(import_log, columns, experiment=given.id, kinds=given.kinds, known=known)


@click.command(
    "import",
    epilog="\b\nExamples:\n  simulator import personalizer/ shop.db --experiment storefront.toml\n"
    "  simulator import personalizer/ shop.db --as shop --kind none=none\n"
    "  simulator import clicks.csv shop.db --column reward=clicked --skip-bad",
    help=f"Write the decisions of the foreign log SRC into a new log of ours, DEST.\n\nSRC is {KINDS}.\n\n"
    "Propensities, rewards, contexts and times stay as they are. With a serving file, `decider serve --db DEST "
    "--experiments FILE.toml` goes on with DEST, and its model has learned from SRC. `simulator verify` does not "
    "recompute what another system drew. Exits 2 if SRC cannot be read or DEST not be written.",
)
@click.argument("src")
@click.argument("dest", type=LogFile("Import into a file, then `decider copy` it to that address"))
@click.option(
    "--experiment",
    metavar="FILE.toml|ID",
    help="A serving file: import as the experiment that it defines. Or an id: which one, where SRC is a log of ours "
    "with several.",
)
@click.option("--as", "name", metavar="ID", help="The experiment's id in DEST.  [default: from SRC or FILE.toml]")
@click.option(
    "--kind",
    "kinds",
    type=Pairs("--kind ACTION=KIND"),
    multiple=True,
    callback=_once_each,
    metavar="ACTION=KIND",
    help="Of an action, where no file says it; may be repeated.  [default: what SRC says, or content]",
)
@click.option(
    "--rename",
    "renames",
    type=Pairs("--rename OLD=NEW"),
    multiple=True,
    callback=_once_each,
    metavar="OLD=NEW",
    help="An action of SRC is that one of FILE.toml; may be repeated.",
)
@click.option("--force", is_flag=True, help="Overwrite DEST.")
@json_option
@read_options
def import_command(
    src: str,
    dest: Path,
    experiment: str | None,
    force: bool,
    json_file: Path | None,
    *,
    name: str | None,
    kinds: Mapping[str, str],
    renames: Mapping[str, str],
    **given: Any,
) -> None:
    """See `help` above."""
    console, started = Console(stderr=True), time.perf_counter()
    with bad_input():
        check_free(dest, force=force)
        _refuse_itself(src, dest)
        refuse_overwriting(json_file, src, dest)
        read, names = partial(_read, src, console, given), _Names(name, kinds, renames)
        if experiment is not None and experiment.endswith(".toml"):
            columns, write = _as_file(src, experiment, read, names)
        else:
            columns, write = _as_found(src, experiment, read, names)
        with atomic_path(dest, force=force) as path, bar(console, "writing") as progress:
            written = write(path, on_progress=progress)
        report = _report(columns, written, time.perf_counter() - started)
        _tell({**report, "findings": _findings(columns)}, dest, json_file)


@click.command(
    "export",
    epilog="\b\nExamples:\n  simulator export demo.db demo.parquet --experiment storefront\n"
    "  simulator export open-bandit:random/men men.dsjson.gz\n  vw --dsjson --cb_explore_adf -q CA -d men.dsjson.gz",
    help=f"Write the decisions of LOG to DEST: dsjson, CSV or Parquet, by its suffix.\n\nLOG is {KINDS}.\n\n"
    "Prints what DEST cannot hold. Exits 2 if LOG cannot be read or DEST not be written.",
)
@click.argument("log")
@click.argument("dest", type=LogFile("To have the log in another database, `decider copy` it; an export is a file"))
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
