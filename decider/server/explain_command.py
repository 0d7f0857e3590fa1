"""`decider explain`. Added to the command in `command.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from decider.errors import DeciderError, LogError
from decider.log.open import LogUrl, open_reader
from decider.options import LogPlace
from decider.replay.explain import Check, explain
from decider.replay.words import figure, time_text, to_json, value_text
from decider.server.archive_command import every_few_seconds
from decider.text import percent, printable
from decider.types import DecisionId

EXAMPLES = """
\b
Examples:
  decider explain 0198c0de-7a2b-7c3d-9e4f-5a6b7c8d9e0f --db shop.db
  decider explain page-7/1 --db shop.db --json
"""


@click.command("explain", epilog=EXAMPLES)
@click.argument("decision_id")
@click.option("--db", required=True, type=LogPlace(folders=True), help="The log, or a folder of its archive.")
@click.option("--json", "as_json", is_flag=True, help="For programs: one JSON object.")
@click.option(
    "--archive", "archives", multiple=True, type=click.Path(path_type=Path, file_okay=False),
    help="A folder with parts of the log's archive. The whole log is then read, from a temporary copy.",
)  # fmt: skip
def explain_command(decision_id: str, db: Path | LogUrl, as_json: bool, archives: tuple[Path, ...]) -> None:
    """Say why DECISION_ID came out as it did: what rules left to choose, who chose, each action's probability, and what
    every field of the context added to the gap between the two most probable actions.

    The decision is made again by the code that serves, and must be what the log says; else the command says so and ends
    with code 1. A model that is not stored is learned again up to there, which may take a while. The log is only read;
    servers may write it meanwhile.
    """
    say = every_few_seconds()
    try:
        if isinstance(db, Path) and not db.exists():
            raise LogError(f"{db}: there is no such log")
        with closing(open_reader(db, archive=archives)) as log:
            explanation = explain(
                log,
                DecisionId(decision_id),
                say=lambda time: say(f"learning its model again: {time_text(time)}"),
            )
    except DeciderError as error:
        raise click.ClickException(printable(str(error))) from error
    account = to_json(explanation)
    click.echo(json.dumps(account, indent=2) if as_json else "\n".join(lines(_printable(account))))
    if explanation.check is Check.DIFFERENT:
        raise SystemExit(1)


def _printable(content: Any) -> Any:
    """With every text as one that cannot steer a terminal."""
    if isinstance(content, dict):
        return {name: _printable(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_printable(one) for one in content]
    return printable(content) if isinstance(content, str) else content


def lines(account: dict[str, Any]) -> Iterator[str]:
    """What `words.to_json` gives, for a terminal."""
    yield f"{account['decision_id']}: {account['action']}, with probability {percent(account['propensity'])}"
    yield f"experiment {account['experiment']}, version {account['version']}; unit {account['unit_id']}"
    yield str(account["time"])
    yield f"{account['reason']}: {account['why']}"
    yield account["check"]["text"]
    yield f"model: {account['model']['text']}; {account['model']['policy']}"
    yield from account["notes"]
    yield ""
    for one in account["actions"]:
        share = "-" if one["withheld"] else percent(one["probability"])
        served, text = " (served)" if one["drawn"] else "", f"  {one['text']}" if one["text"] else ""
        yield f"  {share:>12}  {one['action']}{served}{text}"
    yield ""
    if account["comparison"] is None:
        yield f"no contributions of fields: {account['no_comparison']}"
    else:
        yield from _gap_lines(account["comparison"])


def _gap_lines(two: dict[str, Any]) -> Iterator[str]:
    first, second = two["first"], two["second"]
    yield f"{first['action']} rather than {second['action']}: {_expected(first)} expected against {_expected(second)}"
    for one in two["contributions"]:
        yield f"  {figure(one['reward']):>12}  {one['field']} = {value_text(one['value'])}"
    yield f"  {figure(two['constant']):>12}  the actions themselves, whatever the context"
    yield f"  {figure(two['together']):>12}  three and more fields together"
    yield f"  {figure(two['gap']):>12}  the gap"
    yield two["how"]
    if two["spread"]:
        yield two["spread"]


def _expected(side: dict[str, Any]) -> str:
    spread = "" if side["spread"] is None else f" +- {figure(side['spread'])}"
    return f"{figure(side['expected'])}{spread}"
