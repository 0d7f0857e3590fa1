"""DeciderService: translates between messages and the domain. Domain code raises; `rpc.py` aborts. Called by gRPC."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from decider.decide.decide import decide, eligible_actions
from decider.decide.named_actions import MAX_SHOWN, SHOWN, inactive_actions
from decider.decide.slate import decide_slate, slot_id
from decider.errors import (
    AlreadyExists,
    DeciderError,
    FailedPrecondition,
    LogError,
)
from decider.experiment.definition import Experiment, ExperimentVersion
from decider.log.protocol import (
    Append,
    Awaited,
    Caller,
    LocateAll,
    LoggedDecision,
    LogReader,
    Mark,
    NewAssignment,
    NewSlate,
)
from decider.metrics.requests import RequestMetrics
from decider.policy.work import Budget
from decider.server import convert
from decider.server.feedback import Feedback, attempt
from decider.server.request_checks import RequestChecks
from decider.server.rpc import check_caller, to_status
from decider.serving.current import Current, Serving
from decider.types import (
    STICKY,
    ActionId,
    Decision,
    DecisionId,
    DecisionRequest,
    ExperimentId,
    Reason,
    Time,
    now,
)
from decider.v1 import decider_service_pb2 as pb


class _Answer(NamedTuple):
    """A decision with its version; `stored`: it was in the log before. ignored: ids of actions in the request that were
    left out. reason: of the answer, if not the decision's. assignment: of a new decision that its unit keeps."""

    decision: Decision
    version: ExperimentVersion
    stored: bool
    ignored: Sequence[ActionId] = ()
    reason: str | None = None
    assignment: NewAssignment | None = None


PATIENT = Caller(math.inf, lambda: True)
"""A caller that never gives up."""


class DeciderService(Feedback):
    """Handlers of the RPCs of the same names. budget: see `decide`. metrics: of what requests have that their
    experiment does not know. clock: the log's.

    caller: what its call decided is in the log only where it still waits when the commit begins. Rewards and
    activations are true whoever waits.
    """

    def __init__(
        self,
        current: Current,
        log: LogReader,
        *,
        append: Append,
        budget: Budget | None = None,
        locate_all: LocateAll | None = None,
        metrics: RequestMetrics | None = None,
        clock: Callable[[], Time] = now,
    ) -> None:
        super().__init__(current, log, append=append, locate_all=locate_all)
        self._budget = budget
        self._clock = clock
        self._replies = convert.Replies()
        self._checks = RequestChecks(metrics or RequestMetrics())

    def Decide(self, request: pb.DecideRequest, caller: Caller = PATIENT) -> pb.DecideResponse:
        """Choose, append, answer; a decision id that is in the log gets the stored decision."""
        chosen = self._choose(request)
        if not chosen.stored:
            (mark,) = self._append([Awaited(chosen.assignment or chosen.decision, caller)])
            chosen = self._confirm(request, chosen, mark, caller)
        reply = pb.DecideResponse()
        self._write(reply, chosen, request)
        return reply

    def _write(
        self, reply: pb.DecideResponse, chosen: _Answer, request: pb.DecideRequest | pb.DecideSlateRequest
    ) -> None:
        self._replies.write(
            reply,
            chosen.decision,
            chosen.version,
            with_ranking=request.with_ranking,
            called=request.actions if isinstance(request, pb.DecideRequest) else (),
            reason=chosen.reason,
        )
        if chosen.ignored:
            reply.ignored_actions.extend([id_[:MAX_SHOWN] for id_ in chosen.ignored[:SHOWN]])

    def DecideBatch(self, request: pb.DecideBatchRequest, caller: Caller = PATIENT) -> pb.DecideBatchResponse:
        """Choose all, append in one commit, answer each."""
        convert.check_batch(len(request.requests))
        chosen = [attempt(self._choose, message) for message in request.requests]
        new = [Awaited(c.assignment or c.decision, caller) for c in chosen if isinstance(c, _Answer) and not c.stored]
        marks = self._append(new)
        if None in marks:
            check_caller(caller)
        response, ahead = pb.DecideBatchResponse(), iter(marks)
        for message, choice in zip(request.requests, chosen, strict=True):
            self._add_result(response, message, choice, ahead, caller)
        return response

    def DecideSlate(self, request: pb.DecideSlateRequest, caller: Caller = PATIENT) -> pb.DecideSlateResponse:
        """Choose for each slot, append all in one commit, answer; a slate id in the log gets the stored slate."""
        stored = self._find_slate(request) if request.slate_id else ()
        slate_id, answers = (request.slate_id, stored) if stored else self._new_slate(request, caller)
        response = pb.DecideSlateResponse(slate_id=slate_id)
        for answer in answers:
            reply = response.decisions.add()
            self._write(reply, answer, request)
        return response

    def _new_slate(self, request: pb.DecideSlateRequest, caller: Caller) -> tuple[str, Sequence[_Answer]]:
        slate_id, slots = convert.slate_requests(request)
        version, model, cache = self._serving(request.experiment)
        if version.experiment.sticky:
            raise FailedPrecondition(
                f"experiment {request.experiment!r} is sticky, slates cannot be: send the session's id as slate_id",
                reason="EXPERIMENT_STICKY",
            )
        fit = [self._fit(version, slot) for slot in slots]
        decisions = decide_slate([slot for slot, _ in fit], version, model, cache, self._budget)
        (mark,) = self._append([Awaited(NewSlate(decisions), caller)])
        if mark is not None:
            both = zip(decisions, fit, strict=True)
            return slate_id, [_Answer(made, version, stored=False, ignored=ignored) for made, (_, ignored) in both]
        check_caller(caller)
        # The log refused it: another call with this id was quicker. Only what is in the log is ever answered.
        stored = self._find_slate(request)
        if not stored:
            raise LogError(f"slate {slate_id!r} was refused by the log and is not in it")
        return slate_id, stored

    def _find_slate(self, request: pb.DecideSlateRequest) -> Sequence[_Answer]:
        """The slate with this id; empty if there is none. Raises AlreadyExists if it belongs to another unit or
        experiment, has another number of slots, or if a slot leaves out its action."""
        wanted = [
            pb.DecideRequest(
                experiment=request.experiment,
                unit_id=request.unit_id,
                decision_id=slot_id(request.slate_id, place),
                eligible_actions=slot.eligible_actions,
                excluded_actions=slot.excluded_actions,
            )
            for place, slot in enumerate(request.slots)
        ]
        found = [answer for answer in map(self._find_stored, wanted) if answer is not None]
        beyond = self._log.locate(slot_id(request.slate_id, len(request.slots)))
        if (found or beyond) and (len(found) < len(wanted) or beyond):
            raise AlreadyExists(
                f"slate_id {request.slate_id!r} belongs to a slate with another number of slots; take a new id",
                reason="DECISION_ID_REUSED",
            )
        return found

    def _add_result(
        self,
        response: pb.DecideBatchResponse,
        request: pb.DecideRequest,
        chosen: _Answer | DeciderError,
        marks: Iterator[Mark | None],
        caller: Caller,
    ) -> None:
        try:
            if isinstance(chosen, DeciderError):
                raise chosen
            if not chosen.stored:
                chosen = self._confirm(request, chosen, next(marks), caller)
            self._write(response.results.add().response, chosen, request)
        except DeciderError as error:
            response.results.add(error=to_status(error))

    def _choose(self, request: pb.DecideRequest) -> _Answer:
        if request.decision_id:
            stored = self._find_stored(request)
            if stored is not None:
                return stored
        asked = convert.decision_request(request)
        version, model, slots = self._serving(request.experiment)
        asked, ignored = self._fit(version, asked)
        kept = self._kept(version, asked.unit_id, at=self._clock()) if version.experiment.sticky else None
        if kept is not None and kept.decision.action in eligible_actions(version, asked):
            return self._repeated(kept)._replace(ignored=ignored)
        made = decide(asked, version, model, slots, self._budget)
        new = _assignment(made, version.experiment, kept) if version.experiment.sticky else None
        return _Answer(made, version, stored=False, ignored=ignored, assignment=new)

    def _fit(self, version: ExperimentVersion, asked: DecisionRequest) -> tuple[DecisionRequest, Sequence[ActionId]]:
        """The request as the experiment takes it, and the ids of actions that it leaves out. Raises InvalidArgument,
        FailedPrecondition."""
        experiment = version.experiment
        if experiment.schema is not None:
            self._checks.check_features(experiment.id, experiment.schema, asked.context)
        if version.scheduled:
            asked = asked._replace(at=self._clock())
        if asked.eligible or asked.excluded or asked.action_features or asked.called:
            return self._checks.fit(version, asked)
        return asked, ()

    def _kept(self, version: ExperimentVersion, unit: str, *, at: Time) -> LoggedDecision | None:
        return self._log.assigned(version.experiment.id, unit, at=at)

    def _repeated(self, kept: LoggedDecision) -> _Answer:
        """The answer for a unit that keeps a decision."""
        return _Answer(kept.decision, self._log.version_at(kept.decision.version), stored=True, reason=STICKY)

    def _serving(self, experiment: str) -> Serving:
        """What decides for an experiment. Raises NotFound, FailedPrecondition."""
        serving = self._current[ExperimentId(experiment)]
        if serving[0].experiment.paused:
            raise FailedPrecondition(
                f"experiment {experiment!r} is paused; resume it with ResumeExperiment", reason="EXPERIMENT_PAUSED"
            )
        return serving

    def _confirm(self, request: pb.DecideRequest, chosen: _Answer, mark: Mark | None, caller: Caller) -> _Answer:
        """The decision to answer with after the commit. Raises GaveUp, and LogError if it is not in the log."""
        # No mark: the caller gave up before the commit, a unique key refused the id, or the unit keeps another decision
        # that a call wrote between `_choose` and the commit. Only what is in the log is ever answered.
        if mark is not None:
            return chosen
        check_caller(caller)
        stored = self._find_stored(request) if request.decision_id else None
        if stored is None and chosen.version.experiment.sticky:
            # At the start of time: it counted at the commit, and may have ended since.
            kept = self._kept(chosen.version, request.unit_id, at=Time(0))
            stored = self._repeated(kept) if kept else None
        if stored is None:
            raise LogError(f"decision {request.decision_id!r} was refused by the log and is not in it")
        return stored

    def _find_stored(self, request: pb.DecideRequest) -> _Answer | None:
        """The decision with this id, if there is one. Raises AlreadyExists if it belongs to another unit or experiment,
        or if the request excludes its action."""
        logged = self._log.find(DecisionId(request.decision_id))
        if logged is None:
            return None
        version = self._log.version_at(logged.decision.version)
        if (version.experiment.id, logged.decision.unit_id) != (request.experiment, request.unit_id):
            raise AlreadyExists(
                f"decision_id {request.decision_id!r} belongs to another unit or experiment; take a new id",
                reason="DECISION_ID_REUSED",
            )
        action, eligible = logged.decision.action, request.eligible_actions
        if (eligible and action not in eligible) or action in request.excluded_actions:
            raise AlreadyExists(
                f"decision_id {request.decision_id!r} has got the action {action!r}, which this request leaves out; "
                "take a new id",
                reason="DECISION_ID_REUSED",
            )
        return _Answer(logged.decision, version, stored=True, ignored=_ignored(request, logged.decision, version))


def _ignored(request: pb.DecideRequest, decision: Decision, version: ExperimentVersion) -> Sequence[ActionId]:
    """Of a call that is sent again: as in the first answer. Its other fields are not read."""
    brought = [*decision.eligible, *[action.id for action in request.actions]]
    named = [*request.eligible_actions, *request.excluded_actions, *sorted(request.action_features)]
    if not (named or request.actions):
        return ()
    return inactive_actions(version, map(ActionId, named), map(ActionId, brought))


def _assignment(made: Decision, experiment: Experiment, kept: LoggedDecision | None) -> NewAssignment | None:
    """That the unit keeps a decision; None where it shall not: a failure, or what was served without exploration."""
    if made.reason in (Reason.FALLBACK, Reason.NO_EXPLORATION):
        return None
    return NewAssignment(made, experiment.sticky, kept.position if kept else None)
