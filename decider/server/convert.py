"""Messages <-> types, with all checks of a caller's input; errors name the field. Called by the two services."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from google.protobuf.struct_pb2 import Struct
from uuid_utils import uuid7

from decider.decide.slate import slot_id
from decider.decide.slots import SLOTS
from decider.errors import InvalidArgument, Violation
from decider.experiment.checks import LARGEST_REWARD, MAX_ACTIONS, payload_violation
from decider.experiment.definition import ExperimentVersion
from decider.experiment.features import read_features
from decider.experiment.ids import id_violation
from decider.experiment.schema import to_message
from decider.types import (
    CONTEXT_FIELDS,
    START,
    ActionId,
    CalledAction,
    Context,
    Decision,
    DecisionId,
    DecisionRequest,
    Features,
    Position,
    Time,
)
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_service_pb2 as experiment_pb

MAX_UNIT_ID = 256
MAX_KEY = 128
MAX_SLATE_ID = 120
"""So that the ids of its slots are not longer than MAX_KEY."""
MAX_SLOTS = 20
MAX_BATCH = 1000
DEFAULT_REWARD_NAME = "reward"

_RESERVED = ("id", "kind")
"""Names that a feature of an action may not have."""

_TEXT_RULE = "must have 1 to {} characters, none of them a control character"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_REASONS = {name.removeprefix("REASON_"): number for name, number in pb.Reason.items()}


def decision_request(message: pb.DecideRequest) -> DecisionRequest:
    """A checked request; without a decision id it gets a new uuid7. Raises InvalidArgument with every violation."""
    unit_id, decision_id = message.unit_id, message.decision_id
    violations: list[Violation] = []
    _check_text("unit_id", unit_id, MAX_UNIT_ID, violations)
    if decision_id:
        _check_text("decision_id", decision_id, MAX_KEY, violations)
    context = _context(message.context, violations)
    action_features = _action_features(message.action_features, violations)
    called = _called_actions(message.actions, violations) if message.actions else ()
    if violations:
        raise InvalidArgument(violations)
    return DecisionRequest(
        DecisionId(decision_id or str(uuid7())),
        unit_id,
        context,
        tuple(map(ActionId, message.eligible_actions)),
        tuple(map(ActionId, message.excluded_actions)),
        action_features,
        message.explore or not message.HasField("explore"),
        called,
        default=_default_action(message),
    )


def slate_requests(message: pb.DecideSlateRequest) -> tuple[str, list[DecisionRequest]]:
    """(slate id, a checked request for each slot); without a slate id it gets a new uuid7. Raises InvalidArgument with
    every violation."""
    unit_id, slate_id = message.unit_id, message.slate_id
    violations: list[Violation] = []
    _check_text("unit_id", unit_id, MAX_UNIT_ID, violations)
    if slate_id:
        _check_text("slate_id", slate_id, MAX_SLATE_ID, violations)
    if not 0 < len(message.slots) <= MAX_SLOTS:
        violations.append(Violation("slots", f"has {len(message.slots)} slots; 1 to {MAX_SLOTS} are possible"))
    context = _context(message.context, violations)
    action_features = _action_features(message.action_features, violations)
    called = _called_actions(message.actions, violations) if message.actions else ()
    contexts = [_slot_context(context, slot, f"slots[{place}]", violations) for place, slot in enumerate(message.slots)]
    if violations:
        raise InvalidArgument(violations)
    slate_id = slate_id or str(uuid7())
    explore = message.explore or not message.HasField("explore")
    return slate_id, [
        DecisionRequest(
            slot_id(slate_id, place),
            unit_id,
            of_slot,
            tuple(map(ActionId, slot.eligible_actions)),
            tuple(map(ActionId, slot.excluded_actions)),
            action_features,
            explore,
            called,
            default=_default_action(slot),
        )
        for place, (slot, of_slot) in enumerate(zip(message.slots, contexts, strict=True))
    ]


def _default_action(message: pb.DecideRequest | pb.Slot) -> ActionId | None:
    return ActionId(message.default_action) if message.default_action else None


def _slot_context(context: Context, slot: pb.Slot, field: str, violations: list[Violation]) -> Context:
    """The context with what is known about the place."""
    features, problems = read_features(
        slot.features, f"{field}.features", reserved=(*CONTEXT_FIELDS, *context.features)
    )
    violations.extend(problems)
    return context._replace(features={**context.features, **features}) if features else context


def _check_text(field: str, text: str, longest: int, violations: list[Violation]) -> None:
    if not 0 < len(text) <= longest or (not text.isprintable() and _CONTROL.search(text)):
        violations.append(Violation(field, _TEXT_RULE.format(longest)))


def _context(message: pb.Context, violations: list[Violation]) -> Context:
    fields = (message.segment, message.device, message.channel, message.location, message.intent_stage)
    if max(map(len, fields)) > MAX_UNIT_ID:
        violations.extend(
            Violation(f"context.{name}", f"is longer than {MAX_UNIT_ID} characters")
            for name, text in zip(CONTEXT_FIELDS, fields, strict=True)
            if len(text) > MAX_UNIT_ID
        )
    if not message.HasField("features"):
        return Context(*fields)
    features, problems = read_features(message.features, "context.features", reserved=CONTEXT_FIELDS)
    violations.extend(problems)
    return Context(*fields, features)


def _action_features(message: Mapping[str, Struct], violations: list[Violation]) -> dict[ActionId, Features]:
    features: dict[ActionId, Features] = {}
    for id_ in sorted(message) if message else ():
        known, problems = read_features(message[id_], f"action_features[{id_}]", reserved=_RESERVED)
        features[ActionId(id_)] = known
        if problems:
            violations += problems
    return features


def _called_actions(message: Sequence[pb.CalledAction], violations: list[Violation]) -> tuple[CalledAction, ...]:
    if len(message) > MAX_ACTIONS:  # before anything is read
        violations.append(Violation("actions", f"has {len(message)} actions; at most {MAX_ACTIONS} are possible"))
        return ()
    called: dict[str, CalledAction] = {}
    for index, action in enumerate(message):
        path = f"actions[{index}]"
        violations += [*id_violation(f"{path}.id", action.id), *payload_violation(f"{path}.payload", action.payload)]
        if action.kind:
            violations += id_violation(f"{path}.kind", action.kind)
        if action.id in called:
            violations.append(Violation(f"{path}.id", f"{action.id[:80]!r} is there twice"))
        features, problems = read_features(action.features, f"{path}.features", reserved=_RESERVED)
        violations += problems
        called[action.id] = CalledAction(ActionId(action.id), action.kind, features)
    return tuple(called.values())


REPLY_CACHE = 8_000_000
"""Bytes of the actions in the cache, about; then it is emptied: actions of old versions must not stay for ever."""

REPLY_BYTES, REPLY_FACTOR = 1_000, 4
"""Of an action beside its text; of a message for each byte that it takes on the wire, at most."""


class Replies:
    """Decisions -> replies. Caches the constant part of each action's reply, so that payloads are built once."""

    def __init__(self) -> None:
        self._actions: dict[tuple[int, ActionId], pb.DecidedAction] = {}
        self._bytes = 0

    def write(
        self,
        reply: pb.DecideResponse,
        decision: Decision,
        version: ExperimentVersion,
        *,
        with_ranking: bool,
        called: Iterable[pb.CalledAction] = (),
        reason: str | None = None,
    ) -> None:
        """The reply to a decision of this version, into an empty message: its own or its place in a batch's. reason: in
        place of the decision's."""
        # Set one by one: the same fields as arguments of a new message take three times as long.
        reply.action.CopyFrom(self._action(decision, version))
        if version.experiment.most_actions:
            _add_payload(reply.action, called)
        reply.decision_id = decision.decision_id
        reply.propensity = decision.propensity
        reply.reason = _REASONS[reason or decision.reason]
        reply.model = decision.model
        reply.experiment_version = version.number
        if with_ranking:
            reply.ranking.extend(_ranking(decision))

    def _action(self, decision: Decision, version: ExperimentVersion) -> pb.DecidedAction:
        id_ = decision.action
        key = (version.position, id_)
        known = self._actions.get(key)
        if known is None:
            if id_ not in version.active:
                return _called_action(decision, version)
            action = version.active[id_]
            payload = Struct()
            payload.update(action.payload)
            known = pb.DecidedAction(id=id_, kind=action.kind, payload=payload)
            self._keep(key, known)
        return known

    def _keep(self, key: tuple[int, ActionId], message: pb.DecidedAction) -> None:
        size = REPLY_BYTES + REPLY_FACTOR * message.ByteSize()
        if size > REPLY_CACHE:
            return
        self._bytes += size
        if self._bytes > REPLY_CACHE:
            self._actions.clear()
            self._bytes = size
        self._actions[key] = message


def _called_action(decision: Decision, version: ExperimentVersion) -> pb.DecidedAction:
    """Of an action that only its call knew."""
    (choice,) = version.choices_of((decision.action,), decision.action_features)
    return pb.DecidedAction(id=choice.id, kind=choice.kind)


def _add_payload(decided: pb.DecidedAction, called: Iterable[pb.CalledAction]) -> None:
    """What the call says wins."""
    for action in called:
        if action.id == decided.id and action.HasField("payload"):
            decided.payload.CopyFrom(action.payload)


def _ranking(decision: Decision) -> list[pb.RankedAction]:
    ranked = sorted(zip(decision.eligible, decision.pmf, strict=True), key=lambda pair: -pair[1])
    return [pb.RankedAction(action=action, propensity=slots / SLOTS) for action, slots in ranked]


class SentReward(NamedTuple):
    """A reward as it was sent, checked as far as that goes without its decision. It has a decision_id or a unit_id; the
    other one is empty. experiment: empty where none was named."""

    decision_id: DecisionId
    name: str
    value: float
    reward_id: str | None
    occurred_at: Time | None
    final: bool
    unit_id: str
    experiment: str


class SentChange(NamedTuple):
    """A correction or, without a value, a retraction. name: empty where none was given, it is that of the reward."""

    decision_id: DecisionId
    name: str
    value: float | None
    reward_id: str
    occurred_at: Time | None
    final: bool
    unit_id: str
    experiment: str


def sent_reward(message: pb.RewardRequest) -> SentReward | SentChange:
    """A checked reward, whose value is 1 if none was given; or a checked change of one. Raises InvalidArgument."""
    if message.retract or message.correct:
        return _sent_change(message)
    return SentReward(
        name=reward_name(message),
        value=_reward_value(message),
        reward_id=check_id("reward_id", message.reward_id) if message.reward_id else None,
        occurred_at=_occurrence_time(message),
        decision_id=_rewarded_decision(message),
        final=message.final,
        unit_id=message.unit_id,
        experiment=message.experiment,
    )


def _sent_change(message: pb.RewardRequest) -> SentChange:
    what = "retract" if message.retract else "correct"
    if message.retract and message.correct:
        raise InvalidArgument([Violation("correct", "stands beside retract; send one of the two")])
    if not message.reward_id:
        raise InvalidArgument([Violation("reward_id", f"is needed to {what}: the one that the reward was sent with")])
    if message.correct and not message.HasField("value"):
        raise InvalidArgument([Violation("value", "is needed to correct; to take it back send retract")])
    return SentChange(
        name=reward_name(message) if message.name else "",
        value=_reward_value(message) if message.correct else None,
        reward_id=check_id("reward_id", message.reward_id),
        occurred_at=_occurrence_time(message),
        decision_id=_rewarded_decision(message),
        final=message.final,
        unit_id=message.unit_id,
        experiment=message.experiment,
    )


def _rewarded_decision(message: pb.RewardRequest) -> DecisionId:
    """Empty where a unit is named in its place. Raises InvalidArgument."""
    if message.unit_id and message.decision_id:
        raise InvalidArgument([Violation("unit_id", "stands beside decision_id; send one of the two")])
    if message.unit_id:
        check_unit("unit_id", message.unit_id)
        return DecisionId("")
    if message.experiment:
        raise InvalidArgument([Violation("experiment", "is for rewards by unit_id alone; leave it out")])
    if not message.decision_id:
        raise InvalidArgument(
            [Violation("decision_id", _TEXT_RULE.format(MAX_KEY) + "; or send the unit_id of who did it")]
        )
    return DecisionId(check_id("decision_id", message.decision_id))


def check_unit(field: str, text: str) -> str:
    """The id of a unit. Raises InvalidArgument if it is missing or wrong."""
    violations: list[Violation] = []
    _check_text(field, text, MAX_UNIT_ID, violations)
    if violations:
        raise InvalidArgument(violations)
    return text


def reward_name(message: pb.RewardRequest) -> str:
    """The checked name."""
    name = message.name or DEFAULT_REWARD_NAME
    if not _NAME.fullmatch(name):
        raise InvalidArgument([Violation("name", f"{name[:80]!r} is not 1 to 64 letters, digits, '-', '_' or '.'")])
    return name


def _reward_value(message: pb.RewardRequest) -> float:
    """The checked value; 1 if none was given."""
    value = message.value if message.HasField("value") else 1.0
    if not abs(value) <= LARGEST_REWARD:
        raise InvalidArgument([Violation("value", f"{value} is not a finite number within +-{LARGEST_REWARD:g}")])
    return value


def check_id(field: str, text: str) -> str:
    """The id. Raises InvalidArgument if it is missing or wrong."""
    violations: list[Violation] = []
    _check_text(field, text, MAX_KEY, violations)
    if violations:
        raise InvalidArgument(violations)
    return text


def _occurrence_time(message: pb.RewardRequest) -> Time | None:
    """Microseconds since 1970; None if not given."""
    if not message.HasField("occurred_at"):
        return None
    try:
        message.occurred_at.ToJsonString()  # the one public check of a timestamp's range
    except ValueError as error:
        raise InvalidArgument([Violation("occurred_at", str(error))]) from error
    return Time(message.occurred_at.ToMicroseconds())


def check_batch(size: int) -> None:
    """Raises InvalidArgument for an empty or oversized batch."""
    if not 0 < size <= MAX_BATCH:
        raise InvalidArgument([Violation("requests", f"has {size} requests; 1 to {MAX_BATCH} are possible")])


def version_message(
    version: ExperimentVersion, *, model: Position = START, waiting: experiment_pb.WaitingVersion | None = None
) -> experiment_pb.VersionedExperiment:
    """The message of a version, the model that serves it, and the newer version that waits."""
    message = experiment_pb.VersionedExperiment(
        experiment=to_message(version.experiment), version=version.number, model=model, waiting=waiting
    )
    message.applied_at.FromMicroseconds(version.time)
    return message
