"""`--since` and `--until`: the part of a log that is read, by the times of its decisions. Called by the readers.

A moment is ISO 8601 (a date or a time, UTC where no zone stands), or a duration before the log's last decision.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from simulator.logs.columns import Columns
from simulator.logs.errors import BadLog

BEFORE, AFTER = "before --since", "from --until on"
"""Kinds of decisions that are left out: the user asked for that."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {"w": 7 * 86_400, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(rf"(\d+(?:\.\d+)?)([{''.join(_UNITS)}])")


@dataclass(frozen=True, slots=True)
class Span:
    """since is in it, until is not; empty: no limit.

    >>> time = np.array([0, 86_400_000_000, 172_800_000_000])
    >>> [rows.tolist() for rows in Span("1970-01-02", "").outside("shop.db", time).values()]
    [[True, False, False], [False, False, False]]
    >>> [rows.tolist() for rows in Span("1d", "1970-01-03").outside("shop.db", time).values()]
    [[True, False, False], [False, False, True]]
    """

    since: str = ""
    until: str = ""

    def outside(self, name: str, time: NDArray[np.int64]) -> Mapping[str, NDArray[np.bool_]]:
        """Which decisions are not in it, by kind. name: of the log. Raises BadLog where none is left, or no time."""
        if not (self.since or self.until):
            return {}
        if not time.any():
            raise BadLog(f"{name}: its decisions have no times, so {self._given} cannot be told; leave it out")
        since, until = (self._moment(text, time) for text in (self.since, self.until))
        before = time < since if since is not None else np.zeros(len(time), np.bool_)
        after = time >= until if until is not None else np.zeros(len(time), np.bool_)
        if bool((before | after).all()):
            raise BadLog(
                f"{name}: no decision is left with {self._given}; its decisions are from {_written(time.min())} to "
                f"{_written(time.max())}"
            )
        return {BEFORE: before & ~after, AFTER: after}

    @property
    def _given(self) -> str:
        given = [f"{option} {text}" for option, text in (("--since", self.since), ("--until", self.until)) if text]
        return " and ".join(given)

    def _moment(self, text: str, time: NDArray[np.int64]) -> int | None:
        if not text:
            return None
        duration = _DURATION.fullmatch(text)
        if duration:
            return int(time.max()) - round(float(duration[1]) * _UNITS[duration[2]] * 1e6)
        return microseconds(text)


def microseconds(text: str) -> int:
    """Since 1970, of an ISO 8601 date or time. Raises ValueError.

    >>> microseconds("1970-01-02"), microseconds("1970-01-01T01:00:00+01:00"), microseconds("1970-01-01T00:00:01Z")
    (86400000000, 0, 1000000)
    """
    moment = datetime.fromisoformat(text)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


def is_moment(text: str) -> bool:
    """Whether it is one of those that `Span` takes.

    >>> is_moment("7d"), is_moment("2026-11-28T20:00"), is_moment("yesterday")
    (True, True, False)
    """
    if _DURATION.fullmatch(text):
        return True
    try:
        microseconds(text)
    except (ValueError, OverflowError):
        return False
    return True


def _written(time: int) -> str:
    return str(np.datetime_as_string(np.datetime64(int(time), "us"), unit="s")) + "Z"


def select_span(columns: Columns, span: Span) -> Columns:
    """The decisions of a log within the span; the others are counted."""
    outside = span.outside(columns.name, columns.time)
    if not outside:
        return columns
    inside = ~np.logical_or.reduce(list(outside.values()))
    counted = {kind: int(rows.sum()) for kind, rows in outside.items()}
    return replace(columns.take(inside), left_out={**columns.left_out, **counted})
