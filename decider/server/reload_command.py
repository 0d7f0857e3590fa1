"""`decider reload`. Added to the command in `command.py`."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import click

from decider.log.place import LogUrl
from decider.options import LogPlace
from decider.server.board import Board, Renewal, boards
from decider.server.no_target import no_target

EXAMPLES = """
\b
Examples:
  decider reload --db shop.db
  decider reload --db shop.db && decider list
  decider reload --db postgresql://leader@db/shop
"""

LOOK_INTERVAL = 0.1
"""Seconds between two looks at what the parent says."""

HEARS = 10.0
"""Seconds within which a parent has begun."""


@click.command("reload", epilog=EXAMPLES)
@click.option("--db", type=LogPlace(), required=True, help="The log whose `decider serve --workers N` is meant.")
@no_target("tells the server on this machine: name its log by --db LOG")
def reload_command(db: Path | LogUrl) -> None:
    """Put new processes into the places of several workers and their leader, without refusing a call.

    One after the other: the new worker serves before the old one lets no new client come; clients are asked to connect
    anew, as they are now and then (--max-age), and once none is left, the old one ends. The leader comes last: workers
    serve on meanwhile. It waits until all is done, and takes a little longer than --max-age for each worker. Where
    several such servers of a log in PostgreSQL run on this machine, it does so to each.

    The new processes have the options and the code with which the server was started: a new release needs a new start.
    Experiment files, tokens and certificates are read anew by themselves.

    Of a log in PostgreSQL, where several servers of this machine may write it, all are renewed, one after the other;
    those of other machines are not: run it there.

    Exits 0 once all are new, 1 where a new one does not start (the one before serves on), or where no such server runs.
    """
    found = [(board, renewal) for board in boards(db) if (renewal := board.read_renewal())]
    if not found:
        raise click.ClickException(
            f"no `decider serve --workers N` runs on {db} on this machine (the log has to be named as there)"
        )
    for number, (board, (pid, before)) in enumerate(found, 1):
        if len(found) > 1:
            click.echo(f"server {number} of {len(found)}, process {pid}:")
        _renew(board, pid, before)


def _renew(board: Board, pid: int, before: Renewal) -> None:
    try:
        os.kill(pid, signal.SIGUSR2)
    except OSError as error:
        raise click.ClickException(f"the server's parent, process {pid}, cannot be told: {error}") from error
    begun, left = time.monotonic(), -1
    while (found := board.read_renewal()) is not None:
        now = found[1]
        if now.asked == before.asked:
            if time.monotonic() - begun > HEARS:
                raise click.ClickException(f"the server's parent, process {pid}, does not answer")
        elif now.problem:
            raise click.ClickException(now.problem)
        elif not now.left:
            click.echo("all processes are new")
            return
        elif len(now.left) != left:
            left = len(now.left)
            click.echo(f"{left} to go: {', '.join(now.left)}")
        time.sleep(LOOK_INTERVAL)
    raise click.ClickException("the server ended meanwhile")
