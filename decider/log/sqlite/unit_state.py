"""What a decision depends on of its unit, looked at and written inside its transaction. Called by `writer.py`.

Nobody else writes meanwhile: what holds here holds at the decision's own position.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from decider.log.exposures import ShownDecision, are_reached, exposure
from decider.log.protocol import Mark, NewActivation, UnitDecision
from decider.log.sqlite.assignments import assign, end_assignment, kept_decision
from decider.log.sqlite.exposures import VersionAt, counts, open_decision, put, take_out
from decider.types import ExperimentId, Position, Time


class UnitState:
    """Of the units of a log, in its writer's open transaction."""

    def __init__(self, writer: sqlite3.Connection, version_at: VersionAt) -> None:
        self._writer = writer
        self._version_at = version_at

    def has_any(self, new: UnitDecision) -> bool:
        """Whether the decision depends on its unit, or others will on it."""
        return bool(new.keep) or self._version_at(new.decision.version).limits is not None

    def is_current(self, new: Sequence[UnitDecision], at: Time) -> bool:
        """Whether what decisions of a unit depend on is still so, where they are written next, in this order."""
        return all(self._may_keep(one, at) for one in new if one.keep) and self._are_reached(new, at)

    def _may_keep(self, new: UnitDecision, at: Time) -> bool:
        kept = kept_decision(self._writer, self._experiment(new), new.decision.unit_id, at)
        return kept in (None, new.replaces)

    def _are_reached(self, new: Sequence[UnitDecision], at: Time) -> bool:
        version = self._version_at(new[0].decision.version)
        if version.limits is None or all(one.reached is None for one in new):
            return True
        before = counts(self._writer, version, new[0].decision.unit_id, at)
        return are_reached(version, [(one.decision, one.reached) for one in new], before)

    def note(self, new: UnitDecision, mark: Mark) -> None:
        """What follows from the decision, which is written there; before its activation can be."""
        if new.keep:
            until = Time(mark.time + new.keep)
            assign(self._writer, self._experiment(new), new.decision.unit_id, until=until, decision=mark.position)
        version = self._version_at(new.decision.version)
        if version.limits is not None:
            one = new.decision
            shown = ShownDecision(*mark, version, one.unit_id, one.action, one.action_features)
            put(self._writer, exposure(shown))

    def note_override(self, activation: NewActivation, at: Time) -> None:
        """Another action than the drawn one was shown: that one counts, where nothing has closed the decision. In any
        case the unit keeps the drawn one no longer, since it has not seen it."""
        end_assignment(self._writer, activation.decision)
        shown = open_decision(self._writer, activation.decision, self._version_at)
        if shown is not None and at < shown.deadline:
            take_out(self._writer, shown.position)
            put(self._writer, exposure(shown, activation.action, activated=True))

    def note_seal(self, decision: Position) -> None:
        """A final reward has closed the decision: a unit that kept it could not be rewarded any more."""
        end_assignment(self._writer, decision)

    def _experiment(self, new: UnitDecision) -> ExperimentId:
        return self._version_at(new.decision.version).experiment.id
