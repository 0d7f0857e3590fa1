"""DeciderService: translations between messages and the domain. Domain code raises; `door.py` aborts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from decider.decide import decide
from decider.errors import AlreadyExists, DeciderError, InvalidArgument, NotFound, Refused, Violation
from decider.experiment.definition import ExperimentVersion
from decider.log.protocol import Append, LoggedDecision, LogReader, Mark, NewActivation, NewReward, Orphan
from decider.running import Running
from decider.server import convert
from decider.server.door import to_status
from decider.types import ActionId, Decision, DecisionId, ExperimentId, RewardOutcome
from decider.v1 import decider_service_pb2 as pb

Request = TypeVar("Request")
Prepared = TypeVar("Prepared")


class DeciderService:
    """Handlers of the RPCs of the same names."""

    def __init__(self, running: Running, log: LogReader, *, append: Append) -> None:
        self._running = running
        self._log = log
        self._append = append
        self._reply = convert.Replies()
        self._versions: dict[int, ExperimentVersion] = {}

    def Decide(self, request: pb.DecideRequest) -> pb.DecideResponse:
        """Choose, append, answer."""
        decision, version = self._decide(request)
        (mark,) = self._append([decision])
        return self._decided(request, decision, version, mark)

    def DecideBatch(self, request: pb.DecideBatchRequest) -> pb.DecideBatchResponse:
        """Choose all, append in one commit, answer each."""
        convert.check_batch(len(request.requests))
        chosen = [_attempt(self._decide, r) for r in request.requests]
        marks = iter(self._append([c[0] for c in chosen if not isinstance(c, Exception)]))
        results = []
        for message, choice in zip(request.requests, chosen, strict=True):
            if isinstance(choice, Exception):
                results.append(pb.DecideResult(error=to_status(choice)))
            else:
                results.append(self._decide_result(message, *choice, next(marks)))
        return pb.DecideBatchResponse(results=results)

    def _decide_result(
        self, request: pb.DecideRequest, decision: Decision, version: ExperimentVersion, mark: Mark | None
    ) -> pb.DecideResult:
        try:
            return pb.DecideResult(response=self._decided(request, decision, version, mark))
        except DeciderError as error:
            return pb.DecideResult(error=to_status(error))

    def _decide(self, request: pb.DecideRequest) -> tuple[Decision, ExperimentVersion]:
        version, model = self._running[ExperimentId(request.experiment)]
        if version.experiment.paused:
            raise Refused(
                f"experiment {request.experiment!r} is paused; resume it with ResumeExperiment",
                reason="EXPERIMENT_PAUSED",
            )
        return decide(convert.decision_request(request), version, model), version

    def _decided(
        self, request: pb.DecideRequest, decision: Decision, version: ExperimentVersion, mark: Mark | None
    ) -> pb.DecideResponse:
        """The reply; to a decision id that was there before, the reply to the stored decision."""
        if mark is None:
            decision, version = self._stored(request)
        return self._reply(decision, version, with_ranking=request.with_ranking)

    def _stored(self, request: pb.DecideRequest) -> tuple[Decision, ExperimentVersion]:
        logged = self._found(request.decision_id)
        version = self._version(logged)
        if (version.experiment.id, logged.decision.unit_id) != (request.experiment, request.unit_id):
            raise AlreadyExists(
                f"decision_id {request.decision_id!r} belongs to another unit or experiment; take a new id",
                reason="DECISION_ID_REUSED",
            )
        return logged.decision, version

    def _version(self, logged: LoggedDecision) -> ExperimentVersion:
        position = logged.decision.version
        if position not in self._versions:
            self._versions = {v.position: v for v in self._log.versions()}
        return self._versions[position]

    def _found(self, decision_id: str) -> LoggedDecision:
        logged = self._log.find(DecisionId(convert.needed_id("decision_id", decision_id)))
        if logged is None:
            raise NotFound(f"there is no decision {decision_id!r}", reason="DECISION_NOT_FOUND")
        return logged

    def Activate(self, request: pb.ActivateRequest) -> pb.ActivateResponse:
        """Say what was shown; the first word counts."""
        logged = self._found(request.decision_id)
        (mark,) = self._append([NewActivation(logged.position, self._override(logged, request.action))])
        return pb.ActivateResponse(first=mark is not None)

    def _override(self, logged: LoggedDecision, action: str) -> ActionId | None:
        if action in ("", logged.decision.action):
            return None
        version = self._version(logged)
        if action not in version.lines:
            raise NotFound(
                f"experiment {version.experiment.id!r} has no action {action!r}; it has {', '.join(version.lines)}",
                reason="ACTION_NOT_FOUND",
            )
        return ActionId(action)

    def Reward(self, request: pb.RewardRequest) -> pb.RewardResponse:
        """Append, answer what became of it."""
        prepared = self._prepare_reward(request)
        (mark,) = self._append([prepared[0]])
        return self._rewarded(*prepared, mark)

    def RewardBatch(self, request: pb.RewardBatchRequest) -> pb.RewardBatchResponse:
        """Append all in one commit, answer each."""
        convert.check_batch(len(request.requests))
        prepared = [_attempt(self._prepare_reward, r) for r in request.requests]
        marks = iter(self._append([p[0] for p in prepared if not isinstance(p, Exception)]))
        results = [
            pb.RewardResult(error=to_status(p))
            if isinstance(p, Exception)
            else pb.RewardResult(response=self._rewarded(*p, next(marks)))
            for p in prepared
        ]
        return pb.RewardBatchResponse(results=results)

    def _prepare_reward(self, request: pb.RewardRequest) -> tuple[NewReward, LoggedDecision]:
        name, value = convert.reward_name(request), convert.reward_value(request)
        reward_id = convert.optional_key("reward_id", request.reward_id)
        occurred_at = convert.occurred_at(request)
        try:
            logged = self._found(request.decision_id)
        except NotFound:
            self._append([Orphan(name)])
            raise
        weight = _weight(self._version(logged), name, value)
        return NewReward(logged.position, name, value, weight, reward_id, occurred_at), logged

    def _rewarded(self, _: NewReward, logged: LoggedDecision, mark: Mark | None) -> pb.RewardResponse:
        if mark is None:
            outcome = RewardOutcome.DUPLICATE
        else:
            window = self._version(logged).experiment.reward.window
            outcome = RewardOutcome.JOINED if mark.time < logged.time + window else RewardOutcome.LATE
        return pb.RewardResponse(outcome=pb.RewardOutcome.Value(f"REWARD_OUTCOME_{outcome.name}"))


def _attempt(prepare: Callable[[Request], Prepared], request: Request) -> Prepared | DeciderError:
    """One request of a batch: its error is its own."""
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
