"""What of a log cannot be recomputed: what `decider forget` has removed, and what another system drew. Called by
`explain.py`, `simulator verify` and `simulator agreement`.
"""

from __future__ import annotations

from collections.abc import Mapping

from decider.experiment.definition import ExperimentVersion
from decider.log.protocol import LoggedDecision, LogReader
from decider.types import START, Decision, ExperimentId, Position, Time


def find_version(log: LogReader, position: Position) -> ExperimentVersion | None:
    """The version applied there; None in a damaged log that has none."""
    try:
        return log.version_at(position)
    except KeyError:
        return None


def sources(log: LogReader) -> Mapping[Position, str]:
    """What `simulator import` wrote, by the position of its build: where that came from. No model of ours made it."""
    return {
        position: str(build["imported_from"]) for position, build in log.builds().items() if "imported_from" in build
    }


class Gaps:
    """What cannot be recomputed, since `decider forget` removed what it was computed from.

    decisions: positions of those of forgotten units. Raises LogCorrupt where the log's entries about that are damaged.
    """

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._head = Position(-1)
        self.read_news()

    def read_news(self) -> None:
        """Read the log again where it has grown."""
        head = self._log.head().position
        if head == self._head:
            return
        self._head = head
        made = self._log.removals()
        self.decisions = {position for removal in made for position in removal.decisions}
        self._sealed: dict[ExperimentId, Time] = {}
        for removal in made:
            for id_, time in removal.sealed.items():
                self._sealed[id_] = min(self._sealed.get(id_, time), time)

    def has(self, logged: LoggedDecision) -> bool:
        """Whether a decision cannot be recomputed."""
        return logged.position in self.decisions or self.has_learned(logged.decision)

    def has_learned(self, decision: Decision) -> bool:
        """Whether the decision's model has learned from contexts that are gone."""
        if not self._sealed or decision.model == START:
            return False
        version = find_version(self._log, decision.version)
        if version is None or not version.experiment.policy.learns:
            return False
        return self.has_learned_before(version.experiment.id, decision.model)

    def has_learned_before(self, experiment: ExperimentId, model: Position) -> bool:
        """Whether an experiment's model up to a position has learned from contexts that are gone."""
        sealed = self._sealed.get(experiment)
        return sealed is not None and sealed <= self._log.time_at(model)
