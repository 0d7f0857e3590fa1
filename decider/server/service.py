"""DeciderService: translates between messages and the domain. Domain code raises; `rpc.py` aborts. Called by gRPC."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from decider.decide.decide import decide, eligible_actions
from decider.decide.slate import decide_slate, slot_id
from decider.errors import (
    AlreadyExists,
    DeciderError,
    FailedPrecondition,
    InvalidArgument,
    LogError,
    NotFound,
    Violation,
)
from decider.experiment.definition import Experiment, ExperimentVersion
from decider.log.protocol import (
    Append,
    DecisionRef,
    Entry,
    LocateAll,
    LoggedDecision,
    LogReader,
    Mark,
    NewActivation,
    NewAssignment,
    NewDecision,
    NewReward,
    NewSlate,
    Orphan,
)
from decider.policy.work import Budget
from decider.server import convert
from decider.server.convert import SentReward
from decider.server.rpc import to_status
from decider.serving.current import Current, Serving
from decider.types import (
    STICKY,
    ActionId,
    Decision,
    DecisionId,
    DecisionRequest,
    ExperimentId,
    Position,
    Reason,
    RewardOutcome,
    Time,
    now,
)
from decider.v1 import decider_service_pb2 as pb

Request = TypeVar("Request")
Result = TypeVar("Result")


class _Answer(NamedTuple):
    """A decision with its version; `stored`: it was in the log before. reason: of the answer, if not the decision's.
    replaces: position of the decision that the unit kept until now."""

    decision: Decision
    version: ExperimentVersion
    stored: bool
    reason: str | None = None
    replaces: Position | None = None

    @property
    def entry(self) -> NewDecision:
        """What is appended."""
        experiment = self.version.experiment
        # A failure, and what was served without exploration, is not to be kept.
        if experiment.sticky and self.decision.reason not in (Reason.FALLBACK, Reason.NO_EXPLORATION):
            return NewAssignment(self.decision, experiment.sticky, self.replaces)
        return self.decision


class DeciderService:
    """Handlers of the RPCs of the same names. budget: see `decide`. clock: the log's."""

    def __init__(
        self,
        current: Current,
        log: LogReader,
        *,
        append: Append,
        budget: Budget | None = None,
        locate_all: LocateAll | None = None,
        clock: Callable[[], Time] = now,
    ) -> None:
        self._current = current
        self._log = log
        self._budget = budget
        self._append = append
        self._clock = clock
        self._locate_all = locate_all or log.locate_all
        self._replies = convert.Replies()

    def Decide(self, request: pb.DecideRequest) -> pb.DecideResponse:
        """Choose, append, answer; a decision id that is in the log gets the stored decision."""
        chosen = self._choose(request)
        if not chosen.stored:
            (mark,) = self._append([chosen.entry])
            chosen = self._confirm(request, chosen, mark)
        reply = pb.DecideResponse()
        self._write_reply(reply, chosen, with_ranking=request.with_ranking)
        return reply

    def _write_reply(self, reply: pb.DecideResponse, answer: _Answer, *, with_ranking: bool) -> None:
        self._replies.write(reply, answer.decision, answer.version, with_ranking=with_ranking, reason=answer.reason)

    def DecideBatch(self, request: pb.DecideBatchRequest) -> pb.DecideBatchResponse:
        """Choose all, append in one commit, answer each."""
        convert.check_batch(len(request.requests))
        chosen = [_attempt(self._choose, message) for message in request.requests]
        new = [c.entry for c in chosen if isinstance(c, _Answer) and not c.stored]
        marks = iter(self._append(new))
        response = pb.DecideBatchResponse()
        for message, choice in zip(request.requests, chosen, strict=True):
            self._add_result(response, message, choice, marks)
        return response

    def DecideSlate(self, request: pb.DecideSlateRequest) -> pb.DecideSlateResponse:
        """Choose for each slot, append all in one commit, answer; a slate id in the log gets the stored slate."""
        stored = self._find_slate(request) if request.slate_id else ()
        slate_id, answers = (request.slate_id, stored) if stored else self._new_slate(request)
        response = pb.DecideSlateResponse(slate_id=slate_id)
        for answer in answers:
            reply = response.decisions.add()
            self._write_reply(reply, answer, with_ranking=request.with_ranking)
        return response

    def _new_slate(self, request: pb.DecideSlateRequest) -> tuple[str, Sequence[_Answer]]:
        slate_id, slots = convert.slate_requests(request)
        version, model, cache = self._serving(request.experiment)
        if version.experiment.sticky:
            raise FailedPrecondition(
                f"experiment {request.experiment!r} is sticky, slates cannot be: send the session's id as slate_id",
                reason="EXPERIMENT_STICKY",
            )
        if version.scheduled:
            at = self._clock()
            slots = [slot._replace(at=at) for slot in slots]
        decisions = decide_slate(slots, version, model, cache, self._budget)
        (mark,) = self._append([NewSlate(decisions)])
        if mark is not None:
            return slate_id, [_Answer(decision, version, stored=False) for decision in decisions]
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
    ) -> None:
        try:
            if isinstance(chosen, DeciderError):
                raise chosen
            if not chosen.stored:
                chosen = self._confirm(request, chosen, next(marks))
            reply = response.results.add().response
            self._write_reply(reply, chosen, with_ranking=request.with_ranking)
        except DeciderError as error:
            response.results.add(error=to_status(error))

    def _choose(self, request: pb.DecideRequest) -> _Answer:
        if request.decision_id:
            stored = self._find_stored(request)
            if stored is not None:
                return stored
        asked = convert.decision_request(request)
        version, model, slots = self._serving(request.experiment)
        if version.scheduled:
            asked = asked._replace(at=self._clock())
        kept = self._kept(asked, version.experiment) if version.experiment.sticky else None
        if kept is not None and kept.decision.action in eligible_actions(version, asked):
            return self._repeated(kept)
        made = decide(asked, version, model, slots, self._budget)
        return _Answer(made, version, stored=False, replaces=kept.position if kept else None)

    def _kept(self, asked: DecisionRequest, experiment: Experiment) -> LoggedDecision | None:
        return self._log.assigned(experiment.id, asked.unit_id, at=self._clock())

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

    def _confirm(self, request: pb.DecideRequest, chosen: _Answer, mark: Mark | None) -> _Answer:
        """The decision to answer with after the commit. Raises LogError if it is not in the log."""
        # No mark: a unique key refused the id, or the unit keeps another decision, since another call wrote it between
        # `_choose` and the commit. Only what is in the log is ever answered.
        if mark is not None:
            return chosen
        stored = self._find_stored(request) if request.decision_id else None
        if stored is None and chosen.version.experiment.sticky:
            # At the start of time: it counted at the commit, and may have ended since.
            kept = self._log.assigned(chosen.version.experiment.id, request.unit_id, at=Time(0))
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
        return _Answer(logged.decision, version, stored=True)

    def Activate(self, request: pb.ActivateRequest) -> pb.ActivateResponse:
        """Append what was shown; only the first activation of a decision counts."""
        (found,) = self._locate_all([DecisionId(convert.check_id("decision_id", request.decision_id))])
        place = _existing(found, request.decision_id)
        (mark,) = self._append([NewActivation(place.position, self._override(place, request.action))])
        return pb.ActivateResponse(first=mark is not None)

    def _override(self, place: DecisionRef, action: str) -> ActionId | None:
        if action in ("", place.action):
            return None
        version = self._log.version_at(place.version)
        if action not in version.choices:
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
        places = iter(self._locate_all([reward.decision_id for reward in sent if isinstance(reward, SentReward)]))
        prepared = [
            reward if isinstance(reward, DeciderError) else _attempt(self._prepare_reward, (reward, next(places)))
            for reward in sent
        ]
        marks = iter(self._append(_entries(prepared, requests)))
        return [p if isinstance(p, DeciderError) else self._reward_reply(p[1], next(marks)) for p in prepared]

    def _prepare_reward(self, found: tuple[SentReward, DecisionRef | None]) -> tuple[NewReward, DecisionRef]:
        sent, place = found[0], _existing(found[1], found[0].decision_id)
        weight = _weight(self._log.version_at(place.version), sent.name, sent.value)
        return NewReward(place.position, sent.name, sent.value, weight, sent.reward_id, sent.occurred_at), place

    def _reward_reply(self, place: DecisionRef, mark: Mark | None) -> pb.RewardResponse:
        if mark is None:
            archived = place.position <= self._log.cut().position
            outcome = RewardOutcome.LATE if archived else RewardOutcome.DUPLICATE
        else:
            window = self._log.version_at(place.version).experiment.reward.window
            outcome = RewardOutcome.JOINED if mark.time < place.time + window else RewardOutcome.LATE
        return pb.RewardResponse(outcome=pb.RewardOutcome.Value(f"REWARD_OUTCOME_{outcome.name}"))


def _existing(place: DecisionRef | None, decision_id: str) -> DecisionRef:
    """Raises NotFound where there is none."""
    if place is None:
        raise NotFound(f"there is no decision {decision_id!r}", reason="DECISION_NOT_FOUND")
    return place


def _entries(
    prepared: Sequence[tuple[NewReward, DecisionRef] | DeciderError], requests: Sequence[pb.RewardRequest]
) -> list[Entry]:
    """The rewards, then an Orphan for every reward without a decision."""
    rewards: list[Entry] = [p[0] for p in prepared if not isinstance(p, DeciderError)]
    orphans = [r for p, r in zip(prepared, requests, strict=True) if isinstance(p, NotFound)]
    return rewards + [Orphan(convert.reward_name(r)) for r in orphans]


def _attempt(prepare: Callable[[Request], Result], request: Request) -> Result | DeciderError:
    """One request of a batch: its error must not fail the others."""
    try:
        return prepare(request)
    except DeciderError as error:
        return error


def _weight(version: ExperimentVersion, name: str, value: float) -> float:
    """The weight of a reward's name. Raises InvalidArgument for an unknown name or a value out of the range."""
    reward = version.experiment.reward
    if reward.weights and name not in reward.weights:
        known = ", ".join(reward.weights)
        raise InvalidArgument(
            [Violation("name", f"experiment {version.experiment.id!r} has no reward {name!r}; it has {known}")]
        )
    weight = reward.weights.get(name, 1.0)
    if not reward.minimum <= value * weight <= reward.maximum:
        raise InvalidArgument(
            [
                Violation(
                    "value",
                    f"{value:g} x weight {weight:g} is not in the experiment's reward.range "
                    f"[{reward.minimum:g}, {reward.maximum:g}]; send another value or declare a wider range",
                )
            ]
        )
    return weight
