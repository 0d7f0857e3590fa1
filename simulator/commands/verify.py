"""`simulator verify`. Added to the command in `group.py`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from decider.errors import ArchiveMissing, DeciderError
from decider.log.forgotten import KEY
from decider.log.open import archived, open_reader
from decider.log.protocol import Damage, LogReader
from simulator.commands.options import archive_option
from simulator.verify import Mismatch, refuse_imported, verify

DB = click.Path(path_type=Path)

EXAMPLES = """\b
Examples:
  simulator verify demo.db
  simulator verify demo.db --archive /backup/demo
  simulator verify /backup/demo"""


@click.command("verify", epilog=EXAMPLES)
@click.argument("db", type=DB)
@archive_option
def verify_command(db: Path, archive: tuple[Path, ...]) -> None:
    """Recompute every decision of the log DB with the code that serves, and compare.

    DB may also be the folder of an archive. With --archive DIR the log and its archived parts are put together again in
    a temporary copy (TMPDIR says where), and everything is compared from the first entry on.

    First the log is compared with its own checksums: each entry that was changed, is missing or was added since it was
    acknowledged is printed with its position. Prints `N of N decisions equal`; exits 1 with the first difference
    otherwise, 2 if the log is damaged, cannot be read, or was made by learning code that this build does not have.
    """
    try:
        elsewhere = archived(db, archive)
        if elsewhere and db.is_dir():
            raise ArchiveMissing(f"{db}: {elsewhere}; without the first decisions nothing can be recomputed")
        if elsewhere:
            click.echo(elsewhere)
        with (
            closing(open_reader(db, archive=archive)) as log,
            Progress(console=Console(stderr=True), transient=True) as progress,
        ):
            refuse_imported(log)
            damages = _check(log, progress)
            task = progress.add_task("decisions", total=log.count_decisions())
            result = verify(log, on_decision=lambda: progress.advance(task))
            removed_by = [position for position, build in log.builds().items() if KEY in build]
    except DeciderError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    click.echo(f"{result.equal} of {result.decisions} decisions equal")
    if result.forgotten:
        positions = ", ".join([str(position) for position in removed_by])
        click.echo(f"{result.forgotten} decisions of forgotten units are not recomputed: see entries {positions}")
    if result.unlearned:
        click.echo(
            f"{result.unlearned} decisions are not recomputed: their models learned from contexts that were removed"
        )
    if result.first is not None:
        click.echo(_describe(result.first))
        sys.exit(1)
    if damages:
        sys.exit(2)


def _check(log: LogReader, progress: Progress) -> Sequence[Damage]:
    """What the log's checksums say, printed at once: what comes after may fail on the same damage."""
    task = progress.add_task("entries", total=log.head().position)
    damages = log.check(lambda position: progress.update(task, completed=position))
    for damage in damages:
        click.echo(f"damaged: {damage}")
    later = log.chain_start()
    if later is not None:
        click.echo(f"entries up to position {later.position} got their checksums at an upgrade, later than written")
    return damages


def _describe(difference: Mismatch) -> str:
    logged = difference.logged
    return (
        f"first difference at position {logged.position}, decision {logged.decision.decision_id}: {difference.what}\n"
        f"  logged:     {logged.decision}\n  recomputed: {difference.recomputed}"
    )
