"""The Experiment proto message <-> the frozen types; TOML and JSON through protobuf's own mapping.

There is one schema: the message. This module fills in defaults, checks, and names every wrong field. What it writes is
complete, so that a log replays the same under a release with other defaults. Called by the doors, the log's readers
and the experiment files.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from decider.errors import InvalidExperiment, Violation
from decider.experiment.definition import Action, Aggregation, Experiment, RewardDefinition
from decider.experiment.features import feature_violations, to_features
from decider.policy.spec import ALGORITHMS, DEFAULT_ALGORITHM, DEFAULT_INTERACTIONS, PolicySpec
from decider.types import ActionId, ExperimentId
from decider.v1 import experiment_pb2 as pb

MAX_ACTIONS = 1000
MICROSECONDS = 1_000_000
SHORTEST_WINDOW, LONGEST_WINDOW = 1_000, 90 * 86_400 * MICROSECONDS

_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_TERM = re.compile(r"[CA]{2,4}")
_PARAMETER_RANGES: dict[tuple[str, str], tuple[float, float]] = {
    ("epsilon_greedy", "epsilon"): (0, 1),
    ("softmax", "lambda"): (1e-6, 1e6),
    ("squarecb", "gamma_scale"): (1e-6, 1e9),
    ("squarecb", "gamma_exponent"): (0, 1),
    ("bag", "size"): (2, 100),
    ("bag", "epsilon"): (0, 1),
    ("cover", "size"): (2, 100),
    ("rnd", "size"): (1, 100),
    ("rnd", "alpha"): (1e-9, 1e6),
    ("first", "count"): (0, 1e9),
}


def read_toml(path: Path) -> pb.Experiment:
    """The experiment in a TOML file. Raises InvalidExperiment that names the file and what is wrong in it."""
    try:
        return _parse(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, json_format.ParseError) as error:
        raise InvalidExperiment([Violation(str(path), str(error))]) from error


def read_json(text: str) -> pb.Experiment:
    """The experiment in a text that `write_json` made."""
    message = pb.Experiment()
    json_format.Parse(text, message)
    return message


def write_json(message: pb.Experiment) -> str:
    """The canonical text of an experiment: the same content gives the same text."""
    return json.dumps(
        json_format.MessageToDict(message, preserving_proto_field_name=True),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
    )


def _parse(content: Mapping[str, Any]) -> pb.Experiment:
    message = pb.Experiment()
    json_format.ParseDict(_long_enums(content, pb.Experiment.DESCRIPTOR), message)
    return message


def _long_enums(value: Any, descriptor: Descriptor) -> Any:
    """Enum values as the JSON mapping wants them: "paused" becomes "EXPERIMENT_STATE_PAUSED"."""
    if not isinstance(value, Mapping) or descriptor.full_name.startswith("google.protobuf."):
        return value
    return {name: _long_enum(item, descriptor.fields_by_name.get(name)) for name, item in value.items()}


def _long_enum(value: Any, field: FieldDescriptor | None) -> Any:
    if field is None:
        return value
    if isinstance(value, list):
        return [_long_enum(item, field) for item in value]
    if field.enum_type is not None and isinstance(value, str):
        prefix = field.enum_type.values[0].name.removesuffix("UNSPECIFIED")
        return value if value.startswith(prefix) else prefix + value.upper()
    if field.message_type is not None and not field.message_type.GetOptions().map_entry:
        return _long_enums(value, field.message_type)
    return value


def from_message(message: pb.Experiment) -> Experiment:
    """Checked and complete. Raises InvalidExperiment with every violation found."""
    violations = list(_violations(message))
    if violations:
        raise InvalidExperiment(violations)
    actions = tuple(_action(a) for a in message.actions)
    reward = _reward(message.reward)
    active = sum(not a.retired for a in actions)
    default_floor = min(DEFAULT_MINIMUM_PROPENSITY, DEFAULT_EXPLORATION_SHARE / active)
    return Experiment(
        id=ExperimentId(message.id),
        description=message.description,
        paused=message.state == pb.EXPERIMENT_STATE_PAUSED,
        actions=actions,
        baseline=ActionId(message.baseline_action) if message.baseline_action else None,
        policy=_policy(message.policy, reward),
        minimum_propensity=(message.minimum_propensity if message.HasField("minimum_propensity") else default_floor),
        holdout=message.holdout,
        reward=reward,
        frozen=message.learning == pb.LEARNING_FROZEN,
        salt=message.salt,
    )


DEFAULT_MINIMUM_PROPENSITY = 0.0025
DEFAULT_EXPLORATION_SHARE = 0.1
"""The default floor is 0.0025, but all floors together never take more than a tenth of the traffic."""


def _action(message: pb.Action) -> Action:
    return Action(
        id=ActionId(message.id),
        kind=message.kind or "content",
        features=to_features(message.features),
        payload=json_format.MessageToDict(message.payload),
        retired=message.state == pb.ACTION_STATE_RETIRED,
    )


def _policy(message: pb.Policy, reward: RewardDefinition) -> PolicySpec:
    algorithm = message.WhichOneof("algorithm") or DEFAULT_ALGORITHM
    given = getattr(message, algorithm)
    parameters = {
        name: getattr(given, name) if given.HasField(name) else default
        for name, default in ALGORITHMS[algorithm].items()
    }
    return PolicySpec(
        algorithm=algorithm,
        parameters=parameters,
        interactions=tuple(message.interactions) or DEFAULT_INTERACTIONS,
        reward_range=(reward.minimum, reward.maximum),
    )


def _reward(message: pb.RewardDefinition) -> RewardDefinition:
    given = message.HasField
    default = RewardDefinition()
    aggregation = pb.Aggregation.Name(message.aggregation).removeprefix("AGGREGATION_").lower()
    return RewardDefinition(
        window=message.window.ToMicroseconds() if given("window") else default.window,
        default=message.default_value,
        weights=dict(sorted(message.weights.items())),
        minimum=message.range.minimum if given("range") else default.minimum,
        maximum=message.range.maximum if given("range") else default.maximum,
        aggregation=default.aggregation if aggregation == "unspecified" else Aggregation(aggregation),
    )


def to_message(experiment: Experiment) -> pb.Experiment:
    """The complete message of an experiment; `from_message` of it gives the same experiment."""
    reward = experiment.reward
    message = pb.Experiment(
        id=experiment.id,
        description=experiment.description,
        state=pb.EXPERIMENT_STATE_PAUSED if experiment.paused else pb.EXPERIMENT_STATE_ACTIVE,
        actions=[_action_message(a) for a in experiment.actions],
        baseline_action=experiment.baseline or "",
        policy=pb.Policy(interactions=experiment.policy.interactions),
        minimum_propensity=experiment.minimum_propensity,
        holdout=experiment.holdout,
        reward=pb.RewardDefinition(
            default_value=reward.default,
            weights=reward.weights,
            range=pb.Range(minimum=reward.minimum, maximum=reward.maximum),
            aggregation=pb.Aggregation.Value(f"AGGREGATION_{reward.aggregation.upper()}"),
        ),
        learning=pb.LEARNING_FROZEN if experiment.frozen else pb.LEARNING_ONLINE,
        salt=experiment.salt,
    )
    message.reward.window.FromMicroseconds(reward.window)
    parameters = getattr(message.policy, experiment.policy.algorithm)
    parameters.SetInParent()
    for name, value in experiment.policy.parameters.items():
        setattr(parameters, name, value)
    return message


def _action_message(action: Action) -> pb.Action:
    state = pb.ACTION_STATE_RETIRED if action.retired else pb.ACTION_STATE_ACTIVE
    return pb.Action(id=action.id, kind=action.kind, features=action.features, payload=action.payload, state=state)


def _violations(message: pb.Experiment) -> Iterable[Violation]:
    """Everything that is wrong with an experiment by itself; `check_successor` looks at its history."""
    if not _ID.fullmatch(message.id):
        yield Violation("id", f"{message.id!r} is not 1 to 64 letters, digits, '-', '_' or '.'")
    if len(message.salt) > 64:
        yield Violation("salt", "is longer than 64 characters")
    yield from _action_violations(message)
    yield from _policy_violations(message.policy)
    yield from _reward_violations(message.reward)
    active = [a.id for a in message.actions if a.state != pb.ACTION_STATE_RETIRED]
    if not 0 <= message.holdout <= 1:
        yield Violation("holdout", f"{message.holdout} is not in [0, 1]")
    floor = message.minimum_propensity
    if active and not 0 <= floor * len(active) <= 1 + 1e-9:
        yield Violation(
            "minimum_propensity", f"{floor} is not in [0, {1 / len(active):.6g}] (1 / number of active actions)"
        )
    needs_baseline = message.holdout > 0 or message.policy.WhichOneof("algorithm") == "fixed"
    if needs_baseline and not message.baseline_action:
        yield Violation("baseline_action", "is needed for a holdout and for the fixed policy")
    if message.baseline_action and message.baseline_action not in active:
        yield Violation("baseline_action", f"{message.baseline_action!r} is not one of the active actions")


def _action_violations(message: pb.Experiment) -> Iterable[Violation]:
    if not any(a.state != pb.ACTION_STATE_RETIRED for a in message.actions):
        yield Violation("actions", "has no active action")
    if len(message.actions) > MAX_ACTIONS:
        yield Violation("actions", f"has {len(message.actions)} actions; at most {MAX_ACTIONS} are possible")
    seen = set()
    for index, action in enumerate(message.actions):
        path = f"actions[{index}]"
        if not _ID.fullmatch(action.id):
            yield Violation(f"{path}.id", f"{action.id!r} is not 1 to 64 letters, digits, '-', '_' or '.'")
        if action.id in seen:
            yield Violation(f"{path}.id", f"{action.id!r} is there twice")
        if action.kind and not _ID.fullmatch(action.kind):
            yield Violation(f"{path}.kind", f"{action.kind!r} is not 1 to 64 letters, digits, '-', '_' or '.'")
        seen.add(action.id)
        yield from feature_violations(action.features, f"{path}.features", reserved=("id", "kind"))


def _policy_violations(message: pb.Policy) -> Iterable[Violation]:
    for index, term in enumerate(message.interactions):
        if not _TERM.fullmatch(term):
            yield Violation(f"policy.interactions[{index}]", f'{term!r} is not made of 2 to 4 of C and A, like "CA"')
    algorithm = message.WhichOneof("algorithm")
    for (name, parameter), (low, high) in _PARAMETER_RANGES.items():
        if name == algorithm and getattr(message, name).HasField(parameter):
            value = getattr(getattr(message, name), parameter)
            if not low <= value <= high:
                yield Violation(f"policy.{name}.{parameter}", f"{value} is not in [{low:g}, {high:g}]")


def _reward_violations(message: pb.RewardDefinition) -> Iterable[Violation]:
    if message.HasField("window"):
        window = message.window.ToMicroseconds()
        if not SHORTEST_WINDOW <= window <= LONGEST_WINDOW:
            yield Violation("reward.window", f"{window / MICROSECONDS} s is not in [0.001 s, 90 days]")
    low, high = (message.range.minimum, message.range.maximum) if message.HasField("range") else (0.0, 1.0)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        yield Violation("reward.range", f"[{low}, {high}] is not an interval with minimum < maximum")
    if not low <= message.default_value <= high:
        yield Violation("reward.default_value", f"{message.default_value} is not in the range [{low}, {high}]")
    for name, weight in message.weights.items():
        if not _ID.fullmatch(name):
            yield Violation("reward.weights", f"{name!r} is not 1 to 64 letters, digits, '-', '_' or '.'")
        if not math.isfinite(weight):
            yield Violation(f"reward.weights[{name}]", f"{weight} is not a finite number")


def check_successor(experiment: Experiment, history: Iterable[Experiment]) -> None:
    """Raises InvalidExperiment where an action's id had another meaning in an earlier version."""
    kinds = {action.id: action.kind for old in history for action in old.actions}
    violations = [
        Violation(
            f"actions[{index}].kind",
            f"action {action.id!r} was of kind {kinds[action.id]!r} before; an id is never reused: take a new one",
        )
        for index, action in enumerate(experiment.actions)
        if kinds.get(action.id, action.kind) != action.kind
    ]
    if violations:
        raise InvalidExperiment(violations)
