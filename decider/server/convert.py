"""Messages <-> types, and every check of what a caller may send. Bad input stops here, with the field's name."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from google.protobuf.struct_pb2 import Struct
from uuid_utils import uuid7

from decider.errors import InvalidArgument, Violation
from decider.experiment.definition import ExperimentVersion
from decider.experiment.features import feature_violations, to_features
from decider.experiment.schema import to_message
from decider.policy.sampler import SLOTS
from decider.running import Serving
from decider.types import CONTEXT_FIELDS, ActionId, Context, Decision, DecisionId, DecisionRequest, Features, Time
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_service_pb2 as experiment_pb

MAX_UNIT_ID = 256
MAX_KEY = 128
MAX_BATCH = 1000
DEFAULT_REWARD_NAME = "reward"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_REASONS = {name.removeprefix("REASON_"): number for name, number in pb.Reason.items()}


def decision_request(message: pb.DecideRequest) -> DecisionRequest:
    """A checked request; without a decision id it gets a new uuid7. Raises InvalidArgument with every violation."""
    context = message.context
    extra = message.action_features
    violations = [
        *_text_violations("unit_id", message.unit_id, MAX_UNIT_ID),
        *(_text_violations("decision_id", message.decision_id, MAX_KEY) if message.decision_id else ()),
        *_context_violations(context),
        *(
            v
            for id_ in extra
            for v in feature_violations(extra[id_], f"action_features[{id_}]", reserved=("id", "kind"))
        ),
    ]
    if violations:
        raise InvalidArgument(violations)
    return DecisionRequest(
        decision_id=DecisionId(message.decision_id or str(uuid7())),
        unit_id=message.unit_id,
        context=Context(
            context.segment,
            context.device,
            context.channel,
            context.location,
            context.intent_stage,
            to_features(context.features) if context.HasField("features") else {},
        ),
        eligible=tuple(map(ActionId, message.eligible_actions)),
        excluded=tuple(map(ActionId, message.excluded_actions)),
        action_features=_action_features(extra) if extra else {},
        explore=message.explore or not message.HasField("explore"),
    )


def _action_features(extra: Mapping[str, Struct]) -> dict[ActionId, Features]:
    return {ActionId(id_): to_features(extra[id_]) for id_ in sorted(extra)}


def _text_violations(field: str, text: str, longest: int) -> tuple[Violation, ...]:
    if not 0 < len(text) <= longest or _CONTROL.search(text):
        return (Violation(field, f"must have 1 to {longest} characters, none of them a control character"),)
    return ()


def _context_violations(context: pb.Context) -> list[Violation]:
    violations = [
        Violation(f"context.{name}", f"is longer than {MAX_UNIT_ID} characters")
        for name in CONTEXT_FIELDS
        if len(getattr(context, name)) > MAX_UNIT_ID
    ]
    if context.HasField("features"):
        violations.extend(feature_violations(context.features, "context.features", reserved=CONTEXT_FIELDS))
    return violations


class Replies:
    """Decisions -> replies. Keeps the constant part of each action's reply, so that payloads are built once."""

    def __init__(self) -> None:
        self._actions: dict[tuple[int, ActionId], pb.DecidedAction] = {}

    def __call__(self, decision: Decision, version: ExperimentVersion, *, with_ranking: bool) -> pb.DecideResponse:
        """The reply to a decision of this version."""
        return pb.DecideResponse(
            decision_id=decision.decision_id,
            action=self._action(decision.action, version),
            propensity=decision.propensity,
            reason=_REASONS[decision.reason],
            model=decision.model,
            experiment_version=version.number,
            ranking=_ranking(decision) if with_ranking else None,
        )

    def _action(self, id_: ActionId, version: ExperimentVersion) -> pb.DecidedAction:
        key = (version.position, id_)
        if key not in self._actions:
            action = version.active[id_]
            payload = Struct()
            payload.update(action.payload)
            self._actions[key] = pb.DecidedAction(id=id_, kind=action.kind, payload=payload)
        return self._actions[key]


def _ranking(decision: Decision) -> list[pb.RankedAction]:
    ranked = sorted(zip(decision.eligible, decision.pmf, strict=True), key=lambda pair: -pair[1])
    return [pb.RankedAction(action=action, propensity=slots / SLOTS) for action, slots in ranked]


def reward_name(message: pb.RewardRequest) -> str:
    """The checked name."""
    name = message.name or DEFAULT_REWARD_NAME
    if not _NAME.fullmatch(name):
        raise InvalidArgument([Violation("name", f"{name[:80]!r} is not 1 to 64 letters, digits, '-', '_' or '.'")])
    return name


def reward_value(message: pb.RewardRequest) -> float:
    """The checked value; 1 if none was given."""
    value = message.value if message.HasField("value") else 1.0
    if not math.isfinite(value):
        raise InvalidArgument([Violation("value", f"{value} is not a finite number")])
    return value


def optional_key(field: str, key: str) -> str | None:
    """A checked idempotency key; None if none was given."""
    violations = _text_violations(field, key, MAX_KEY) if key else ()
    if violations:
        raise InvalidArgument(violations)
    return key or None


def needed_id(field: str, text: str) -> str:
    """A checked id that must be there."""
    violations = _text_violations(field, text, MAX_KEY)
    if violations:
        raise InvalidArgument(violations)
    return text


def occurred_at(message: pb.RewardRequest) -> Time | None:
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


def versioned(serving: Serving) -> experiment_pb.VersionedExperiment:
    """A running experiment with its version and model."""
    version = serving.version
    message = experiment_pb.VersionedExperiment(
        experiment=to_message(version.experiment), version=version.number, model=serving.model.position
    )
    message.applied_at.FromMicroseconds(version.time)
    return message
