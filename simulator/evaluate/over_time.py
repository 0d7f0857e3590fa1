"""The log over its time: mean reward and shares of actions by day, and where the version changed. Called by `run.py`.

Nobody's estimate: what was logged, so that a reader sees an outage, a season or a new version before any policy is
judged. Days are those of UTC.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from decider.estimate.sample import Units
from simulator.evaluate.estimates import mean_reward
from simulator.evaluate.result import OverTime, Period, PeriodUnit, VersionChange
from simulator.evaluate.reward_bounds import possible_rewards
from simulator.logs.columns import Columns, Longs

HOUR = 3_600_000_000
DAY, WEEK = 24 * HOUR, 7 * 24 * HOUR
MONDAY = 4 * DAY
"""In microseconds. 1970 began on a Thursday: weeks begin on its first Monday."""

UNITS: tuple[tuple[PeriodUnit, int, int], ...] = (
    ("week", 60 * DAY, 104 * WEEK),
    ("day", 3 * DAY, 60 * DAY),
    ("hour", 3 * HOUR, 3 * DAY),
)
"""Each with the shortest and the longest log that is split into it. Others are split into tenths."""

TENTHS = 10
MOST_ACTIONS = 5
"""That are shown by name."""


class Grid(NamedTuple):
    """Periods of one width, in microseconds, from `start` on."""

    unit: PeriodUnit
    start: int
    width: float

    def places(self, time: Longs) -> Longs:
        """(n,): in which period each moment lies; the last moment of ten tenths belongs to the tenth."""
        places: Longs = ((time - self.start) / self.width).astype(np.int64)
        return np.minimum(places, TENTHS - 1) if self.unit == "tenth" else places


def split_by_time(columns: Columns) -> OverTime | None:
    """Mean reward and shares of the actions in each period that has decisions; None where no time passes in the log.

    >>> from simulator.logs.example import example
    >>> from dataclasses import replace
    >>> two_hours = replace(example(), time=np.array([0, 2 * HOUR]))
    >>> [(period.begins, period.mean_reward.value) for period in split_by_time(two_hours).periods]
    [('1970-01-01T00:00:00Z', 1.0), ('1970-01-01T01:48:00Z', 0.0)]
    """
    if not len(columns) or columns.time.min() == columns.time.max():
        return None
    grid = grid_of(int(columns.time.min()), int(columns.time.max()))
    often = np.argsort(-np.bincount(columns.action, minlength=len(columns.actions)), kind="stable")
    shown = [code for code in often[:MOST_ACTIONS].tolist() if (columns.action == code).any()]
    return OverTime(
        unit=grid.unit,
        actions=tuple([columns.actions[code] for code in shown]),
        periods=tuple(_periods(columns, grid, shown)),
        versions=tuple(_changes(columns, grid)),
    )


def grid_of(first: int, last: int) -> Grid:
    """How the time from the first decision to the last is split.

    >>> [grid_of(MONDAY + HOUR, MONDAY + HOUR + span).unit for span in (HOUR, DAY, 3 * DAY, 20 * WEEK, 200 * WEEK)]
    ['tenth', 'hour', 'day', 'week', 'tenth']
    """
    widths = {"week": WEEK, "day": DAY, "hour": HOUR}
    for unit, shortest, longest in UNITS:
        if shortest <= last - first < longest:
            offset = MONDAY if unit == "week" else 0
            return Grid(unit, first - (first - offset) % widths[unit], widths[unit])
    return Grid("tenth", first, (last - first) / TENTHS)


def _periods(columns: Columns, grid: Grid, shown: list[int]) -> Iterator[Period]:
    """One sort, so that the work does not grow with decisions times periods."""
    places = grid.places(columns.time)
    order = np.argsort(places, kind="stable")
    found, first = np.unique(places[order], return_index=True)
    value_range = possible_rewards(columns)
    for place, rows in zip(found.tolist(), np.split(order, first[1:]), strict=True):
        drawn = np.bincount(columns.action[rows], minlength=len(columns.actions))
        yield Period(
            begins=_written(grid.start + round(place * grid.width)),
            place=place,
            decisions=len(rows),
            mean_reward=mean_reward(columns.reward[rows], Units(columns.cluster[rows]), value_range),
            shares=tuple((drawn[shown] / len(rows)).tolist()),
        )


def _changes(columns: Columns, grid: Grid) -> Iterator[VersionChange]:
    """Every version but the first."""
    begins = columns.versions.begins if columns.versions else {}
    for number, time in sorted(begins.items(), key=lambda one: one[1])[1:]:
        yield VersionChange(number, _written(time), (time - grid.start) / grid.width)


def _written(time: int) -> str:
    """ISO 8601 in UTC, with fractions of a second where there are any."""
    return str(np.datetime_as_string(np.datetime64(time, "us"))).removesuffix(".000000") + "Z"
