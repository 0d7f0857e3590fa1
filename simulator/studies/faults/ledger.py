"""What was acknowledged to clients: a line for each answer, written by `clients.py` and read by `check.py`.

A line is a list whose first word says what it is; times are seconds since 1970. It is written once the answer is there:
what a client has not seen was not acknowledged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HOME = "home"
"""The experiment that all clients ask for."""

REWARD, ONCE = "click", "once"
"""Name of all rewards, and id of those that have one."""


class Decided(NamedTuple):
    """A Decide was answered. again: asked with an id that had been answered before."""

    at: float
    host: str
    id: str
    action: str
    propensity: float
    again: bool


class Rewarded(NamedTuple):
    """A Reward was answered. value: another one for each. with_id: it was sent until it was answered; else once."""

    at: float
    host: str
    id: str
    value: float
    with_id: bool


class Failed(NamedTuple):
    """A call was not answered with OK."""

    at: float
    host: str
    code: str
    details: str


class Sent(NamedTuple):
    """A Decide that is sent for the first time; a Reward may follow."""

    at: float
    host: str
    id: str


Line = Decided | Rewarded | Failed | Sent
KINDS: dict[str, type[Line]] = {one.__name__: one for one in (Decided, Rewarded, Failed, Sent)}


def to_text(line: Line) -> str:
    """
    >>> from_text(to_text(Sent(1.5, "one", "a"))) == Sent(1.5, "one", "a")
    True
    """
    return json.dumps([type(line).__name__, *line])


def from_text(text: str) -> Line:
    """Of `to_text`."""
    kind, *values = json.loads(text)
    return KINDS[kind](*values)


def read_ledger(path: Path) -> Iterator[Line]:
    """All lines, in the order of the answers."""
    with path.open(encoding="utf-8") as file:
        yield from map(from_text, file)
