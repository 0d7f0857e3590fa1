"""`decider backup` and `decider restore`. Added to the command in `command.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from decider.errors import DeciderError
from decider.log.open import Copied, archive_folders, back_up_log, has_missing_parts, open_reader, restore_log
from decider.log.protocol import Mark
from decider.options import LogFile
from decider.server.archive_command import every_few_seconds
from decider.server.json_output import echo_json, iso, json_option
from decider.server.no_target import READS_LOG, no_target
from decider.text import time_text
from decider.types import Position

BACKUP_EXAMPLES = """
\b
Examples:
  decider backup /backup/shop-monday.db --db shop.db
  decider backup /backup/shop.db --db shop.db --force --json
"""

RESTORE_EXAMPLES = """
\b
Examples:
  decider restore /backup/shop-monday.db --db shop.db
"""

_FILE = click.Path(path_type=Path)

DUMP = "pg_dump --format=custom --file=shop.dump 'postgresql://...'"
LOAD = "pg_restore --exit-on-error --no-owner --dbname='postgresql://...' shop.dump"


_DUMPS = LogFile(
    f"PostgreSQL backs up its own databases, also while servers write: {DUMP} (decider/README.md has the steps); "
    "`decider copy` makes a file of such a log"
)
_LOADS = LogFile(
    f"PostgreSQL loads its own dumps: {LOAD} (decider/README.md has the steps); `decider copy` fills an empty schema "
    "from a file"
)


@click.command("backup", epilog=BACKUP_EXAMPLES)
@click.argument("dest", type=_FILE)
@click.option("--db", required=True, type=_DUMPS, help="The log; servers may write it meanwhile.")
@click.option("--force", is_flag=True, help="Replace DEST if it is there.")
@no_target(READS_LOG)
@json_option
def backup_command(dest: Path, db: Path, force: bool, as_json: bool) -> None:
    """Copy the log to the file DEST while servers write it, and check the copy.

    The copy is of one moment. It is compared with its own checksums, and gets the name DEST only when all is well: so
    what is named DEST is a whole log. A backup that fails or is killed leaves DEST as it was. Parts of the archive are
    other files: their folders are named, and have to be copied, too, after the backup: it may need a part that was not
    there before. The file LOG-last beside the log is not needed.

    \b
    --json: log, backup, position and time (of the last entry), bytes, archive (folders that are not in it).
    """
    say = _progress(as_json)
    try:
        copied = back_up_log(db, dest, replace=force, on_copied=say.copied, on_checked=say.checked)
        folders = archive_folders(db)
    except (DeciderError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        echo_json({"log": str(db), "backup": str(dest), **_content(copied, folders)})
        return
    click.echo(f"{dest}: {_describe(copied)}; checked, nothing is damaged")
    for folder in folders:
        click.echo(f"not in it: the archive in {folder}; copy this folder as well, now that the backup is made")


@click.command("restore", epilog=RESTORE_EXAMPLES)
@click.argument("src", type=_FILE)
@click.option("--db", required=True, type=_LOADS, help="The log that SRC takes the place of; no server may run on it.")
@no_target("replaces the log's file: run it where the file is, with --db LOG, while no server runs on it")
@json_option
def restore_command(src: Path, db: Path, as_json: bool) -> None:
    """Put a copy of the backup SRC in the place of the log, and keep the old log beside it.

    SRC is copied and checked before anything changes. Refused while a server runs on the log. The old log gets a name
    of its own, which is printed: what was decided since the backup is there alone. After a kill the log is the old one,
    or the new one, or refused by servers with the way out; run the command again. Copies that killed runs have left are
    removed by the next one.

    \b
    --json: backup, log, position and time (of the last entry), bytes, archive (folders with parts of its archive), kept
    (where the old log is now, or null), kept_position (its last entry; null: there is none, or it cannot be read).
    """
    say = _progress(as_json)
    aside = db.with_name(f"{db.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S}")
    try:
        copied = restore_log(src, db, aside=aside, on_copied=say.copied, on_checked=say.checked)
        folders, missing = archive_folders(db), has_missing_parts(db)
    except (DeciderError, OSError) as error:
        raise click.ClickException(str(error)) from error
    kept = copied.kept
    end = _end_of(kept)
    if as_json:
        told = {"kept": kept and str(kept), "kept_position": end and end.position}
        echo_json({"backup": str(src), "log": str(db), **_content(copied, folders), **told})
        return
    click.echo(f"{db}: {_describe(copied)}, from {src}; checked, nothing is damaged")
    if kept:
        until = f"; it ended at position {end.position}, {time_text(end.time)}" if end and end.position else ""
        click.echo(f"the old log is kept as {kept}{until}")
    for folder in folders:
        click.echo(f"it needs the archive in {folder}")
    if missing:
        click.echo(
            "not all of its parts are there: put the copy of that folder back, or say where it is: --archive DIR on "
            "decider serve and simulator verify"
        )


class _Progress:
    """Of a copy, and of checking it."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def copied(self, done: int, pages: int) -> None:
        """So many pages of all."""
        self._say(f"copied {100 * done // max(1, pages)} %")

    def checked(self, position: Position) -> None:
        """Up to there."""
        self._say(f"checked the copy up to position {position}")


def _progress(quiet: bool) -> _Progress:
    return _Progress((lambda _: None) if quiet else every_few_seconds())


def _end_of(log: Path | None) -> Mark | None:
    """None where there is no log, or it cannot be read: that may be why it was restored."""
    if log is None:
        return None
    try:
        with closing(open_reader(log)) as opened:
            return opened.head().mark
    except DeciderError:
        return None


def _content(copied: Copied, folders: Sequence[Path]) -> dict[str, Any]:
    return {
        "position": copied.head.position,
        "time": iso(copied.head.time),
        "bytes": copied.bytes,
        "archive": [str(folder) for folder in folders],
    }


def _describe(copied: Copied) -> str:
    if not copied.head.position:
        return f"{copied.bytes} bytes"
    return f"up to position {copied.head.position}, {time_text(copied.head.time)}, {copied.bytes} bytes"
