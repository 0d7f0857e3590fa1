"""What a log knows of a unit, from rows of its newest decisions with what became of them. Called by the readers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import attrgetter
from typing import Any

from decider.experiment.definition import ExperimentVersion
from decider.experiment.unit_history import PastDecision, PastReward
from decider.log.rows import row_type
from decider.types import Position, Time

ROW = row_type(
    "seen_after, seen_until, seen_time, position, time, version, action, channel, shown, activated, reward_position, "
    "reward_time, name, value, weight, closed_at"
)


def past_decisions(rows: Iterable[Any], version_at: Callable[[Position], ExperimentVersion]) -> Iterator[PastDecision]:
    """The decisions in rows with the columns of ROW, one or more for each; one without a position says that there is
    none. version_at: see LogReader."""
    for position, group in groupby(rows, key=attrgetter("position")):
        if position is not None:
            found = list(group)
            yield _past_decision(found, version_at(found[0].version))


def _past_decision(rows: list[Any], version: ExperimentVersion) -> PastDecision:
    first = rows[0]
    activated = bool(first.activated)
    return PastDecision(
        position=first.position,
        time=first.time,
        action=first.shown or first.action,
        channel=first.channel or "",
        activated=activated,
        counts=version.counts(activated=activated),
        deadline=Time(first.time + version.experiment.reward.window) if first.closed_at is None else first.closed_at,
        rewards=tuple(
            [
                PastReward(row.reward_position, row.reward_time, row.name, row.value, row.weight)
                for row in rows
                if row.value is not None
            ]
        ),
    )
