"""`simulator evaluate-large`. Added to the command in `group.py`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from simulator.commands.options import (
    FOLDER,
    REFUSED,
    bad_input,
    counted,
    json_option,
    on_option,
    print_results,
    refuse_overwriting,
    table_options,
    workers_option,
    write_json,
)
from simulator.compare.on_log import Reading
from simulator.evaluate.parse import NAMES
from simulator.evaluate.result import to_json
from simulator.large.total import evaluate_in_parts
from simulator.logs.divide import PART_ROWS
from simulator.logs.errors import BadLog
from simulator.report.large import terminal_parts
from simulator.run.engines import engine_of
from simulator.run.result_store import make_folder
from simulator.run.sweep import sweep

T = TypeVar("T", bound=Hashable)
R = TypeVar("R")

MOST_PARTS = 500
"""Each is a file that is open while the log is divided."""

EXAMPLES = """\b
Examples:
  simulator evaluate-large clicks.parquet --reward-range 0 1 --policy uniform --policy fixed:sale --folder parts
  simulator evaluate-large orders/ --reward-range 0 500 --policy uniform --folder /shared --on ray://head-node:10001"""


@dataclass(frozen=True, slots=True)
class Sweeps:
    """Every pass as a sweep of its own, in one folder and on one engine, with a bar."""

    folder: Path
    on: str
    workers: int | None
    console: Console

    def __call__(
        self, tasks: Sequence[T], function: Callable[[T], R], *, result: type[R], version: Callable[[T], str], what: str
    ) -> list[R]:
        """As `sweep` does."""
        self.console.print(what, highlight=False, soft_wrap=True)
        with counted(self.console, len(tasks), what) as done:
            return sweep(
                tasks,
                function,
                result=result,
                folder=self.folder,
                on=self.on,
                workers=self.workers,
                version=version,
                on_done=done,
            )


@click.command("evaluate-large", epilog=EXAMPLES)
@click.argument("log")
@click.option("--policy", "names", multiple=True, required=True, metavar="P", help=f"May be repeated. One of: {NAMES}.")
@click.option(
    "--parts",
    type=click.IntRange(1, MOST_PARTS),
    metavar="N",
    help=f"Into which the log is divided; one must fit into a worker's memory.  [default: one per {PART_ROWS:,} rows]",
)
@click.option("--folder", type=FOLDER, required=True, metavar="DIR", help="Gets the parts, as large as the log.")
@table_options
@click.option("--force", is_flag=True, help="Print numbers even where the log cannot carry the question.")
@workers_option
@on_option
@json_option
def evaluate_large_command(
    log: str,
    names: tuple[str, ...],
    parts: int | None,
    folder: Path,
    force: bool,
    workers: int | None,
    on: str,
    json_file: Path | None,
    **reading: Any,
) -> None:
    """As `evaluate`, for a Parquet LOG that is larger than memory: one file or a folder of them.

    The log is divided by unit, each part is evaluated by itself, and what the parts found is put together: the same
    estimates and intervals as of all at once. Policies that learn along the log need its order, so they cannot be
    evaluated here. The checks run on the first part, a random sample of the units. DIR keeps what is done: the same
    command goes on after an interruption. Exits 1 if a policy was refused, 2 on bad input.
    """
    with bad_input(), ExitStack() as held:
        refuse_overwriting(json_file, log)
        if reading["reward_range"] is None:
            raise BadLog(f"{log}: no part knows what a reward can be in the others; say it: --reward-range 0 1")
        held.enter_context(engine_of(on, workers=workers).held())
        run = Sweeps(make_folder(folder) / "kept", on, workers, Console(stderr=True))
        found = evaluate_in_parts(Reading(log, **reading), names, parts=parts, folder=folder, force=force, run=run)
        write_json(json_file, to_json(found))
        print_results(terminal_parts(found), JSON=json_file)
    if any(policy.refused for policy in found.policies):
        sys.exit(REFUSED)
