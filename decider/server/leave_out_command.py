"""`decider leave-out` and `decider rollback`. Added to the command in `command.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import click

from decider.errors import DeciderError, LogError
from decider.experiment.origin import check_origin
from decider.learn.bad_data import close, in_force, leave_out, roll_back, take_back, wait_until_followed
from decider.learn.versions import learner, newest_version
from decider.log.open import LogUrl, check_log, is_led, open_log
from decider.log.protocol import EventLog, LeaveOut
from decider.options import LogPlace, check_time, time_in
from decider.server.archive_command import every_few_seconds
from decider.server.origin_options import origin_options
from decider.text import printable, time_text
from decider.types import ExperimentId, Position

LEAVE_OUT_EXAMPLES = """
\b
Examples:
  decider leave-out storefront --db shop.db --from 2026-11-28T12:56 --until 2026-11-28T12:58 --note "pixel was down"
  decider leave-out storefront --db shop.db --from 10m
  decider leave-out storefront --db shop.db --until 0s
  decider leave-out storefront --db shop.db --list
  decider leave-out storefront --db shop.db --take-back 48211
"""

ROLLBACK_EXAMPLES = """
\b
Examples:
  decider rollback storefront --db shop.db --list
  decider rollback storefront --db shop.db --to 48211 --note "a bot bought everything" --wait
"""

LISTED = 50
"""Stored models that `rollback --list` shows."""

Command = Callable[..., None]


def _options(command: Command) -> Command:
    """Those that both have."""
    options = [
        click.argument("experiment"),
        click.option("--db", required=True, type=LogPlace(), help="The log."),
        origin_options,
        click.option("--wait", is_flag=True, help="End once a model that follows serves; needs a server on the log."),
        click.option(
            "--archive", "archives", multiple=True, type=click.Path(path_type=Path, file_okay=False),
            help="Folder with parts of this log's archive that were moved; may be repeated.",
        ),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@contextmanager
def _log(db: Path | LogUrl, archives: tuple[Path, ...], *, wait: bool) -> Iterator[EventLog]:
    """The log, for a command whose errors are for people."""
    try:
        check_log(db, archives)
        if wait and not is_led(db):
            raise LogError(f"{db}: no server runs on this log, so nobody would learn; start one, or leave out --wait")
        with closing(open_log(db, archives=archives)) as log:
            yield log
    except DeciderError as error:
        raise click.ClickException(str(error)) from error


@click.command("leave-out", epilog=LEAVE_OUT_EXAMPLES)
@_options
@click.option("--from", "begin", callback=check_time, help="When it began (ISO, UTC), or how long ago (10m).")
@click.option("--until", callback=check_time, help="When it was over, or how long ago. Not given: it is not over.")
@click.option(
    "--take-back",
    "taken_back",
    type=click.IntRange(1),
    help="Learn again from what the entry at this position left out.",
)
@click.option("--list", "list_", is_flag=True, help="Say what is left out, and change nothing.")
def leave_out_command(
    experiment: str, db: Path | LogUrl, author: str, note: str, wait: bool, archives: tuple[Path, ...],
    begin: str | None, until: str | None, taken_back: int | None, list_: bool,
) -> None:  # fmt: skip
    """Let the model of EXPERIMENT forget a stretch of time, in which rewards were missing or wrong.

    Decisions whose reward window touches the stretch are learned by no model from now on. A running server goes back
    to the newest stored model from before it, and learns again what came after; the model that serves goes on
    meanwhile. The entry stays in the log, with author and note, and replay follows it. Estimates, metrics and
    `simulator` still read these decisions. With --until alone, the stretch that is not over ends.
    """
    id_ = ExperimentId(experiment)
    _check_use(list_, taken_back, begin, until)
    with _log(db, archives, wait=wait) as log:
        if list_:
            _list_left_out(log, id_)
            return
        origin, now = check_origin(author=author, source="command leave-out", note=note), log.head().time
        if taken_back is not None:
            made = take_back(log, id_, Position(taken_back), origin=origin)
        elif begin is None:
            made = close(log, id_, end=time_in(str(until), now), origin=origin)
        else:
            end = None if until is None else time_in(until, now)
            made = leave_out(log, id_, begin=time_in(begin, now), end=end, origin=origin)
        click.echo(f"position {made.position}: {made.entry}")
        _finish(log, made, db, wait=wait)


def _check_use(list_: bool, take_back: int | None, begin: str | None, until: str | None) -> None:
    ways = [list_, take_back is not None, begin is not None or until is not None]
    if sum(ways) != 1:
        raise click.UsageError("give --from (with or without --until), --until alone, --take-back, or --list")


@click.command("rollback", epilog=ROLLBACK_EXAMPLES)
@_options
@click.option("--to", type=click.IntRange(0), help="Position up to which the model had learned; 0: nothing.")
@click.option("--list", "list_", is_flag=True, help="Say which models are stored, and change nothing.")
def rollback_command(
    experiment: str, db: Path | LogUrl, author: str, note: str, wait: bool, archives: tuple[Path, ...], to: int | None,
    list_: bool,
) -> None:  # fmt: skip
    """Serve an older model of EXPERIMENT again: the one that had learned up to a position of the log.

    Everything that was sealed since is left out (see `decider leave-out --list`, which also names the way back), and
    learning goes on from here. A running server does it within a second where that model is stored; otherwise it learns
    it again from the log, and the present model serves until then.
    """
    id_ = ExperimentId(experiment)
    if (to is None) != list_:
        raise click.UsageError("give either --to or --list")
    with _log(db, archives, wait=wait) as log:
        if to is None:
            _list_models(log, id_)
            return
        origin = check_origin(author=author, source="command rollback", note=note)
        made = roll_back(log, id_, Position(to), origin=origin)
        click.echo(f"position {made.position}: {made.entry}")
        _finish(log, made, db, wait=wait)


def _finish(log: EventLog, made: LeaveOut, db: Path | LogUrl, *, wait: bool) -> None:
    if wait:
        position = wait_until_followed(log, made, is_led=partial(is_led, db), say=every_few_seconds())
        click.echo(f"the model at position {position} follows it and is published")


def _list_left_out(log: EventLog, id_: ExperimentId) -> None:
    found = in_force(log, id_)
    for one in found:
        click.echo(printable(f"{one.position}: {one.entry}; {one.entry.origin}"))
    if not found:
        click.echo("nothing is left out")


def _list_models(log: EventLog, id_: ExperimentId) -> None:
    newest = newest_version(log, id_)
    policy = learner(id_, newest.experiment if newest else None).policy
    positions = log.models.stored_positions(id_, policy.signature)
    for position in positions[-LISTED:]:
        click.echo(f"{position}: {time_text(log.time_at(position))}")
    if not positions:
        click.echo("no model is stored yet; any position can be named, and is learned again from the log")
