"""`--json` of the commands: one JSON object on standard output, and nothing else there.

Where a command fails, standard output is empty, the reason is a line on standard error, and the exit code is not 0, as
without `--json`. Times are ISO 8601 in UTC. Keys may be added later; none is taken away or gets another meaning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from decider.types import Time

Command = TypeVar("Command", bound=Callable[..., None])


def json_option(command: Command) -> Command:
    """Adds it, as `as_json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="One JSON object on standard output, for scripts; no progress."
    )(command)


def echo_json(content: Mapping[str, Any]) -> None:
    """Print an answer. The name of a file may be no UTF-8: its bytes become escapes, as JSON knows them."""
    text = json.dumps(content, ensure_ascii=False, indent=2)
    click.echo(text.encode(errors="backslashreplace").decode())


def iso(at: Time) -> str | None:
    """A log's time; None of an empty log.

    >>> iso(Time(1_500_000)), iso(Time(0))
    ('1970-01-01T00:00:01.500000Z', None)
    """
    if not at:
        return None
    return datetime.fromtimestamp(at / 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
