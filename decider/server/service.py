"""DeciderService: translates between messages and the domain. Domain code raises; `rpc.py` aborts. Called by gRPC."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from decider.decide.decide import decide, eligible_actions
from decider.decide.named_actions import MAX_SHOWN, SHOWN, inactive_actions
from decider.decide.slate import decide_slate, slot_id
from decider.errors import (
    AlreadyExists,
    DeciderError,
    FailedPrecondition,
    InvalidArgument,
    LogError,
    NotFound,
    RewardOutOfRange,
    Violation,
)
from decider.experiment.checks import LARGEST_REWARD, is_id
from decider.experiment.definition import Experiment, ExperimentVersion, OutOfRange
from decider.experiment.unit_history import HistoryDefinition, Seen, check_call, history_features, with_history
from decider.log.protocol import (
    Append,
    Awaited,
    Caller,
    DecisionRef,
    EarlyActivation,
    Entry,
    LocateAll,
    LoggedDecision,
    LogReader,
    Mark,
    NewActivation,
    NewReward,
    NewRewardChange,
    NewSlate,
    Orphan,
    RefusedReward,
    UnitDecision,
)
from decider.metrics.requests import RequestMetrics
from decider.policy.work import Budget
from decider.server import convert
from decider.server.convert import SentChange, SentReward
from decider.server.request_checks import RequestChecks
from decider.server.rpc import check_caller, to_status
from decider.serving.current import Current, Serving
from decider.types import (
    START,
    STICKY,
    ActionId,
    ActivationOutcome,
    Decision,
    DecisionId,
    DecisionRequest,
    ExperimentId,
    Reason,
    RewardOutcome,
    Time,
    now,
)
from decider.v1 import decider_service_pb2 as pb

Request = TypeVar("Request")
Result = TypeVar("Result")


class _Answer(NamedTuple):
    """A decision with its version; `stored`: it was in the log before. ignored: ids of actions in the request that were
    left out. reason: of the answer, if not the decision's. unit: of a new decision, what it depends on of its unit."""

    decision: Decision
    version: ExperimentVersion
    stored: bool
    ignored: Sequence[ActionId] = ()
    reason: str | None = None
    unit: UnitDecision | None = None


class _Prepared(NamedTuple):
    """What is to be written of a reward that was sent. outcome: where it is new and in time."""

    entry: NewReward | NewRewardChange
    place: DecisionRef
    outcome: RewardOutcome


PATIENT = Caller(math.inf, lambda: True)
"""A caller that never gives up."""


class DeciderService:
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
        self._current = current
        self._log = log
        self._budget = budget
        self._append = append
        self._clock = clock
        self._locate_all = locate_all or log.locate_all
        self._replies = convert.Replies()
        self._checks = RequestChecks(metrics or RequestMetrics())

    def Decide(self, request: pb.DecideRequest, caller: Caller = PATIENT) -> pb.DecideResponse:
        """Choose, append, answer; a decision id that is in the log gets the stored decision."""
        chosen = self._choose(request)
        if not chosen.stored:
            (mark,) = self._append([Awaited(chosen.unit or chosen.decision, caller)])
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
        chosen = [_attempt(self._choose, message) for message in request.requests]
        new = [Awaited(c.unit or c.decision, caller) for c in chosen if isinstance(c, _Answer) and not c.stored]
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
        asked: Sequence[DecisionRequest] = [slot for slot, _ in fit]
        seen = None
        if version.experiment.history is not None:
            asked, seen = self._recall(version, version.experiment.history, asked)
        decisions = decide_slate(asked, version, model, cache, self._budget)
        (mark,) = self._append([Awaited(NewSlate(decisions, seen), caller)])
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
        seen = None
        if version.experiment.history is not None:
            (asked,), seen = self._recall(version, version.experiment.history, [asked])
        kept = self._kept(version, asked.unit_id, at=self._clock()) if version.experiment.sticky else None
        if kept is not None and kept.decision.action in eligible_actions(version, asked):
            return self._repeated(kept)._replace(ignored=ignored)
        made = decide(asked, version, model, slots, self._budget)
        new = _of_unit(made, version.experiment, kept, seen) if version.experiment.sticky or seen else None
        return _Answer(made, version, stored=False, ignored=ignored, unit=new)

    def _recall(
        self, version: ExperimentVersion, history: HistoryDefinition, asked: Sequence[DecisionRequest]
    ) -> tuple[Sequence[DecisionRequest], Seen]:
        """The requests of one unit with what it did before, and from what that was read. Raises InvalidArgument."""
        for one in asked:
            check_call(one.context)
        seen, past = self._log.unit_history(version.experiment.id, asked[0].unit_id, history, at=self._clock())
        known = history_features(history, past, seen.time)
        return [one._replace(context=with_history(one.context, known)) for one in asked], seen

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

    def Activate(self, request: pb.ActivateRequest) -> pb.ActivateResponse:
        """Append what was shown; only the first activation of a decision counts. One that comes before its decision is
        remembered: a caller that gave up need not know whether its call was committed."""
        id_ = DecisionId(convert.check_id("decision_id", request.decision_id))
        (place,) = self._locate_all([id_])
        slots = self._slots_of(id_) if place is None else []
        if slots:
            return self._activate_slate(request, slots)
        (mark,) = self._append([self._activation(id_, place, request.action)])
        if mark is not None and mark.position != START and place is None:  # decided between the look and the commit
            (place,) = self._locate_all([id_])
        return _activation_reply(self._activation_outcome(place, request.action, mark), first=mark is not None)

    def _activate_slate(self, request: pb.ActivateRequest, slots: Sequence[DecisionRef]) -> pb.ActivateResponse:
        """All of its slots."""
        if request.action:
            slot = slot_id(request.decision_id, 0)
            hint = f"{request.decision_id!r} is a slate; name the decision of the slot that showed it, like {slot!r}"
            raise InvalidArgument([Violation("action", hint)])
        marks = self._append([NewActivation(place.position) for place in slots])
        outcomes = [self._activation_outcome(place, "", mark) for place, mark in zip(slots, marks, strict=True)]
        return _activation_reply(_of_slate(outcomes, ActivationOutcome.DUPLICATE), first=any(marks))

    def _activation(self, id_: DecisionId, place: DecisionRef | None, action: str) -> Entry:
        if place is not None:
            return NewActivation(place.position, self._override(place, action))
        return EarlyActivation(id_, ActionId(convert.check_id("action", action)) if action else None)

    def _activation_outcome(self, place: DecisionRef | None, action: str, mark: Mark | None) -> ActivationOutcome:
        if place is None:
            return ActivationOutcome.REMEMBERED if mark else ActivationOutcome.DUPLICATE
        if self._is_late(place, mark):
            return ActivationOutcome.LATE
        if mark is None:
            return ActivationOutcome.DUPLICATE
        return ActivationOutcome.ACTIVATED if action in ("", place.action) else ActivationOutcome.OVERRIDDEN

    def _is_late(self, place: DecisionRef, mark: Mark | None) -> bool:
        """Whether the decision's window was over. mark: of what was said about it; None: it was refused."""
        if mark is None:
            return place.position <= self._log.cut().position
        return mark.time >= place.time + self._log.version_at(place.version).experiment.reward.window

    def _override(self, place: DecisionRef, action: str) -> ActionId | None:
        if action in ("", place.action):
            return None
        version = self._log.version_at(place.version)
        if action not in version.choices and not (version.experiment.most_actions and is_id(action)):
            raise NotFound(
                f"experiment {version.experiment.id!r} has no action {action!r}; it has {', '.join(version.choices)}",
                reason="ACTION_NOT_FOUND",
            )
        return ActionId(action)

    def Reward(self, request: pb.RewardRequest) -> pb.RewardResponse:
        """Append, answer with the outcome."""
        (reward,) = self._append_rewards([request])
        if isinstance(reward, DeciderError):
            raise reward
        return reward

    def RewardBatch(self, request: pb.RewardBatchRequest) -> pb.RewardBatchResponse:
        """Append all in one commit, answer each."""
        convert.check_batch(len(request.requests))
        results = [
            pb.RewardResult(error=to_status(reward))
            if isinstance(reward, DeciderError)
            else pb.RewardResult(response=reward)
            for reward in self._append_rewards(request.requests)
        ]
        return pb.RewardBatchResponse(results=results)

    def _append_rewards(self, requests: Sequence[pb.RewardRequest]) -> list[pb.RewardResponse | DeciderError]:
        """A reply or an error for each, after the commit."""
        sent = [_attempt(convert.sent_reward, request) for request in requests]
        places = iter(self._locate_all([one.decision_id for one in sent if not isinstance(one, DeciderError)]))
        prepared = [
            reward if isinstance(reward, DeciderError) else _attempt(self._prepare_all, (reward, next(places)))
            for reward in sent
        ]
        marks = iter(self._append(_entries(prepared, requests)))
        return [p if isinstance(p, DeciderError) else self._reply_to_all(p, marks) for p in prepared]

    def _prepare_all(self, found: tuple[SentReward | SentChange, DecisionRef | None]) -> list[_Prepared]:
        """For the decision that is named; for that of each slot where a slate is."""
        sent, place = found
        if place is not None:
            return [self._prepare(sent, place)]
        places = self._slots_of(sent.decision_id)
        if not places:
            raise NotFound(f"there is no decision {sent.decision_id!r}", reason="DECISION_NOT_FOUND")
        return [self._prepare(sent, place) for place in places]

    def _slots_of(self, slate: str) -> list[DecisionRef]:
        found = self._log.locate_all([slot_id(slate, place) for place in range(convert.MAX_SLOTS)])
        return [place for place in found if place is not None]

    def _reply_to_all(self, prepared: Sequence[_Prepared], marks: Iterator[Mark | None]) -> pb.RewardResponse:
        outcomes = [self._reward_outcome(one, next(marks)) for one in prepared]
        outcome = _of_slate(outcomes, RewardOutcome.DUPLICATE)
        return pb.RewardResponse(outcome=pb.RewardOutcome.Value(f"REWARD_OUTCOME_{outcome.name}"))

    def _prepare(self, sent: SentReward | SentChange, place: DecisionRef) -> _Prepared:
        if isinstance(sent, SentChange):
            return self._prepare_change(sent, place)
        version = self._log.version_at(place.version)
        weight = _weight(version, sent.name)
        inside = _check_value(version, sent.value, weight)
        entry = NewReward(place.position, sent.name, sent.value, weight, sent.reward_id, sent.occurred_at)
        return _Prepared(entry, place, RewardOutcome.JOINED if inside else RewardOutcome.CLIPPED)

    def _prepare_change(self, sent: SentChange, place: DecisionRef) -> _Prepared:
        """Under the name of the reward that is changed; under its own where that reward has not come yet."""
        version = self._log.version_at(place.version)
        reward = self._log.find_reward(place.position, sent.reward_id)
        name = sent.name or (reward.name if reward else convert.DEFAULT_REWARD_NAME)
        if reward and reward.name != name:
            raise InvalidArgument(
                [Violation("name", f"reward {sent.reward_id!r} was sent as {reward.name!r}; send that name, or none")]
            )
        weight = reward.weight if reward else _weight(version, name)
        if sent.value is not None:
            _check_value(version, sent.value, weight)
        entry = NewRewardChange(place.position, sent.reward_id, sent.value, name, weight, sent.occurred_at)
        outcome = RewardOutcome.RETRACTED if sent.value is None else RewardOutcome.CORRECTED
        return _Prepared(entry, place, outcome)

    def _reward_outcome(self, prepared: _Prepared, mark: Mark | None) -> RewardOutcome:
        if self._is_late(prepared.place, mark):
            return RewardOutcome.LATE
        return RewardOutcome.DUPLICATE if mark is None else prepared.outcome


def _ignored(request: pb.DecideRequest, decision: Decision, version: ExperimentVersion) -> Sequence[ActionId]:
    """Of a call that is sent again: as in the first answer. Its other fields are not read."""
    brought = [*decision.eligible, *[action.id for action in request.actions]]
    named = [*request.eligible_actions, *request.excluded_actions, *sorted(request.action_features)]
    if not (named or request.actions):
        return ()
    return inactive_actions(version, map(ActionId, named), map(ActionId, brought))


def _of_slate(outcomes: Sequence[Result], duplicate: Result) -> Result:
    """That of the first slot for which it is not a duplicate."""
    return next((one for one in outcomes if one != duplicate), duplicate)


def _of_unit(made: Decision, experiment: Experiment, kept: LoggedDecision | None, seen: Seen | None) -> UnitDecision:
    """A decision that its unit keeps, but not a failure, or what was served without exploration. seen: from what the
    unit's history was read."""
    if made.reason in (Reason.FALLBACK, Reason.NO_EXPLORATION):
        return UnitDecision(made, seen=seen)
    return UnitDecision(made, experiment.sticky, kept.position if kept else None, seen)


def _activation_reply(outcome: ActivationOutcome, *, first: bool) -> pb.ActivateResponse:
    return pb.ActivateResponse(first=first, outcome=pb.ActivationOutcome.Value(f"ACTIVATION_OUTCOME_{outcome.name}"))


def _entries(prepared: Sequence[list[_Prepared] | DeciderError], requests: Sequence[pb.RewardRequest]) -> list[Entry]:
    """The rewards and changes, then what is only counted: those without a decision, those that their experiment
    refuses."""
    entries: list[Entry] = [one.entry for group in prepared if isinstance(group, list) for one in group]
    refused = [(p, convert.reward_name(r)) for p, r in zip(prepared, requests, strict=True) if _is_counted(p)]
    entries += [Orphan(name) for error, name in refused if isinstance(error, NotFound)]
    return entries + [RefusedReward(name) for error, name in refused if isinstance(error, RewardOutOfRange)]


def _is_counted(prepared: list[_Prepared] | DeciderError) -> bool:
    return isinstance(prepared, NotFound | RewardOutOfRange)


def _attempt(prepare: Callable[[Request], Result], request: Request) -> Result | DeciderError:
    """One request of a batch: its error must not fail the others."""
    try:
        return prepare(request)
    except DeciderError as error:
        return error


def _weight(version: ExperimentVersion, name: str) -> float:
    """The weight of a reward's name. Raises InvalidArgument for an unknown name."""
    reward = version.experiment.reward
    if reward.weights and name not in reward.weights:
        known = ", ".join(reward.weights)
        raise InvalidArgument(
            [Violation("name", f"experiment {version.experiment.id!r} has no reward {name!r}; it has {known}")]
        )
    return reward.weights.get(name, 1.0)


def _check_value(version: ExperimentVersion, value: float, weight: float) -> bool:
    """Whether value x weight is in the experiment's range by itself. Raises InvalidArgument where it is beyond every
    range, RewardOutOfRange where it is outside and the experiment refuses that."""
    reward = version.experiment.reward
    if reward.holds(value * weight):
        return True
    if reward.out_of_range is OutOfRange.REFUSE:
        raise RewardOutOfRange(
            [
                Violation(
                    "value",
                    f"{value:g} x weight {weight:g} is not in the experiment's reward.range "
                    f"[{reward.minimum:g}, {reward.maximum:g}], and reward.out_of_range is refuse; send another value, "
                    "declare a wider range, or take out_of_range = clip",
                )
            ]
        )
    if not abs(value * weight) <= LARGEST_REWARD:
        problem = f"{value:g} x weight {weight:g} is not within +-{LARGEST_REWARD:g}; send a smaller value"
        raise InvalidArgument([Violation("value", problem)])
    return False
