"""Recompute every decision of a log with the code that serves, and compare. Called by `simulator verify`.

The models are not trusted either: a trainer learns the log from its beginning and stops at every position that a
decision names as its model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from decider.decide.decide import decide
from decider.errors import DeciderError
from decider.experiment.definition import ExperimentVersion
from decider.learn.trainer import Trainer
from decider.log.protocol import LoggedDecision, LogReader, Mark
from decider.policy.make import make_policy
from decider.policy.protocol import Model
from decider.types import START, Decision, DecisionRequest, ExperimentId, Position, Reason


@dataclass(frozen=True, slots=True)
class Difference:
    """A decision that was recomputed otherwise; the names of the fields that differ, or the error."""

    logged: LoggedDecision
    recomputed: Decision | None
    what: str


@dataclass(frozen=True, slots=True)
class Verification:
    """first: the difference with the lowest position."""

    decisions: int
    equal: int
    first: Difference | None


class ImportedLog(DeciderError):
    """Another system drew these decisions: there is nothing that could be recomputed."""

    reason = "IMPORTED_LOG"


def refuse_imported(log: LogReader) -> None:
    """Raises ImportedLog for what `simulator import` made."""
    for build in log.builds().values():
        source = build.get("imported_from")
        if source is not None:
            raise ImportedLog(f"{log.name}: was imported from {source}; what another system drew cannot be recomputed")


def verify(log: LogReader, *, on_decision: Callable[[], None] = lambda: None) -> Verification:
    """Recompute everything; `on_decision` is called after each."""
    models = _Models(log)
    decisions = equal = 0
    first: Difference | None = None
    versions = {version.position: version for version in log.versions()}
    for position in log.decided_versions():
        for logged in log.decisions(position):
            difference = _compare(logged, versions.get(position), models)
            decisions += 1
            equal += difference is None
            if difference and (first is None or logged.position < first.logged.position):
                first = difference
            on_decision()
    return Verification(decisions, equal, first)


def _compare(logged: LoggedDecision, version: ExperimentVersion | None, models: _Models) -> Difference | None:
    if version is None:
        return Difference(logged, None, f"version: there is none at position {logged.decision.version}")
    if not models.published(version, logged.decision.model):
        return Difference(logged, None, f"model: none was published at position {logged.decision.model}")
    try:
        recomputed = decide(_request(logged.decision, version), version, models.at(version, logged.decision.model))
    except DeciderError as error:
        return Difference(logged, None, f"{type(error).__name__}: {error}")
    if recomputed == logged.decision:
        return None
    names = [n for n in Decision._fields if getattr(recomputed, n) != getattr(logged.decision, n)]
    return Difference(logged, recomputed, ", ".join(names))


def _request(decision: Decision, version: ExperimentVersion) -> DecisionRequest:
    """The request that led to a decision. Where a rule decided, `explore` made no difference."""
    return DecisionRequest(
        decision_id=decision.decision_id,
        unit_id=decision.unit_id,
        context=decision.context,
        eligible=() if decision.eligible == version.all_active else decision.eligible,
        action_features=decision.action_features,
        explore=decision.reason != Reason.NO_EXPLORATION,
    )


class _Models:
    """Models by name. Asked in rising order of position it learns the log once for each policy spec."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._trainers: dict[tuple[ExperimentId, str], Trainer] = {}
        self._models: dict[tuple[ExperimentId, str], tuple[Position, Model]] = {}
        self._published: dict[tuple[ExperimentId, str], set[Position]] = {}

    def published(self, version: ExperimentVersion, position: Position) -> bool:
        """Whether the log's file says that there was such a model."""
        experiment, signature = version.experiment.id, version.experiment.policy.signature
        key = (experiment, signature)
        if key not in self._published:
            self._published[key] = {START, *self._log.models.published(experiment, signature)}
        return position in self._published[key]

    def at(self, version: ExperimentVersion, position: Position) -> Model:
        """The policy as it was after learning the log up to this position."""
        spec = version.experiment.policy
        key = (version.experiment.id, spec.signature)
        known = self._models.get(key)
        if known is not None and known[0] == position:
            return known[1]
        if not spec.learns:
            model = Model(make_policy(spec))
        else:
            if known is None or known[0] > position:
                self._trainers[key] = Trainer(self._log, version.experiment.id, spec)
            trainer = self._trainers[key]
            if position > START:
                trainer.learn_up_to(Mark(position, self._log.time_at(position)))
            model = Model(trainer.model().policy, position)
        self._models[key] = (position, model)
        return model
