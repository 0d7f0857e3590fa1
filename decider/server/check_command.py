"""`decider check`. Added to the command in `command.py`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from decider.errors import DeciderError
from decider.log.open import LogUrl, archive_folders, open_reader
from decider.log.protocol import Damage, LogReader, LogSizes, Mark
from decider.options import LogPlace, age_of
from decider.replay.recent import Recent, recompute_newest
from decider.server.archive_command import every_few_seconds
from decider.server.json_output import echo_json, iso, json_option
from decider.server.no_target import READS_LOG, no_target
from decider.text import count, duration, time_text
from decider.types import Position, Time

EXAMPLES = """
\b
Examples:
  decider check --db shop.db
  decider check --db /backup/shop.db --last 7d --json
  decider check --db postgresql://reader@db/shop
"""

MOST = 10_000
"""Decisions of a version that are made again."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. build: of the newest writer. archive: folders of parts."""

    end: Mark
    damage: Sequence[Damage]
    recent: Recent
    sizes: LogSizes
    build: Mapping[str, Any]
    archive: Sequence[Path]

    @property
    def exit_code(self) -> int:
        """See the command."""
        return 2 if self.damage else int(self.recent.first is not None)


@click.command("check", epilog=EXAMPLES)
@click.option("--db", required=True, type=LogPlace(), help="The log, or a backup.")
@click.option(
    "--last", default="1d", show_default=True, callback=age_of,
    help="Make the decisions of so long again, before the log's last entry.",
)  # fmt: skip
@click.option(
    "--most", default=MOST, show_default=True, type=click.IntRange(min=0),
    help="At most so many of each version, the newest.",
)  # fmt: skip
@no_target(READS_LOG)
@json_option
def check_command(db: Path | LogUrl, last: int, most: int, as_json: bool) -> None:
    """Check that a log is whole, and that its newest decisions can be made again; also while servers write it.

    The log is compared with its own checksums, from the first entry to the last. The decisions of the last day, of each
    version the newest 10,000 at most, are made again with the code that serves, from the stored models; `simulator
    verify` makes all decisions and models again.

    Exits 0 where all is well, 1 where a decision comes out otherwise, 2 where the log is damaged or cannot be read.

    \b
    --json: log, position and time (of the last entry), damage (each with first, last, text), decisions (that were made
    again), equal, skipped, cut (whether --most left some out), first_difference (text, or null), bytes (database, wal,
    models), free (bytes on the disk, or null), archive (folders), build (versions of what wrote last).
    """
    try:
        with closing(open_reader(db)) as log:
            report = _report(log, archive_folders(db), last, most, (lambda _: None) if as_json else every_few_seconds())
    except DeciderError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    if as_json:
        echo_json({"log": str(db), **_content(report)})
    else:
        for line in _lines(report, last, most):
            click.echo(line)
    sys.exit(report.exit_code)


def _report(log: LogReader, archive: Sequence[Path], last: int, most: int, say: Callable[[str], None]) -> Report:
    end = log.head().mark

    def checked(position: Position) -> None:
        say(f"checked up to position {position} of {end.position}")

    damage = log.check(checked)
    # A damaged log is not made again: what failed there would only hide what is damaged.
    recent = (
        Recent(0, 0, 0, None)
        if damage
        else recompute_newest(
            log, since=Time(end.time - last), most=most, on_decision=lambda: say("making decisions again")
        )
    )
    builds = log.builds()
    newest = builds[max(builds)] if builds else {}
    return Report(end, damage, recent, log.sizes(), newest, archive)


def _content(report: Report) -> dict[str, Any]:
    sizes, recent = report.sizes, report.recent
    return {
        "position": report.end.position,
        "time": iso(report.end.time),
        "damage": [{"first": one.first, "last": one.last, "text": one.text} for one in report.damage],
        "decisions": recent.decisions,
        "equal": recent.equal,
        "skipped": recent.skipped,
        "cut": recent.cut,
        "first_difference": _difference(recent),
        "bytes": {"database": sizes.database, "wal": sizes.wal, "models": sizes.models},
        "free": sizes.free,
        "archive": [str(folder) for folder in report.archive],
        "build": dict(report.build),
    }


def _difference(recent: Recent) -> str | None:
    if recent.first is None:
        return None
    logged = recent.first.logged
    return f"position {logged.position}, decision {logged.decision.decision_id}: {recent.first.what}"


def _lines(report: Report, last: int, most: int) -> Iterator[str]:
    recent, sizes = report.recent, report.sizes
    until = f", {time_text(report.end.time)}" if report.end.position else ""
    yield f"{'damaged' if report.damage else 'whole'} up to position {report.end.position}{until}"
    for one in report.damage:
        yield f"damaged: {one}"
    if report.damage:
        yield "way out: keep this log, and restore a backup (decider restore; a dump of PostgreSQL: pg_restore); "
        yield "decisions were not made again"
    else:
        cut = f" (of each version the newest {count(most)} at most; --most takes more)" if recent.cut else ""
        made = f"{count(recent.equal)} of {count(recent.decisions)} decisions"
        yield f"{made} of the last {duration(last / 1e6)} equal{cut}"
    if recent.skipped:
        yield f"{count(recent.skipped)} were imported, or their units were forgotten: they cannot be made again"
    if recent.first is not None:
        yield f"first difference at {_difference(recent)}"
        yield "way out: simulator verify makes all of them again; another build may have written the log"
    free = "" if sizes.free is None else f"; {count(sizes.free)} free on its disk"
    yield f"{count(sizes.database)} bytes, {count(sizes.models)} of them models, and {count(sizes.wal)} of -wal{free}"
    for folder in report.archive:
        yield f"older entries are in the archive: {folder}"
    if report.build:
        yield "written by " + ", ".join(f"{name} {value}" for name, value in sorted(_versions(report.build).items()))


def _versions(build: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in build.items() if isinstance(value, str)}
