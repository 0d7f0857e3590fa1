"""`simulator agreement`. Added to the command in `group.py`."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from decider.errors import DeciderError
from decider.log.open import LogUrl, archived, open_reader
from decider.options import LogPlace
from decider.types import ExperimentId
from simulator.agreement import compare
from simulator.commands.options import archive_option, experiment_option
from simulator.logs.decider_log import only_experiment
from simulator.report.agreement import print_agreement

EXAMPLES = """\b
Examples:
  simulator agreement shop.db
  simulator agreement shop.db --experiment checkout-offer"""


@click.command("agreement", epilog=EXAMPLES)
@click.argument("db", type=LogPlace(folders=True))
@experiment_option
@archive_option
def agreement_command(db: Path | LogUrl, experiment: str | None, archive: tuple[Path, ...]) -> None:
    """How often the policy of an apprentice would have done what was served in its place, by the log DB.

    Each decision is compared with the model that would have served it; models are learned again, as `simulator verify`
    does. What the policy would have earned is bounded: nobody has seen what comes of what it would have done otherwise.
    """
    try:
        elsewhere = archived(db, archive)
        if elsewhere:
            click.echo(elsewhere)
        with ExitStack() as opened:
            progress = opened.enter_context(Progress(console=Console(stderr=True), transient=True))
            log = opened.enter_context(closing(open_reader(db, archive=archive)))
            id_ = ExperimentId(only_experiment(log, experiment))
            task = progress.add_task("decisions", total=log.count_decisions(id_))
            report = compare(log, id_, on_decision=lambda: progress.advance(task))
    except DeciderError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    print_agreement(report, Console())
