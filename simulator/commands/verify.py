"""`simulator verify`. Added to the command in `group.py`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress

from decider.errors import ArchiveMissing
from decider.log.forgotten import KEY, removals
from decider.log.open import LogUrl, archived, open_reader
from decider.log.protocol import Damage, LogReader
from decider.options import LogPlace
from decider.replay.recompute import Mismatch
from decider.types import START
from simulator.commands.options import archive_option, bad_input
from simulator.kept import compare_bases, compare_totals
from simulator.verify import verify

EXAMPLES = """\b
Examples:
  simulator verify demo.db
  simulator verify demo.db --archive /backup/demo
  simulator verify /backup/demo
  simulator verify postgresql://reader@db/shop"""


@click.command("verify", epilog=EXAMPLES)
@click.argument("db", type=LogPlace(folders=True))
@archive_option
def verify_command(db: Path | LogUrl, archive: tuple[Path, ...]) -> None:
    """Recompute every decision of the log DB with the code that serves, and compare.

    DB may also be the address of a log in PostgreSQL, or the folder of an archive. With --archive DIR the log and its
    archived parts are put together again in a temporary copy (TMPDIR says where), and everything is compared from the
    first entry on, also the models and totals that the log has kept at the cut.

    First the log is compared with its own checksums: each entry that was changed, is missing or was added since it was
    acknowledged is printed with its position. Prints `N of N decisions equal`; exits 1 with the first difference
    otherwise, 2 if the log is damaged, cannot be read, or was made by learning code that this build does not have.
    Decisions that `simulator import` wrote are counted apart: another system drew them.
    """
    with bad_input():
        elsewhere = archived(db, archive)
        if elsewhere and isinstance(db, Path) and db.is_dir():
            raise ArchiveMissing(f"{db}: {elsewhere}; without the first decisions nothing can be recomputed")
        if elsewhere:
            click.echo(elsewhere)
        with ExitStack() as opened:
            progress = opened.enter_context(Progress(console=Console(stderr=True), transient=True))
            kept = _open_what_is_kept(db, archive, opened)
            damages = [] if kept is None else _say(kept.check(lambda _: None))
            log = opened.enter_context(closing(open_reader(db, archive=archive)))
            damages += _check(log, progress, known=damages)
            if kept is not None:
                damages += _compare_kept(kept, log)
            task = progress.add_task("decisions", total=log.count_decisions())
            result = verify(log, on_decision=lambda: progress.advance(task))
            removed_by = _entries_of_removals(log)
    click.echo(f"{result.equal} of {result.decisions} decisions equal")
    for source, count in result.imported.items():
        click.echo(f"{count} decisions imported from {source} are not recomputed: another system drew them")
    if result.forgotten:
        click.echo(f"{result.forgotten} decisions of forgotten units are not recomputed: see {removed_by}")
    if result.unlearned:
        click.echo(
            f"{result.unlearned} decisions are not recomputed: their models learned from contexts that were removed"
        )
    if result.unrecalled:
        click.echo(
            f"{result.unrecalled} decisions: what their units did before lies in the archive, so those features are "
            "taken as logged; --archive DIR computes them again"
        )
    if result.first is not None:
        click.echo(_describe(result.first))
        sys.exit(1)
    if damages:
        sys.exit(2)


def _entries_of_removals(log: LogReader) -> str:
    """Where it stands what `decider forget` has removed: parts of an archive are read without the entries behind."""
    entries = {position: build for position, build in log.builds().items() if KEY in build}
    named = {decision for removal in removals(entries.values()) for decision in removal.decisions}
    here = [f"entries {', '.join(map(str, entries))}"] if entries else []
    is_all = all(named.issuperset(removal.decisions) for removal in log.removals())
    return " and ".join([*here, *([] if is_all else ["the entries of the log behind this archive"])])


def _open_what_is_kept(db: Path | LogUrl, archive: Sequence[Path], opened: ExitStack) -> LogReader | None:
    """The log without its archive, to be compared with it; None where there is no such pair."""
    if not archive or isinstance(db, LogUrl) or db.is_dir():
        return None
    live = opened.enter_context(closing(open_reader(db)))
    return live if live.cut().position > START else None


def _check(log: LogReader, progress: Progress, *, known: Sequence[Damage]) -> list[Damage]:
    """What the log's checksums say, printed at once: what comes after may fail on the same damage."""
    task = progress.add_task("entries", total=log.head().position)
    damages = log.check(lambda position: progress.update(task, completed=position))
    later = log.chain_start()
    new = _say([damage for damage in damages if damage not in known])
    if later is not None:
        click.echo(f"entries up to position {later.position} got their checksums at an upgrade, later than written")
    return new


def _say(damages: Iterable[Damage]) -> list[Damage]:
    """Print each."""
    said = []
    for damage in damages:
        click.echo(f"damaged: {damage}")
        said.append(damage)
    return said


def _compare_kept(kept: LogReader, whole: LogReader) -> list[Damage]:
    """What the log has kept at the cut, with the archive: models are learned again, totals are counted again."""
    damages: list[Damage] = []
    for compared in compare_bases(kept, whole):
        name = compared.base.name
        text = f"base of {name.experiment} at position {name.position}"
        if compared.forgotten:
            click.echo(f"{text}: not proved, it has learned from contexts that were removed")
        elif compared.equal:
            click.echo(f"{text}: proved")
        else:
            damages += _say([Damage(START, START, f"{text}: is not the model that is learned from the archive")])
    return damages + _say(compare_totals(kept, whole))


def _describe(difference: Mismatch) -> str:
    logged = difference.logged
    return (
        f"first difference at position {logged.position}, decision {logged.decision.decision_id}: {difference.what}\n"
        f"  logged:     {logged.decision}\n  recomputed: {difference.recomputed}"
    )
