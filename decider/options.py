"""Types of options of both command lines. Called by `server/command.py` and `simulator/commands/`."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import click

from decider.durations import microseconds_of
from decider.types import Time


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
