"""The Experiment proto message <-> the frozen types; TOML and JSON through protobuf's own mapping.

There is one schema: the message. This module fills in defaults; `checks.py` names every wrong field. What it writes is
complete, so that a log replays the same under a release with other defaults. It reads no files:
`experiment_files.py` does. Called by the server, the simulator and the log's readers.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from decider.errors import InvalidExperiment, Violation
from decider.experiment.checks import check, features_of_actions, most_actions
from decider.experiment.definition import (
    Action,
    Aggregation,
    Attribution,
    Experiment,
    Learning,
    OutOfRange,
    RewardDefinition,
)
from decider.experiment.feature_schema import FeatureRule, FeatureSchema, FeatureType
from decider.experiment.guardrails import ONLY_SERVER, Guardrail
from decider.experiment.history_checks import DEFAULT_MOST_DECISIONS, DEFAULT_PERIOD
from decider.experiment.limit_checks import shares_of
from decider.experiment.limits import UTC_NAME, Cap
from decider.experiment.schema_checks import feature_type
from decider.experiment.shape import from_json_mapping, shape_violations, to_json_mapping
from decider.experiment.unit_history import HistoryDefinition
from decider.policy.algorithms import ALGORITHMS, DEFAULT_ALGORITHM, DEFAULT_INTERACTIONS
from decider.policy.spec import PolicySpec, Relearned
from decider.types import ActionId, ExperimentId, Features, Position, Time
from decider.v1 import experiment_pb2 as pb

ONLY_RELEARN = "is set by `decider relearn` alone"

DEFAULT_MINIMUM_PROPENSITY = 0.001
DEFAULT_EXPLORATION_SHARE = 0.1
"""The default floor is 0.001, but all floors together never take more than a tenth of the traffic."""


def parse_toml(text: str, name: str) -> pb.Experiment:
    """The experiment in a TOML text. Raises InvalidExperiment with the text's name and what is wrong in it."""
    try:
        content = tomllib.loads(text)
        violations = [
            Violation(f"{name}: {v.field}", v.description)
            for v in (*shape_violations(content, pb.Experiment.DESCRIPTOR), *_set_by_us(content))
        ]
        if violations:
            raise InvalidExperiment(violations)
        message = pb.Experiment()
        json_format.ParseDict(to_json_mapping(content, pb.Experiment.DESCRIPTOR), message)
    except (ValueError, json_format.ParseError) as error:  # TOML's errors are ValueErrors
        raise InvalidExperiment([Violation(name, str(error))]) from error
    except RecursionError:  # its own context is thousands of lines long
        raise InvalidExperiment([Violation(name, "values are nested too deeply to be read")]) from None
    return message


def _set_by_us(content: Mapping[str, Any]) -> Iterator[Violation]:
    if "relearned" in content:
        yield Violation("relearned", f"{ONLY_RELEARN}; leave it out: the running one stays")
    guardrails = content.get("guardrails")
    for index, guardrail in enumerate(guardrails if isinstance(guardrails, list) else ()):
        if isinstance(guardrail, Mapping) and "crossed_at" in guardrail:
            problem = f"{ONLY_SERVER}; leave it out: it stays until the experiment is resumed"
            yield Violation(f"guardrails[{index}].crossed_at", problem)


def read_json(text: str) -> pb.Experiment:
    """The experiment in a text that `write_json` made. Raises InvalidExperiment if it did not."""
    message = pb.Experiment()
    try:
        content = json.loads(text)
        # Maps of protobuf's own are filled in half the time that its reader of JSON takes for them.
        free = [(one.pop("features", {}), one.pop("payload", {})) for one in content.get("actions", [])]
        json_format.ParseDict(content, message)
        for action, (features, payload) in zip(message.actions, free, strict=True):
            action.features.update(features)
            action.payload.update(payload)
    except (json_format.Error, AttributeError, TypeError, ValueError, SystemError, RecursionError) as error:
        # SystemError: protobuf's answer to a name with half a character, as a damaged file has it.
        raise InvalidExperiment([Violation("definition", str(error))]) from error
    return message


def active_actions(text: str) -> tuple[tuple[ActionId, ...], bool]:
    """The active actions in a text that `write_json` made, as in the version made of it, and whether calls may bring
    others; a fiftieth of the work of `read_json`.

    >>> active_actions('{"actions": [{"id": "sale"}, {"id": "old", "state": "ACTION_STATE_RETIRED"}]}')
    (('sale',), False)
    """
    retired = pb.ActionState.Name(pb.ACTION_STATE_RETIRED)
    content = json.loads(text)
    active = [ActionId(one["id"]) for one in content.get("actions", ()) if one.get("state") != retired]
    return tuple(active), "actions_in_calls" in content


def write_json(message: pb.Experiment) -> str:
    """The canonical text of an experiment: the same content gives the same text."""
    return _canonical(_plain(message))


def definition_text(experiment: Experiment) -> str:
    """What `write_json` makes of its message, without a message for each of up to 100,000 features: while those are
    made, nobody is answered."""
    content = _plain(to_message(replace(experiment, actions=())))
    if experiment.actions:
        content["actions"] = [_action_content(action) for action in experiment.actions]
    return _canonical(content)


def file_content(experiment: Experiment) -> dict[str, Any]:
    """What a file that defines it would hold, complete."""
    return _as_in_a_file(json.loads(definition_text(experiment)))


def file_content_of(message: pb.Experiment) -> dict[str, Any]:
    """What a file would hold that defines the same; `parse_toml` of its text gives an equal message. What only
    `decider relearn` or the server sets is left out: it stays as it is. So is, after a crossed guardrail, the state:
    a file that says "active" ends the fallback to the baseline.

    >>> file_content_of(pb.Experiment(id="home", state=pb.EXPERIMENT_STATE_PAUSED))
    {'id': 'home', 'state': 'paused'}
    """
    content = _as_in_a_file(_plain(message))
    content.pop("relearned", None)
    crossed = [guardrail.pop("crossed_at", None) for guardrail in content.get("guardrails", ())]
    if any(crossed) and content.get("state") == "active":
        del content["state"]
    return content


def _as_in_a_file(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = from_json_mapping(content, pb.Experiment.DESCRIPTOR)
    return found


def _plain(message: Message) -> dict[str, Any]:
    content: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return content


def _canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _action_content(action: Action) -> dict[str, Any]:
    content = {
        "features": {name: _json_value(value) for name, value in action.features.items()},
        "id": action.id,
        "kind": action.kind,
        "payload": _json_value(action.payload),
        "state": pb.ActionState.Name(_action_state(action)),
    }
    content |= _plain(_restrictions(action))
    return {name: value for name, value in content.items() if value != ""}


def _restrictions(action: Action) -> pb.Action:
    """The part of an action's message that says when, and how often, it can be chosen. Defaults are not written."""
    message = pb.Action(
        eligible_if=action.eligible_if,
        min_share=action.min_share,
        max_share=None if action.max_share == 1 else action.max_share,
        daily_budget=action.daily_budget,
    )
    if action.available_from is not None:
        message.available_from.FromMicroseconds(action.available_from)
    if action.available_until is not None:
        message.available_until.FromMicroseconds(action.available_until)
    return message


def _json_value(value: Any) -> Any:
    """As a message keeps it: every number is a float."""
    if type(value) is float or isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, Mapping):
        return {name: _json_value(item) for name, item in value.items()}
    return [_json_value(item) for item in value]


def from_message(message: pb.Experiment) -> Experiment:
    """Checked and complete. Raises InvalidExperiment with every violation found."""
    read = features_of_actions(message)  # once: there may be 100,000
    check(message, [problems for _, problems in read])
    actions = tuple(_action(a, features) for a, (features, _) in zip(message.actions, read, strict=True))
    reward = _reward(message.reward)
    active = sum(not a.retired for a in actions)
    most = most_actions(message)
    default_floor = min(DEFAULT_MINIMUM_PROPENSITY, DEFAULT_EXPLORATION_SHARE / max(active, most))
    return Experiment(
        id=ExperimentId(message.id),
        description=message.description,
        paused=message.state == pb.EXPERIMENT_STATE_PAUSED,
        ended=message.state == pb.EXPERIMENT_STATE_ENDED,
        actions=actions,
        baseline=ActionId(message.baseline_action) if message.baseline_action else None,
        policy=_policy(message.policy, reward, _relearned(message) if message.HasField("relearned") else None),
        minimum_propensity=(message.minimum_propensity if message.HasField("minimum_propensity") else default_floor),
        holdout=message.holdout,
        reward=reward,
        learning=_learning(message.learning),
        salt=message.salt,
        sticky=message.sticky.ToMicroseconds(),
        caps=tuple([_cap(cap) for cap in message.caps]),
        time_zone=message.time_zone or UTC_NAME,
        needs_activation=message.activation == pb.ACTIVATION_REQUIRED,
        learns_overrides=message.override == pb.OVERRIDE_LEARN,
        most_actions=most,
        schema=_feature_schema(message.schema) if message.HasField("schema") else None,
        history=_history(message.history) if message.HasField("history") else None,
        guardrails=tuple([_guardrail(one) for one in message.guardrails]),
    )


def _guardrail(message: pb.Guardrail) -> Guardrail:
    given = message.HasField
    return Guardrail(
        message.reward,
        at_most=message.at_most if given("at_most") else None,
        at_least=message.at_least if given("at_least") else None,
        falls_back=message.on_crossing == pb.ON_CROSSING_BASELINE,
        again_after=message.again_after.ToMicroseconds(),
        crossed_at=Time(message.crossed_at.ToMicroseconds()) if given("crossed_at") else None,
    )


def _guardrail_message(guardrail: Guardrail) -> pb.Guardrail:
    message = pb.Guardrail(
        reward=guardrail.reward,
        at_most=guardrail.at_most,
        at_least=guardrail.at_least,
        on_crossing=pb.ON_CROSSING_BASELINE if guardrail.falls_back else pb.ON_CROSSING_ALARM,
    )
    if guardrail.again_after:
        message.again_after.FromMicroseconds(guardrail.again_after)
    if guardrail.crossed_at is not None:
        message.crossed_at.FromMicroseconds(guardrail.crossed_at)
    return message


def _history(message: pb.HistoryDefinition) -> HistoryDefinition:
    return HistoryDefinition(
        period=message.period.ToMicroseconds() if message.HasField("period") else DEFAULT_PERIOD,
        rewards=tuple(sorted(message.rewards)),
        decisions=message.decisions,
        last_action=message.last_action,
        last_channel=message.last_channel,
        most=message.most or DEFAULT_MOST_DECISIONS,
    )


def _learning(number: pb.Learning) -> Learning:
    name = pb.Learning.Name(number).removeprefix("LEARNING_").lower()
    return Learning.ONLINE if name == "unspecified" else Learning(name)


def _feature_schema(message: pb.FeatureSchema) -> FeatureSchema:
    rules = {name: _feature_rule(rule) for name, rule in sorted(message.features.items())}
    return FeatureSchema(rules, refuse=message.on_problem == pb.ON_FEATURE_PROBLEM_REFUSE)


def _feature_rule(message: pb.FeatureRule) -> FeatureRule:
    ranged, said = message.HasField("range"), message.on_problem
    return FeatureRule(
        type=FeatureType(pb.FeatureType.Name(feature_type(message)).removeprefix("FEATURE_TYPE_").lower()),
        values=tuple(message.values),
        minimum=message.range.minimum if ranged else None,
        maximum=message.range.maximum if ranged else None,
        required=message.required,
        refuse=said == pb.ON_FEATURE_PROBLEM_REFUSE if said else None,
    )


def _cap(message: pb.Cap) -> Cap:
    action = ActionId(message.action) if message.action else None
    return Cap(message.most, message.per.ToMicroseconds(), action, message.kind or None)


def _cap_message(cap: Cap) -> pb.Cap:
    message = pb.Cap(action=cap.action, kind=cap.kind, most=cap.most)
    message.per.FromMicroseconds(cap.per)
    return message


def _action(message: pb.Action, features: Features) -> Action:
    low, high = shares_of(message)
    return Action(
        id=ActionId(message.id),
        kind=message.kind or "content",
        features=features,
        payload=json_format.MessageToDict(message.payload),
        retired=message.state == pb.ACTION_STATE_RETIRED,
        eligible_if=message.eligible_if,
        available_from=_time(message, "available_from"),
        available_until=_time(message, "available_until"),
        min_share=low,
        max_share=high,
        daily_budget=message.daily_budget if message.HasField("daily_budget") else None,
    )


def _time(message: pb.Action, field: str) -> Time | None:
    return Time(getattr(message, field).ToMicroseconds()) if message.HasField(field) else None


def _relearned(message: pb.Experiment) -> Relearned:
    given = message.relearned
    return Relearned(Position(given.until), Time(given.at.ToMicroseconds()), _canonical(_plain(given.reward)))


def _policy(message: pb.Policy, reward: RewardDefinition, relearned: Relearned | None) -> PolicySpec:
    algorithm = message.WhichOneof("algorithm") or DEFAULT_ALGORITHM
    given = getattr(message, algorithm)
    parameters = {
        name: getattr(given, name) if given.HasField(name) else default
        for name, default in ALGORITHMS[algorithm].defaults.items()
    }
    return PolicySpec(
        algorithm=algorithm,
        parameters=parameters,
        interactions=tuple(message.interactions) or DEFAULT_INTERACTIONS,
        reward_range=(reward.minimum, reward.maximum),
        relearned=relearned,
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
        attribution=_attribution(message),
        out_of_range=OutOfRange.REFUSE if message.out_of_range == pb.OUT_OF_RANGE_REFUSE else OutOfRange.CLIP,
    )


def _attribution(message: pb.RewardDefinition) -> Attribution | None:
    name = pb.Attribution.Name(message.attribution).removeprefix("ATTRIBUTION_").lower()
    return None if name == "unspecified" else Attribution(name)


def reward_text(definition: RewardDefinition) -> str:
    """The canonical text of a reward definition, complete."""
    return _canonical(_plain(_reward_message(definition)))


def read_reward(text: str) -> RewardDefinition:
    """The definition in a text that `reward_text` made.

    >>> read_reward(reward_text(RewardDefinition(default=0.5))) == RewardDefinition(default=0.5)
    True
    """
    return _reward(json_format.Parse(text, pb.RewardDefinition()))


def to_message(experiment: Experiment) -> pb.Experiment:
    """The complete message of an experiment; `from_message` of it gives the same experiment."""
    message = pb.Experiment(
        id=experiment.id,
        description=experiment.description,
        state=_state(experiment),
        actions=[_action_message(a) for a in experiment.actions],
        baseline_action=experiment.baseline or "",
        policy=pb.Policy(interactions=experiment.policy.interactions),
        minimum_propensity=experiment.minimum_propensity,
        holdout=experiment.holdout,
        reward=_reward_message(experiment.reward),
        learning=pb.Learning.Value(f"LEARNING_{experiment.learning.upper()}"),
        salt=experiment.salt,
        # Defaults are not written: so the definitions of experiments that have no such field stay as they are.
        activation=pb.ACTIVATION_REQUIRED if experiment.needs_activation else pb.ACTIVATION_UNSPECIFIED,
        override=pb.OVERRIDE_LEARN if experiment.learns_overrides else pb.OVERRIDE_UNSPECIFIED,
        actions_in_calls=pb.ActionsInCalls(most=experiment.most_actions) if experiment.most_actions else None,
        schema=_schema_message(experiment.schema) if experiment.schema is not None else None,
        caps=[_cap_message(cap) for cap in experiment.caps],
        guardrails=[_guardrail_message(one) for one in experiment.guardrails],
        time_zone="" if experiment.time_zone == UTC_NAME else experiment.time_zone,
        relearned=_relearned_message(experiment.policy.relearned) if experiment.policy.relearned is not None else None,
    )
    if experiment.sticky:
        message.sticky.FromMicroseconds(experiment.sticky)
    if experiment.history is not None:
        message.history.CopyFrom(_history_message(experiment.history))
    parameters = getattr(message.policy, experiment.policy.algorithm)
    parameters.SetInParent()
    for name, value in experiment.policy.parameters.items():
        setattr(parameters, name, value)
    return message


def _history_message(history: HistoryDefinition) -> pb.HistoryDefinition:
    message = pb.HistoryDefinition(
        rewards=history.rewards,
        decisions=history.decisions,
        last_action=history.last_action,
        last_channel=history.last_channel,
        most=history.most,
    )
    message.period.FromMicroseconds(history.period)
    return message


def _reward_message(reward: RewardDefinition) -> pb.RewardDefinition:
    message = pb.RewardDefinition(
        default_value=reward.default,
        weights=reward.weights,
        range=pb.Range(minimum=reward.minimum, maximum=reward.maximum),
        aggregation=pb.Aggregation.Value(f"AGGREGATION_{reward.aggregation.upper()}"),
        # The default is not written: definitions from before it keep their text, and so make no new version.
        out_of_range=pb.OUT_OF_RANGE_REFUSE if reward.out_of_range is OutOfRange.REFUSE else None,
        attribution=pb.Attribution.Value(f"ATTRIBUTION_{(reward.attribution or 'unspecified').upper()}"),
    )
    message.window.FromMicroseconds(reward.window)
    return message


def _relearned_message(relearned: Relearned) -> pb.Relearned:
    message = pb.Relearned(until=relearned.until, reward=json_format.Parse(relearned.reward, pb.RewardDefinition()))
    message.at.FromMicroseconds(relearned.at)
    return message


def _schema_message(schema: FeatureSchema) -> pb.FeatureSchema:
    rules = {name: _rule_message(rule) for name, rule in schema.rules.items()}
    return pb.FeatureSchema(features=rules, on_problem=_on_problem(refuse=schema.refuse))


def _rule_message(rule: FeatureRule) -> pb.FeatureRule:
    return pb.FeatureRule(
        type=pb.FeatureType.Value(f"FEATURE_TYPE_{rule.type.upper()}"),
        values=rule.values,
        range=None if rule.minimum is None else pb.Range(minimum=rule.minimum, maximum=rule.maximum),
        required=rule.required,
        on_problem=None if rule.refuse is None else _on_problem(refuse=rule.refuse),
    )


def _on_problem(*, refuse: bool) -> pb.OnFeatureProblem:
    return pb.ON_FEATURE_PROBLEM_REFUSE if refuse else pb.ON_FEATURE_PROBLEM_COUNT


def _state(experiment: Experiment) -> pb.ExperimentState:
    if experiment.ended:
        return pb.EXPERIMENT_STATE_ENDED
    return pb.EXPERIMENT_STATE_PAUSED if experiment.paused else pb.EXPERIMENT_STATE_ACTIVE


def _action_message(action: Action) -> pb.Action:
    message = pb.Action(
        id=action.id,
        kind=action.kind,
        features=action.features,
        payload=action.payload,
        state=_action_state(action),
    )
    message.MergeFrom(_restrictions(action))
    return message


def _action_state(action: Action) -> pb.ActionState:
    return pb.ACTION_STATE_RETIRED if action.retired else pb.ACTION_STATE_ACTIVE
