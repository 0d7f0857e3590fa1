"""`decider archive`. Added to the command in `command.py`; a server with --archive starts it once a day."""

from __future__ import annotations

import re
import sys
import time
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryFile

import click

from decider.errors import DeciderError, LogError
from decider.learn.archive import ArchivedPart, Plan, Say, archive, make_plan
from decider.log.open import open_to_cut, open_to_plan
from decider.log.protocol import CuttableLog
from decider.options import LogFile, age_of, check_time, time_in
from decider.server.daily_archive import remember_success
from decider.text import time_text
from decider.types import Time

EXAMPLES = """
\b
Examples:
  decider archive --db shop.db --before 30d /archive/shop
  decider archive --db shop.db --before 2026-10-01 --dry-run /archive/shop
"""

NO_ARCHIVE = (
    "Nothing is archived out of PostgreSQL: it keeps the whole log, in tables of any size. To have old decisions in "
    "Parquet, `decider copy` the log into a file and archive that; or begin a new log in another schema"
)

TELL_EVERY = 5.0
"""Seconds between two lines about the same piece of work."""


@click.command("archive", epilog=EXAMPLES)
@click.option("--db", required=True, type=LogFile(NO_ARCHIVE), help="The log.")
@click.option(
    "--before", required=True, callback=check_time,
    help="Archive what was decided before this time (ISO, UTC), or longer ago than this age (30d), in log time.",
)  # fmt: skip
@click.option(
    "--remember", default="7d", show_default=True, callback=age_of,
    help="Log time for which a retry of an archived decision still gets it.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be archived, and change nothing.")
@click.option(
    "--archive", "archives", multiple=True, type=click.Path(path_type=Path, file_okay=False),
    help="Folder with parts of this log's archive that were moved; may be repeated.",
)  # fmt: skip
@click.argument("dest", type=click.Path(path_type=Path, file_okay=False))
def archive_command(
    db: Path, before: str, remember: int, dry_run: bool, archives: tuple[Path, ...], dest: Path
) -> None:
    """Move old decisions of the log with their rewards to Parquet files in the folder DEST.

    Decisions whose window is over are moved, also while servers write the log. What the log keeps is still recomputed
    by `simulator verify`, totals and learning go on, and `simulator` reads DEST. A run that is killed loses nothing:
    the next one goes on.
    """
    try:
        if dry_run:
            with open_to_plan(db, archives=(*archives, dest)) as log:
                plan = make_plan(log, _limit(log, before))
            click.echo("nothing to archive" if plan is None else f"would archive {_describe(plan)}")
            return
        _check_writable(dest)
        with closing(open_to_cut(db, archives=(*archives, dest))) as log:
            part = archive(log, dest, before=_limit(log, before), remember=remember, say=every_few_seconds())
            remember_success(dest, db)
    except DeciderError as error:
        raise click.ClickException(str(error)) from error
    click.echo("nothing to archive" if part is None else f"archived {_describe_part(part)}")


def _check_writable(dest: Path) -> None:
    """Also where nothing is to archive yet: a wrong folder is found out today, not in a month."""
    try:
        dest.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=dest):
            pass
    except OSError as error:
        raise LogError(f"{dest}: the archive cannot be written there ({error}); name another folder") from error


def _limit(log: CuttableLog, before: str) -> Time:
    return time_in(before, log.head().time)


def every_few_seconds() -> Say:
    """Progress on stderr: each new kind of work, and the same one now and then."""
    told: dict[str, float] = {}

    def say(text: str) -> None:
        kind = re.sub(r"\d+", "", text)
        if time.monotonic() - told.get(kind, -TELL_EVERY) >= TELL_EVERY:
            told[kind] = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    return say


def _describe(plan: Plan) -> str:
    span = (
        f"{time_text(plan.after.time)} to {time_text(plan.until.time)}"
        if plan.after.time
        else f"up to {time_text(plan.until.time)}"
    )
    return (
        f"{plan.decisions} decisions and {plan.rewards} rewards, {span} "
        f"(positions {plan.first} to {plan.until.position})"
    )


def _describe_part(part: ArchivedPart) -> str:
    return f"{_describe(part.plan)}, {part.bytes} bytes, in {part.folder}"
