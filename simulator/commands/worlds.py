"""`simulator worlds`. Added to the command in `group.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console, RenderableType
from rich.text import Text

from simulator.commands.options import (
    FOLDER,
    bad_input,
    bar,
    json_option,
    print_results,
    refuse_overwriting,
    write_json,
)
from simulator.report.world_figures import Portrait, plain, portrait
from simulator.report.worlds import LEGEND, in_full, in_short
from simulator.worlds.registry import data_names, find, log_of, names
from simulator.worlds.world import World

EXAMPLES = """\b
Examples:
  simulator worlds
  simulator worlds storefront
  simulator worlds data:digits --json digits.json
  simulator worlds --report worlds"""


@click.command("worlds", epilog=EXAMPLES)
@click.argument("name", required=False)
@json_option
@click.option("--report", type=FOLDER, metavar="DIR", help="Write a page with pictures.")
def worlds_command(name: str | None, json_file: Path | None, report: Path | None) -> None:
    """The worlds that `run`, `drive` and `compare` know: one line and a picture each; with NAME, all about one.

    Rows are actions, columns the values of the field that matters most; a cell is the mean reward. Below: what a
    uniform choice, the best single action and the best action of every visit earn. Exits 2 on an unknown name.
    """
    with bad_input():
        refuse_overwriting(json_file, log_of(name or ""))
        found = _portraits([find(one) for one in ([name] if name else names())])
        write_json(json_file, json.dumps([plain(one) for one in found], indent=1, ensure_ascii=False))
        page = _write_page(found, report) if report else None
        print_results(in_full(found[0]) if name else _all(found), highlight=False, report=page)


def _all(found: list[Portrait]) -> Iterator[RenderableType]:
    yield Text(LEGEND, "dim")
    yield from map(in_short, found)
    yield f"Made of data sets: {', '.join(data_names())}"
    yield "Fitted on a log of yours: fitted:LOG. All about one: simulator worlds NAME"


def _portraits(worlds: list[World]) -> list[Portrait]:
    found = []
    with bar(Console(stderr=True), "drawing") as progress:
        for world in worlds:
            found.append(portrait(world))
            progress(len(found) / len(worlds))
    return found


def _write_page(found: list[Portrait], folder: Path) -> Path:
    from simulator.report.pages.worlds import write_worlds  # matplotlib takes a second to import

    return write_worlds(found, folder)
