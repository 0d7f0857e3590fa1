"""`simulator lift`. Added to the command in `group.py`."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from decider.log.open import LogUrl
from decider.options import LogPlace
from simulator.commands.options import (
    archive_option,
    bad_input,
    experiment_option,
    json_option,
    print_results,
    refuse_overwriting,
    report_option,
    span_options,
    write_json,
)
from simulator.evaluate.result import to_json
from simulator.lift.find import find_lift
from simulator.logs.groups import load_groups
from simulator.logs.span import Span
from simulator.report.lift import lift_parts
from simulator.report.pages.lift import write_lift_report

EXAMPLES = """\b
Examples:
  simulator lift shop.db
  simulator lift shop.db --experiment storefront --by segment --by device --since 7d
  simulator lift shop.db --reward purchase --reward refund --json lift.json --report lift-page"""


@click.command("lift", epilog=EXAMPLES)
@click.argument("log", type=LogPlace(folders=True))
@experiment_option
@click.option(
    "--by", "fields", multiple=True, metavar="FIELD", help="A row for every value of a context field; may be repeated."
)
@click.option(
    "--reward",
    "rewards",
    multiple=True,
    metavar="NAME",
    help="The lift of these rewards, too, each apart and without its weight; may be repeated.",
)
@span_options
@archive_option
@json_option
@report_option
def lift_command(
    log: Path | LogUrl,
    experiment: str | None,
    fields: tuple[str, ...],
    rewards: tuple[str, ...],
    since: str,
    until: str,
    archive: tuple[Path, ...],
    json_file: Path | None,
    report: Path | None,
) -> None:
    """What the policy earns more than the holdout, by the log LOG of ours: does it pay?

    The interval holds however often you look, and however often units come back. Only versions with a holdout count,
    and of those the newest with the same reward. The metrics decider_lift, decider_lift_low and decider_lift_high are
    the same figures, live.
    """
    stderr = Console(stderr=True)
    with bad_input():
        refuse_overwriting(json_file, log)
        read = load_groups(
            log,
            experiment=experiment,
            rewards=tuple(dict.fromkeys(rewards)),
            span=Span(since, until),
            archive=archive,
            on_note=lambda text: stderr.print(text, soft_wrap=True, markup=False, highlight=False, emoji=False),
        )
        found = find_lift(read, fields)
        write_json(json_file, to_json(found))
        page = write_lift_report(found, report) if report else None
        print_results(lift_parts(found), report=page)
