"""`decider relearn`. Added to the command in `command.py`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import click

from decider.errors import DeciderError, LogError
from decider.experiment.origin import Origin, check_origin
from decider.learn.relearn import survey, wait_until_it_serves
from decider.learn.versions import ApplyResult, Versions
from decider.log.open import LogUrl, check_log, has_missing_parts, is_led, open_log, open_to_survey
from decider.log.protocol import EventLog
from decider.options import LogPlace
from decider.server.archive_command import every_few_seconds
from decider.server.origin_options import origin_options
from decider.types import ExperimentId

EXAMPLES = """
\b
Examples:
  decider relearn storefront --db shop.db --dry-run
  decider relearn storefront --db shop.db --wait
  decider relearn storefront --db shop.db --undo
"""

NOTHING = "nothing to learn anew: nothing came late that counts, and the reward definition is the one that was learned"

ELSEWHERE = (
    "the archive is not where the log says: the server learns once it finds it, so start it with --archive DIR, too; "
    "or put the parts back"
)


@click.command("relearn", epilog=EXAMPLES)
@click.argument("experiment")
@click.option("--db", required=True, type=LogPlace(), help="The log.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@click.option("--undo", is_flag=True, help="Go back to the model that learned each decision as it was sealed.")
@click.option("--wait", is_flag=True, help="End once the new version serves; needs a server on the log.")
@origin_options
@click.option(
    "--archive", "archives", multiple=True, type=click.Path(path_type=Path, file_okay=False),
    help="Folder with parts of this log's archive that were moved; may be repeated.",
)  # fmt: skip
def relearn_command(
    experiment: str,
    db: Path | LogUrl,
    dry_run: bool,
    undo: bool,
    wait: bool,
    author: str,
    note: str,
    archives: tuple[Path, ...],
) -> None:
    """Let the model of EXPERIMENT learn its log anew, with what came after the windows and by the newest rewards.

    Rewards, corrections and retractions that came late count as if they had come in time, and the reward definition
    that runs now counts for all decisions. The result is a new version. It waits until its model has learned the log,
    and the version before serves until then. A server may run; without one, the next one that starts learns. A server
    that is killed goes on when it is started again.
    """
    if dry_run and (undo or wait):
        raise click.UsageError("--dry-run changes nothing, so there is nothing to wait for or to undo; leave one out")
    id_ = ExperimentId(experiment)
    try:
        check_log(db, archives)
        if wait and not is_led(db):
            raise LogError(f"{db}: no server runs on this log, so nobody would learn; start one, or leave out --wait")
        if dry_run:
            with open_to_survey(db, archives=archives) as log:
                found = survey(log, id_, say=every_few_seconds())
                click.echo(f"would learn anew {found}" if found.changes else NOTHING)
            return
        with closing(open_log(db, archives=archives)) as log:
            origin = check_origin(author=author, source="command relearn", note=note)
            _undo(log, id_, origin) if undo else _relearn(log, id_, origin)
            if archives and isinstance(db, Path) and has_missing_parts(db):
                click.echo(ELSEWHERE)
            if wait:
                _wait(log, id_, partial(is_led, db))
    except DeciderError as error:
        raise click.ClickException(str(error)) from error


def _relearn(log: EventLog, id_: ExperimentId, origin: Origin) -> None:
    found = survey(log, id_, say=every_few_seconds())
    if not found.changes:
        click.echo(NOTHING)
        return
    click.echo(f"learning anew {found}")
    _say(Versions(log).relearn(id_, origin=origin))


def _undo(log: EventLog, id_: ExperimentId, origin: Origin) -> None:
    applied = Versions(log).undo_relearning(id_, origin=origin)
    if applied.changed:
        _say(applied)
    else:
        click.echo("nothing to undo: its model has not learned anew")


def _say(applied: ApplyResult) -> None:
    serves = "serves once its model has learned the log" if applied.waits else "is there"
    click.echo(f"version {applied.version.number} {serves}")


def _wait(log: EventLog, id_: ExperimentId, is_led: Callable[[], bool]) -> None:
    version = wait_until_it_serves(log, id_, is_led=is_led, say=every_few_seconds())
    click.echo(f"version {version.number} serves")
