"""Columns of the known log as a log of ours in SQLite, as the server writes it. Called by `bench_evaluate.py`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from decider.decide.slots import SLOTS
from decider.experiment.definition import Experiment, ExperimentVersion
from decider.log.open import open_log
from decider.log.protocol import Entry, NewReward, NewVersion, Tick
from decider.types import ActionId, Decision, DecisionId, Position, Reason, Time
from simulator.logs.columns import Columns
from simulator.logs.contexts import Contexts
from simulator.studies.rivals.known import ACTIONS

TOGETHER = 200
"""Decisions of one commit; their rewards follow in the next one, a second later."""

SECOND = 1_000_000
ELIGIBLE = tuple(map(ActionId, ACTIONS))


class _Clock:
    """Log time."""

    def __init__(self) -> None:
        self.time = Time(SECOND)

    def __call__(self) -> Time:
        return self.time

    def advance(self, microseconds: int) -> None:
        self.time = Time(self.time + microseconds)


def write_log(log: Columns, experiment: Experiment, path: Path) -> None:
    """Every decision, its reward where there was one, and the end of the last window."""
    clock = _Clock()
    with closing(open_log(path, clock=clock)) as file:
        file.append([NewVersion(experiment, number=1)])
        version = file.versions()[0]
        for _, block in log.blocks():
            for start in range(0, len(block), TOGETHER):
                part = block.take(slice(start, start + TOGETHER))
                marks = file.append(list(_decisions(part, version)))
                clock.advance(SECOND)
                file.append(_rewards(part, [mark.position for mark in marks if mark]))
        clock.advance(experiment.reward.window)
        file.append([Tick()])


def _decisions(part: Columns, version: ExperimentVersion) -> Iterator[Decision]:
    facts = zip(
        Contexts().of(part),
        part.unit.tolist(),
        np.rint(part.dense_pmf() * SLOTS).astype(int).tolist(),
        part.action.tolist(),
        strict=True,
    )
    for context, unit, slots, action in facts:
        yield Decision(
            decision_id=DecisionId(f"decision-{unit:08}"),
            version=version.position,
            unit_id=f"visitor-{unit:08}",
            context=context,
            eligible=ELIGIBLE,
            action_features={},
            pmf=tuple(slots),
            action=ELIGIBLE[action],
            propensity=slots[action] / SLOTS,
            reason=Reason.EXPLOIT if slots[action] == max(slots) else Reason.EXPLORE,
            model=Position(0),
        )


def _rewards(part: Columns, positions: list[Position]) -> list[Entry]:
    return [
        NewReward(position, "click", 1.0) for position, reward in zip(positions, part.reward, strict=True) if reward
    ]
