"""Types of options of both command lines. Called by `server/command.py` and `simulator/commands/`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from decider.durations import microseconds_of
from decider.log.place import LogUrl, log_place
from decider.types import Time

Command = TypeVar("Command", bound=Callable[..., None])

_CREDENTIALS = {
    "--token-file": "File with the token that says who calls.",
    "--ca": "PEM file of the authority that made the server's certificate.",
    "--client-cert": "PEM file of an own certificate, where the server asks for one.",
    "--client-key": "PEM file of its key.",
}


def variable_of(option: str) -> str:
    """The environment's name of an option.

    >>> variable_of("--tls-cert")
    'DECIDER_TLS_CERT'
    """
    return f"DECIDER_{option.removeprefix('--').replace('-', '_').upper()}"


def credential_options(command: Command) -> Command:
    """Adds what a call may need to be let in. Given there it is as in the environment, from which channels take it."""
    for name, text in reversed(_CREDENTIALS.items()):
        variable = variable_of(name)
        command = click.option(
            name, type=click.Path(), expose_value=False, metavar="FILE", callback=_to_environment(variable),
            help=f"{text}  [default: ${variable}]",
        )(command)  # fmt: skip
    return command


def _to_environment(variable: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    def callback(_: click.Context, __: click.Parameter, value: str | None) -> None:
        if value is not None:
            os.environ[variable] = value

    return callback


class LogPlace(click.ParamType["Path | LogUrl"]):
    """A log's file, or the address of a log in PostgreSQL."""

    name = "log"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | LogUrl:
        """See click. A folder is a path as well; whoever takes none says so."""
        place = value if isinstance(value, Path | LogUrl) else log_place(value)
        if isinstance(place, Path) and place.is_dir() and not self._folders:
            self.fail(f"file {str(place)!r} is a directory.", param, ctx)
        return place

    def __init__(self, *, folders: bool = False) -> None:
        self._folders = folders


class LogFile(LogPlace):
    """A log's file. An address of PostgreSQL is refused. instead: what does the same there."""

    def __init__(self, instead: str) -> None:
        super().__init__()
        self._instead = instead

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """See click."""
        place = super().convert(value, param, ctx)
        if isinstance(place, LogUrl):
            self.fail(f"{place}: this is for a log in a file. {self._instead}", param, ctx)
        return place


class Finite(click.FloatRange):
    """A number in a range. `FloatRange` alone takes nan for one, and inf where there is no maximum.

    >>> Finite(0, 1).convert("nan", None, None)
    Traceback (most recent call last):
    click.exceptions.BadParameter: 'nan' is no finite number
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is no finite number", param, ctx)
        return number


def check_time(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """An option that must be a time or an age; as it was written."""
    if value is not None and microseconds_of(value) is None:
        _time(value)
    return value


def age_of(_: click.Context, __: click.Parameter, value: str) -> int:
    """An option that must be an age; in microseconds."""
    found = microseconds_of(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no age like 7d, 12h, 1h30m or 90s, at most 36500d")
    return found


def check_age(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """The same; as it was written."""
    age_of(context, parameter, value)
    return value


def time_in(text: str, now: Time) -> Time:
    """Log time of such an option. now: from which an age counts back.

    >>> time_in("1h", Time(3_600_000_001)), time_in("1970-01-01T00:01", Time(0))
    (1, 60000000)
    """
    age = microseconds_of(text)
    return _time(text) if age is None else Time(now - age)


def _time(text: str) -> Time:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is neither a time like 2026-10-01T06:00 nor an age like 30d, at most 36500d"
        ) from error
    return Time(round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1_000_000))
