"""`simulator drive WORLD|DATASET`. Added to the command in `group.py`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from decider.errors import DeciderError
from decider.options import Finite, LogPlace, credential_options
from simulator.commands.options import (
    BAD_INPUT,
    FILE,
    INTERRUPTED,
    REFUSED,
    VISITS,
    bad_input,
    json_option,
    refuse_overwriting,
    report_option,
    with_options,
    write_json,
)
from simulator.drive import open_bandit
from simulator.drive.live import Options, drive
from simulator.drive.plan import LONGEST_WINDOW, Shares
from simulator.drive.result import DriveResult
from simulator.evaluate.result import to_json
from simulator.report.drive import terminal_parts
from simulator.report.open_bandit import rates_table
from simulator.report.table import in_terminal
from simulator.run.result_store import make_folder
from simulator.worlds.registry import find, log_of, names
from simulator.worlds.world import World

SHARE = Finite(0, 1)
HIGHEST_PORT = 65_535
OPEN_BANDIT = "open-bandit"

EXAMPLES = """\b
Examples:
  simulator drive storefront --target 127.0.0.1:50051
  simulator drive storefront --serve drive.db --kills 3 --report drive
  simulator drive email --target 127.0.0.1:50051 --db shop.db --rate 500 --json drive.json
  simulator drive open-bandit --target 127.0.0.1:50051 --campaign all"""


class Worlds(click.Group):
    """One command per world; worlds are looked up when they are named."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """All worlds that need no data, and the data set."""
        return [*names(), OPEN_BANDIT]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Of a world or data set. Raises UsageError."""
        if cmd_name.partition(":")[0] == OPEN_BANDIT:
            return open_bandit_command(cmd_name)
        try:
            return world_command(cmd_name, find(cmd_name))
        except DeciderError as error:
            raise click.UsageError(str(error), ctx) from error


@click.group("drive", cls=Worlds, epilog=EXAMPLES, subcommand_metavar="WORLD [OPTIONS]")
def drive_command() -> None:
    """Send the visitors of a world, or of a public log, to a live server.

    Rewards come late, twice, out of order or never, in the shares that you set; clients try again until they are
    answered. At the end all that was sent is compared with the log. Options: `simulator drive WORLD --help`.
    """


def _address(_: click.Context, __: click.Parameter, value: str) -> str:
    host, _colon, port = value.rpartition(":")
    known = host and "/" not in host and port.isdecimal() and 0 < int(port) <= HIGHEST_PORT
    if value and not known:
        raise click.BadParameter(f"{value!r} is not HOST:PORT, like 127.0.0.1:50051; a port is 1 to {HIGHEST_PORT}")
    return value


world_options = with_options(
    click.option("--target", default="", callback=_address, metavar="HOST:PORT", help="The server's gRPC address."),
    credential_options,
    click.option("--db", type=LogPlace(), metavar="LOG", help="That server's log, to compare with what was sent."),
    click.option("--serve", type=FILE, metavar="LOG.db", help="Start a server on this log instead; end it after."),
    click.option("--kills", type=click.IntRange(0, 100), default=0, help="SIGKILL it that often, at random moments."),
    click.option("--visitors", type=VISITS, default=10_000, show_default=True, help="Visits to send."),
    click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Of visitors and rewards."),
    click.option("--clients", type=click.IntRange(1, 64), default=4, show_default=True, help="Clients at once."),
    click.option(
        "--rate",
        type=Finite(min=0, min_open=True),
        metavar="R",
        help="Visits per second, kept even if the server does not keep up.  [default: as fast as answers come]",
    ),
    click.option(
        "--window",
        type=Finite(0.05, LONGEST_WINDOW),
        metavar="SECONDS",
        help="Reward window; delays shrink with it.  [default: holds as many visits as the world's does]",
    ),
    click.option("--lost", type=SHARE, default=0.02, show_default=True, help="Share of rewards never sent."),
    click.option("--late", type=SHARE, default=0.03, show_default=True, help="Share sent after the window."),
    click.option("--duplicate", type=SHARE, default=0.05, show_default=True, help="Share sent twice."),
    click.option("--reordered", type=SHARE, default=0.05, show_default=True, help="Share overtaken by later ones."),
    click.option(
        "--policy",
        default="",
        metavar="P",
        help="default, ALGORITHM[:parameter=value,...], FILE.toml or fixed:ACTION.  [default: the world's]",
    ),
    click.option(
        "--holdout",
        type=SHARE,
        metavar="SHARE",
        help="Share of units in the control group, which gets the baseline action.  [default: as what runs there]",
    ),
    json_option,
    report_option,
)
"""Of a drive with a world's visitors."""


def world_command(name: str, world: World) -> click.Command:
    """The command that drives a server with this world's visitors."""

    def run(
        *,
        json_file: Path | None,
        report: Path | None,
        lost: float,
        late: float,
        duplicate: float,
        reordered: float,
        **given: Any,
    ) -> None:
        with bad_input():
            refuse_overwriting(json_file, given["db"], given["serve"], given["policy"], log_of(name))
            if report:
                make_folder(report)
            shares = Shares(lost=lost, late=late, duplicate=duplicate, reordered=reordered)
            result = _with_progress(world, Options(shares=shares, **given))
            write_json(json_file, to_json(result))
            page = _write_page(result, report) if report else None
        _print(result, given["serve"], page)
        _exit(result)

    text = f"{world.line}\n\nExits 1 if anything was lost or doubled, 2 on bad input or without a server."
    return click.command(name, help=text, short_help=world.line)(world_options(run))


def _with_progress(world: World, options: Options) -> DriveResult:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("visitors", total=options.visitors)
        return drive(
            world,
            options,
            note=lambda text: console.print(text, soft_wrap=True, markup=False, highlight=False),
            on_progress=lambda done: progress.update(task, completed=done),
        )


def _write_page(result: DriveResult, folder: Path) -> Path:
    from simulator.report.pages.drive import write_drive_report  # matplotlib takes a second to import

    return write_drive_report(result, folder)


def _print(result: DriveResult, served: Path | None, page: Path | None) -> None:
    console = Console()
    for part in terminal_parts(result):
        console.print(part, soft_wrap=isinstance(part, str), markup=False, highlight=False)
    if result.ended:
        click.echo(f"Ended early: {result.ended}", err=True)
    if served:
        click.echo(f"Replay it: simulator verify {served}")
    if page:
        click.echo(f"Report: {page}")


def _exit(result: DriveResult) -> None:
    if not result.reconciliation.clean:
        sys.exit(REFUSED)
    if result.ended:
        sys.exit(INTERRUPTED if result.ended == "interrupted" else BAD_INPUT)


def open_bandit_command(name: str) -> click.Command:
    """The command that drives a server with the rows of the Open Bandit Dataset."""
    given = name.partition(":")[2].removeprefix("random/")
    command = click.command(
        name,
        epilog="\b\nExample:\n  simulator drive open-bandit --target 127.0.0.1:50051 --campaign all",
        help=_OPEN_BANDIT_HELP,
        short_help="Real visitors of a fashion store, by rejection replay.",
    )
    campaign = click.option(
        "--campaign", type=click.Choice(["all", "men", "women"]), default=given or "men", show_default=True
    )
    return command(campaign(_open_bandit_options(_drive_open_bandit)))


_OPEN_BANDIT_HELP = """Real visitors of a fashion store, logged uniformly, by rejection replay.

Rows where the server chooses the logged item count, with their logged click; it learns from no others.
The Open Bandit Dataset's small sample is downloaded once, by pip, into the cache.
"""


_open_bandit_options = with_options(
    click.option("--target", required=True, callback=_address, metavar="HOST:PORT", help="The server's gRPC address."),
    credential_options,
    click.option("--passes", type=click.IntRange(min=1), default=1, show_default=True, help="Times to send all rows."),
    click.option("--rows", type=click.IntRange(min=1), help="Send only the first rows.  [default: all 10,000]"),
)


def _drive_open_bandit(target: str, campaign: str, passes: int, rows: int | None) -> None:
    try:
        driven = open_bandit.drive(
            target, f"random/{campaign}", passes=passes, limit=rows, console=Console(stderr=True)
        )
    except DeciderError as error:
        raise click.ClickException(str(error)) from error
    Console().print(in_terminal(rates_table(driven)))
    click.echo(open_bandit.summary(driven))
