"""Totals by day: who got what, and what it earned. Called by `totals.py` and by every log; the page shows them.

They are bounded: some days, actions and segments are named, and what is left out does not depend on the order in which
it came. So counting on from a checkpoint gives the same as counting anew. A day is one of log time, in UTC.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

from decider.log.exact_sum import ZERO, ExactSum
from decider.types import ActionId, Position, Time

DAY = 86_400_000_000
"""Microseconds."""

MOST_DAYS = 60
"""Of an experiment: the newest with decisions."""

SEGMENT_DAYS = 7
"""Of these, so many know segments."""

MOST_ACTIONS, MOST_SEGMENTS = 40, 20
"""Of one day: those that come first in the alphabet. The rest counts as OTHER."""

OTHER = "(other)"


def day_of(time: Time) -> int:
    """Days since 1970."""
    return time // DAY


class DayCell(NamedTuple):
    """Decisions of a version that are counted together. segment: "" where none was given."""

    version: Position
    day: int
    segment: str
    action: ActionId


class DayGroup(NamedTuple):
    """Sealed decisions that are counted together, by the day of the decision."""

    version: Position
    day: int
    group: str


class Earned(NamedTuple):
    """Sealed decisions and the sum of their final rewards."""

    decisions: int = 0
    reward: ExactSum = ZERO

    def plus(self, more: Earned) -> Earned:
        """Of both."""
        return Earned(self.decisions + more.decisions, self.reward + more.reward)

    @property
    def mean(self) -> float | None:
        """Of a decision."""
        return float(self.reward) / self.decisions if self.decisions else None


@dataclass(slots=True)
class DayTotals:
    """Of one day. actions: decisions of the policy's units. segments: the same by segment, of the newest days alone.
    earned: by group."""

    actions: Counter[str] = field(default_factory=Counter)
    segments: dict[str, Counter[str]] = field(default_factory=dict)
    earned: dict[str, Earned] = field(default_factory=dict)

    def add_decisions(self, segment: str, action: str, count: int) -> None:
        """More decisions."""
        self.actions[action] += count
        self.segments.setdefault(segment, Counter())[action] += count

    def bound(self) -> None:
        """Pour what has no name of its own into OTHER."""
        _pour(self.actions)
        rest = sorted(self.segments.keys() - {OTHER})[MOST_SEGMENTS:]
        for segment in rest:
            self.segments.setdefault(OTHER, Counter()).update(self.segments.pop(segment))
        for actions in self.segments.values():
            _pour(actions)

    def to_row(self, day: int) -> list[Any]:
        """As JSON."""
        earned = {group: [one.decisions, *one.reward.pair()] for group, one in self.earned.items()}
        return [day, self.actions, self.segments, earned]

    @classmethod
    def from_row(cls, row: Iterable[Any]) -> tuple[int, Self]:
        """The opposite of `to_row`. Raises ValueError, TypeError or AttributeError where it cannot be."""
        day, actions, segments, earned = row
        by_segment = {segment: Counter(counts) for segment, counts in segments.items()}
        by_group = {group: Earned(count, ExactSum.from_pair((a, b))) for group, (count, a, b) in earned.items()}
        return day, cls(Counter(actions), by_segment, by_group)


def _pour(actions: Counter[str]) -> None:
    for action in sorted(actions.keys() - {OTHER})[MOST_ACTIONS:]:
        actions[OTHER] += actions.pop(action)


DailyTotals = dict[int, DayTotals]
"""Of an experiment, by day."""


def add_days(
    daily: dict[str, DailyTotals],
    decisions: Mapping[DayCell, int],
    earned: Mapping[DayGroup, Earned],
    experiments: Mapping[Position, str],
) -> None:
    """What was counted between two marks, to what is known by experiment. experiments: of the versions."""
    changed: dict[str, set[int]] = {}

    def day_of_version(version: Position, day: int) -> DayTotals:
        experiment = experiments[version]
        changed.setdefault(experiment, set()).add(day)
        return daily.setdefault(experiment, {}).setdefault(day, DayTotals())

    for cell, count in decisions.items():
        day_of_version(cell.version, cell.day).add_decisions(cell.segment, cell.action, count)
    for key, more in earned.items():
        totals = day_of_version(key.version, key.day)
        totals.earned[key.group] = totals.earned.get(key.group, Earned()).plus(more)
    for experiment, touched in changed.items():
        _bound(daily[experiment], touched)


def _bound(days: DailyTotals, changed: Collection[int]) -> None:
    newest = sorted(days, reverse=True)
    for old in newest[MOST_DAYS:]:
        del days[old]
    for day in newest[SEGMENT_DAYS:MOST_DAYS]:
        days[day].segments.clear()
    for day in days.keys() & changed:
        days[day].bound()


def without_segments(daily: Mapping[str, DailyTotals]) -> dict[str, DailyTotals]:
    """What is the same when contexts are forgotten."""
    return {
        experiment: {day: replace(totals, segments={}) for day, totals in days.items()}
        for experiment, days in daily.items()
    }


def to_rows(daily: Mapping[str, DailyTotals]) -> list[Any]:
    """As JSON."""
    return [[experiment, [totals.to_row(day) for day, totals in days.items()]] for experiment, days in daily.items()]


def from_rows(rows: Iterable[Any]) -> dict[str, DailyTotals]:
    """The opposite of `to_rows`. Raises ValueError or TypeError where it cannot be."""
    try:
        return {experiment: dict(map(DayTotals.from_row, days)) for experiment, days in rows}
    except AttributeError as error:
        raise ValueError(f"damaged totals by day: {error}") from error
