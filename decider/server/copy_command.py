"""`decider copy`. Added to the command in `command.py`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import click

from decider.errors import DeciderError
from decider.log.open import LogUrl, copy_log, open_reader
from decider.options import LogPlace
from decider.server.archive_command import every_few_seconds
from decider.server.json_output import echo_json, iso, json_option
from decider.text import count, time_text

EXAMPLES = """
\b
Examples:
  decider copy shop.db postgresql://owner@db/shop
  decider copy postgresql://owner@db/shop shop.db --json
"""


@click.command("copy", epilog=EXAMPLES)
@click.argument("source", metavar="FROM", type=LogPlace())
@click.argument("place", metavar="TO", type=LogPlace())
@json_option
def copy_command(source: Path | LogUrl, place: Path | LogUrl, as_json: bool) -> None:
    """Copy a whole log into another database: from an SQLite file into PostgreSQL, back, or from like to like.

    The copy has the same entries at the same positions, in the same commits, with the same checksum, and the stored
    models and totals; it is compared with its checksums before it counts. TO must be empty: a file that is not there,
    or a schema of PostgreSQL, of which the user is the owner, without a log or with one without entries. A copy that
    fails or is killed leaves nothing: run it again.

    FROM is copied as it is at one moment. What its servers write afterwards is not in the copy, and is told: end them
    before, then start them with --db TO. A log with an archive is refused.

    \b
    --json: from, to, position and time (of the last entry), models, behind (entries that FROM has got meanwhile).
    """
    say = (lambda _: None) if as_json else every_few_seconds()
    try:
        copied = copy_log(source, place, say=say)
        with closing(open_reader(source)) as log:
            behind = log.head().position - copied.head.position
    except (DeciderError, OSError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        end = {"position": copied.head.position, "time": iso(copied.head.time)}
        echo_json({"from": str(source), "to": str(place), **end, "models": copied.models, "behind": behind})
        return
    until = f" up to position {copied.head.position}, {time_text(copied.head.time)}" if copied.head.position else ""
    click.echo(f"{place}: copied{until}, {count(copied.models)} stored models; checked, nothing is damaged")
    if behind:
        click.echo(
            f"{source} has got {count(behind)} entries meanwhile, which are not in the copy: end its servers, "
            "and copy it to another place"
        )
