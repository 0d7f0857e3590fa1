"""What a decision depends on of its unit, looked at and written inside its transaction. Called by `writer.py`.

Nobody else writes meanwhile: what holds here holds at the decision's own position.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from decider.experiment.definition import ExperimentVersion
from decider.log.protocol import Mark, UnitDecision
from decider.log.sqlite.assignments import assign, kept_decision
from decider.types import ExperimentId, Position, Time


class UnitState:
    """Of the units of a log, in its writer's open transaction."""

    def __init__(self, writer: sqlite3.Connection, version_at: Callable[[Position], ExperimentVersion]) -> None:
        self._writer = writer
        self._version_at = version_at

    def is_current(self, new: UnitDecision, at: Time) -> bool:
        """Whether what the decision depends on is still so, where it is written next."""
        return not new.keep or self._may_keep(new, at)

    def _may_keep(self, new: UnitDecision, at: Time) -> bool:
        kept = kept_decision(self._writer, self._experiment(new), new.decision.unit_id, at)
        return kept in (None, new.replaces)

    def note(self, new: UnitDecision, mark: Mark) -> None:
        """What follows from the decision, which was written there."""
        if new.keep:
            until = Time(mark.time + new.keep)
            assign(self._writer, self._experiment(new), new.decision.unit_id, until=until, decision=mark.position)

    def _experiment(self, new: UnitDecision) -> ExperimentId:
        return self._version_at(new.decision.version).experiment.id
