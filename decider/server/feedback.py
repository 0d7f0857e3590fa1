"""What is said about decisions afterwards: rewards, their changes, what was shown. Called through `service.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from decider.decide.slate import slot_id
from decider.errors import DeciderError, InvalidArgument, NotFound, RewardOutOfRange, Violation
from decider.experiment.checks import LARGEST_REWARD, is_id
from decider.experiment.definition import ExperimentVersion, OutOfRange
from decider.log.protocol import (
    Append,
    DecisionRef,
    EarlyActivation,
    Entry,
    LocateAll,
    LogReader,
    Mark,
    NewActivation,
    NewReward,
    NewRewardChange,
    Orphan,
    RefusedReward,
)
from decider.server import convert
from decider.server.convert import SentChange, SentReward
from decider.server.rpc import to_status
from decider.types import START, ActionId, ActivationOutcome, DecisionId, RewardOutcome
from decider.v1 import decider_service_pb2 as pb

Request = TypeVar("Request")
Result = TypeVar("Result")


class _Prepared(NamedTuple):
    """What is to be written of a reward that was sent. outcome: where it is new and in time."""

    entry: NewReward | NewRewardChange
    place: DecisionRef
    outcome: RewardOutcome


class Feedback:
    """Handlers of the RPCs of the same names; a part of DeciderService."""

    def __init__(self, log: LogReader, *, append: Append, locate_all: LocateAll | None) -> None:
        self._log = log
        self._append = append
        self._locate_all = locate_all or log.locate_all

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
        sent = [attempt(convert.sent_reward, request) for request in requests]
        places = iter(self._locate_all([one.decision_id for one in sent if not isinstance(one, DeciderError)]))
        prepared = [
            reward if isinstance(reward, DeciderError) else attempt(self._prepare_all, (reward, next(places)))
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


def _of_slate(outcomes: Sequence[Result], duplicate: Result) -> Result:
    """That of the first slot for which it is not a duplicate."""
    return next((one for one in outcomes if one != duplicate), duplicate)


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


def attempt(prepare: Callable[[Request], Result], request: Request) -> Result | DeciderError:
    """One request of a batch: its error must not fail the others."""
    try:
        return prepare(request)
    except DeciderError as error:
        return error
