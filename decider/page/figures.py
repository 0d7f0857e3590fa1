"""What the page says of experiments, as plain data: of the log's totals, so it costs the same however long the log is.

Called by `page.py` while it holds the totals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from decider.estimate.cells import CellMean, cell_mean
from decider.estimate.exploration import ExplorationCost
from decider.estimate.lift import Lift
from decider.estimate.mean import Interval
from decider.log.cell_totals import INVERSE_UNIT, MOST_CELLS, Cells, CellSums
from decider.log.daily_totals import DailyTotals, DayTotals
from decider.log.lift_totals import LEARNED, StrataTotals
from decider.log.totals import LabelTotals
from decider.metrics.lift import exploration_cost, lift_of, lifts
from decider.types import ExperimentId, Position

WEEK_DAYS = 7

MOST_NAMES = 12
"""Names of rewards with a row."""


@dataclass(frozen=True, slots=True)
class Week:
    """What the policy's decisions of a week bring more, at the traffic of so many whole days; 0: there was none."""

    more: Interval
    days: int


@dataclass(frozen=True, slots=True)
class Brief:
    """What the list says of an experiment. lift: None without a holdout. exploration: None without draws."""

    lift: Lift | None
    week: Week | None
    exploration: ExplorationCost | None = None


@dataclass(frozen=True, slots=True)
class NamedLift:
    """Of one name of rewards."""

    name: str
    lift: Lift


@dataclass(frozen=True, slots=True)
class Segment:
    """Who gets what: decisions of the policy's units of one segment, by action."""

    name: str
    actions: Counter[str]

    @property
    def decisions(self) -> int:
        """All of them."""
        return self.actions.total()


@dataclass(frozen=True, slots=True)
class ActionMean:
    """What an action earns in a segment."""

    action: str
    mean: CellMean


Means = Mapping[str, Sequence[ActionMean]]
"""By segment."""


@dataclass(frozen=True, slots=True)
class Day:
    """One day, of the policy's units and of the holdout."""

    number: int
    totals: DayTotals


@dataclass(frozen=True, slots=True)
class Sheet:
    """What an experiment's own page says of it.

    names: of rewards, the first of those that hold together; left_out: how many more there are. spans: the versions
    with which the times began in which groups are compared, each within itself. days: rising. segments: of
    segment_days, those with most decisions first. means: estimates of all draws since the version means_since.
    """

    brief: Brief
    names: Sequence[NamedLift]
    left_out: int
    spans: Sequence[Position]
    days: Sequence[Day]
    segments: Sequence[Segment]
    segment_days: int
    means: Means
    means_since: Position | None


def brief(totals: LabelTotals, experiment: ExperimentId, *, today: int) -> Brief:
    """The answer alone. today: its number."""
    strata = totals.lift.get(experiment)
    cost = _exploration(totals.exploration.get(experiment, {}))
    if not strata:
        return Brief(None, None, cost)
    found = lift_of(strata, LEARNED)
    return Brief(found, _week(found, totals.daily.get(experiment, {}), today), cost)


def _exploration(measures: StrataTotals) -> ExplorationCost | None:
    """Of the newest measure."""
    return exploration_cost(measures[max(measures)]) if measures else None


def _week(found: Lift, daily: DailyTotals, today: int) -> Week | None:
    """Up to yesterday: today is not whole, and neither is the first day. Days without decisions count as such: who
    counted back from the last decision would promise traffic that is over."""
    if not found.is_known or not daily:
        return None
    whole = range(max(today - WEEK_DAYS, min(daily) + 1), today)
    if not whole:
        return None
    if not any(day in daily for day in whole):
        return Week(Interval(0.0, 0.0, 0.0), 0)
    often = sum([daily[day].actions.total() for day in whole if day in daily]) * WEEK_DAYS / len(whole)
    more = found.interval
    return Week(Interval(more.value * often, more.low * often, more.high * often), len(whole))


def sheet(totals: LabelTotals, experiment: ExperimentId, *, today: int) -> Sheet:
    """Everything."""
    strata = totals.lift.get(experiment, {})
    names = [NamedLift(name, found) for name, found in lifts(strata).items() if name != LEARNED]
    cells = totals.cells.get(experiment, {})
    days = [Day(number, day) for number, day in sorted(totals.daily.get(experiment, {}).items())]
    return Sheet(
        brief=brief(totals, experiment, today=today),
        names=names[:MOST_NAMES],
        left_out=len(names[MOST_NAMES:]),
        spans=sorted([stratum.first for stratum in strata]),
        days=days,
        segments=_segments(days),
        segment_days=len([day for day in days if day.totals.segments]),
        means=_means(cells),
        means_since=max([cell.measure for cell in cells], default=None),
    )


def _means(cells: Cells) -> Means:
    found: dict[str, list[ActionMean]] = {}
    for cell, sums in cells.items():
        found.setdefault(cell.segment, []).append(ActionMean(cell.action, mean_of(sums)))
    return found


def mean_of(sums: CellSums) -> CellMean:
    """Of one cell."""
    return cell_mean(
        np.array(sums.weights()),
        np.array(sums.rewards()),
        draws=sums.draws,
        probable=float(sums.probable),
        eligible=float(sums.eligible),
        inverse=sums.inverse * INVERSE_UNIT,
        cells=MOST_CELLS,
    )


def _segments(days: Sequence[Day]) -> Sequence[Segment]:
    found: dict[str, Counter[str]] = {}
    for day in days:
        for segment, actions in day.totals.segments.items():
            found.setdefault(segment, Counter()).update(actions)
    return sorted([Segment(*one) for one in found.items()], key=lambda one: (-one.decisions, one.name))


def by_frequency(counts: Sequence[Mapping[str, int]]) -> Sequence[str]:
    """The actions, the most frequent first."""
    together: Counter[str] = Counter()
    for one in counts:
        together.update(one)
    return [action for action, _ in sorted(together.items(), key=lambda item: (-item[1], item[0]))]
