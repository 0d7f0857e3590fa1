"""Validates experiments: every violation, with its field and what to do. Called by `schema.py` and
`learn/versions.py`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from decider.errors import InvalidExperiment, Violation
from decider.experiment.definition import Experiment
from decider.experiment.features import read_features
from decider.experiment.guardrails import guardrail_violations
from decider.experiment.history_checks import history_violations
from decider.experiment.ids import id_violation
from decider.experiment.limit_checks import limit_violations
from decider.experiment.rules import rule_problem
from decider.experiment.schema_checks import enum_violation, schema_violations
from decider.policy.algorithms import ALGORITHMS, DEFAULT_ALGORITHM
from decider.policy.work import Budget, Shape
from decider.types import CONTEXT_FIELDS, ActionId, Features
from decider.v1 import experiment_pb2 as pb

MAX_ACTIONS = 1000
DEFAULT_MOST_ACTIONS = 50
MICROSECONDS = 1_000_000
LARGEST_REWARD = 1e12
SHORTEST_WINDOW, LONGEST_WINDOW = 1_000, 90 * 86_400 * MICROSECONDS

_TERM = re.compile(r"[CA]{2,4}")


def features_of_actions(message: pb.Experiment) -> list[tuple[Features, list[Violation]]]:
    """The features of each action, and what is wrong with them."""
    return [
        read_features(action.features, f"actions[{index}].features", reserved=("id", "kind"))
        for index, action in enumerate(message.actions)
    ]


def check(message: pb.Experiment, of_features: Sequence[list[Violation]]) -> None:
    """Raises InvalidExperiment with every violation of an experiment by itself. of_features: what is wrong with those
    of each action."""
    violations = list(_violations(message, of_features))
    if violations:
        raise InvalidExperiment(violations)


def _violations(message: pb.Experiment, of_features: Sequence[list[Violation]]) -> Iterable[Violation]:
    yield from id_violation("id", message.id)
    if len(message.salt) > 64:
        yield Violation("salt", "is longer than 64 characters")
    if not 0 <= message.sticky.ToMicroseconds() <= LONGEST_WINDOW:
        yield Violation("sticky", f"{message.sticky.ToMicroseconds() / MICROSECONDS} s is not in [0 s, 90 days]")
    yield from enum_violation("state", message.state, pb.ExperimentState)
    yield from enum_violation("learning", message.learning, pb.Learning)
    yield from enum_violation("activation", message.activation, pb.Activation)
    yield from enum_violation("override", message.override, pb.Override)
    yield from _override_violations(message)
    yield from _action_violations(message, of_features)
    yield from _policy_violations(message.policy)
    yield from _reward_violations(message.reward)
    active = [a.id for a in message.actions if a.state != pb.ACTION_STATE_RETIRED]
    if message.HasField("actions_in_calls"):
        yield from _called_violations(message, active)
    if message.HasField("schema"):
        yield from schema_violations(message.schema)
    if message.HasField("history"):
        yield from history_violations(message)
    yield from limit_violations(message)
    yield from guardrail_violations(message)
    yield from _floor_violations(message, active)
    yield from _holdout_violations(message, active)


def _floor_violations(message: pb.Experiment, active: Sequence[str]) -> Iterable[Violation]:
    count, what = len(active), "number of active actions"
    if message.HasField("actions_in_calls"):
        count, what = max(count, most_actions(message)), "actions_in_calls.most"
    floor = message.minimum_propensity
    if count and not 0 <= floor * count <= 1 + 1e-9:
        yield Violation("minimum_propensity", f"{floor} is not in [0, {1 / count:.6g}] (1 / {what})")


def _holdout_violations(message: pb.Experiment, active: Sequence[str]) -> Iterable[Violation]:
    fixed = message.policy.WhichOneof("algorithm") == "fixed"
    if not 0 <= message.holdout <= 1:
        yield Violation("holdout", f"{message.holdout} is not in [0, 1]")
    if (message.holdout > 0 or fixed) and not message.baseline_action:
        yield Violation("baseline_action", "is needed for a holdout and for the fixed policy")
    if message.baseline_action and message.baseline_action not in active:
        retired = any(action.id == message.baseline_action for action in message.actions)
        why = "; it is retired: take another one, or make it active again" if retired else ""
        yield Violation("baseline_action", f"{message.baseline_action!r} is not one of the active actions{why}")


def _override_violations(message: pb.Experiment) -> Iterable[Violation]:
    name = message.policy.WhichOneof("algorithm") or DEFAULT_ALGORITHM
    if message.override == pb.OVERRIDE_LEARN and ALGORITHMS[name].uses_propensity:
        yield Violation(
            "override",
            f"{name} learns with the propensity of the action, and of one that was shown in place of the drawn one "
            'nobody knows it; take "leave_out", or the policy thompson, which uses none',
        )


def most_actions(message: pb.Experiment) -> int:
    """Of one decision, where calls may bring actions; 0 where they may not."""
    if not message.HasField("actions_in_calls"):
        return 0
    return message.actions_in_calls.most or DEFAULT_MOST_ACTIONS


def _called_violations(message: pb.Experiment, active: Sequence[str]) -> Iterable[Violation]:
    most = most_actions(message)
    if not len(active) < most <= MAX_ACTIONS:
        yield Violation(
            "actions_in_calls.most",
            f"{most} is not in [{len(active) + 1}, {MAX_ACTIONS}]: it counts the {len(active)} active actions, too",
        )
    name = message.policy.WhichOneof("algorithm") or DEFAULT_ALGORITHM
    if not ALGORITHMS[name].shares:
        yield Violation(
            "actions_in_calls",
            f"{name} learns about each action by itself: it knows nothing about an action that it has not seen, and "
            "needs more memory for each one. Take squarecb, which shares what it learns by features",
        )


def payload_violation(path: str, payload: Struct) -> Iterable[Violation]:
    """What is wrong with a payload."""
    try:
        json_format.MessageToDict(payload)
    except ValueError as error:  # NaN and infinities are no JSON
        yield Violation(path, str(error))


def _action_violations(message: pb.Experiment, of_features: Sequence[list[Violation]]) -> Iterable[Violation]:
    active = any(a.state != pb.ACTION_STATE_RETIRED for a in message.actions)
    if not active and not message.HasField("actions_in_calls"):
        yield Violation("actions", "has no active action")
    if len(message.actions) > MAX_ACTIONS:
        yield Violation("actions", f"has {len(message.actions)} actions; at most {MAX_ACTIONS} are possible")
    seen = set()
    for index, action in enumerate(message.actions):
        path = f"actions[{index}]"
        yield from id_violation(f"{path}.id", action.id)
        if action.id in seen:
            yield Violation(f"{path}.id", f"{action.id!r} is there twice")
        if action.kind:
            yield from id_violation(f"{path}.kind", action.kind)
        seen.add(action.id)
        yield from enum_violation(f"{path}.state", action.state, pb.ActionState)
        yield from payload_violation(f"{path}.payload", action.payload)
        yield from _schedule_violations(path, action)
        yield from of_features[index]


def _schedule_violations(path: str, action: pb.Action) -> Iterable[Violation]:
    problem = rule_problem(action.eligible_if) if action.eligible_if else None
    if problem:
        known = ", ".join((*CONTEXT_FIELDS, "features"))
        yield Violation(f"{path}.eligible_if", f"{action.eligible_if[:80]!r}: {problem}; a rule in CEL knows {known}")
    both = action.HasField("available_from") and action.HasField("available_until")
    if both and action.available_from.ToMicroseconds() >= action.available_until.ToMicroseconds():
        yield Violation(f"{path}.available_until", "is not later than available_from")


def _policy_violations(message: pb.Policy) -> Iterable[Violation]:
    for index, term in enumerate(message.interactions):
        if not _TERM.fullmatch(term):
            yield Violation(f"policy.interactions[{index}]", f'{term!r} is not made of 2 to 4 of C and A, like "CA"')
    name = message.WhichOneof("algorithm") or DEFAULT_ALGORITHM
    algorithm, given = ALGORITHMS[name], getattr(message, name)
    if algorithm.terms and not {*message.interactions} <= {*algorithm.terms}:
        known = " and ".join([f'"{term}"' for term in algorithm.terms])
        yield Violation("policy.interactions", f"{name} knows {known} only; other terms need squarecb")
    for parameter, (_, low, high) in algorithm.parameters.items():
        if given.HasField(parameter) and not low <= getattr(given, parameter) <= high:
            value = getattr(given, parameter)
            yield Violation(f"policy.{name}.{parameter}", f"{value} is not in [{low:g}, {high:g}]")


def _reward_violations(message: pb.RewardDefinition) -> Iterable[Violation]:
    if message.HasField("window"):
        window = message.window.ToMicroseconds()
        if not SHORTEST_WINDOW <= window <= LONGEST_WINDOW:
            yield Violation("reward.window", f"{window / MICROSECONDS} s is not in [0.001 s, 90 days]")
    low, high = (message.range.minimum, message.range.maximum) if message.HasField("range") else (0.0, 1.0)
    if not -LARGEST_REWARD <= low < high <= LARGEST_REWARD:
        yield Violation(
            "reward.range", f"[{low}, {high}] is not an interval with minimum < maximum within +-{LARGEST_REWARD:g}"
        )
    elif not low <= message.default_value <= high:
        yield Violation("reward.default_value", f"{message.default_value} is not in the range [{low}, {high}]")
    yield from enum_violation("reward.aggregation", message.aggregation, pb.Aggregation)
    yield from enum_violation("reward.out_of_range", message.out_of_range, pb.OutOfRange)
    yield from enum_violation("reward.attribution", message.attribution, pb.Attribution)
    for name, weight in message.weights.items():
        yield from id_violation("reward.weights", name)
        if not math.isfinite(weight):
            yield Violation(f"reward.weights[{name}]", f"{weight} is not a finite number")


def check_successor(experiment: Experiment, kinds: Mapping[ActionId, str]) -> None:
    """Raises InvalidExperiment where an action's id had another meaning in an earlier version. kinds: of every action
    that the experiment ever had."""
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


def check_work(experiment: Experiment, budget: Budget) -> None:
    """Raises InvalidExperiment where a decision costs more than the budget, although its call has no free features.

    The interactions are named as the reason where it would fit without them, else the actions.
    """
    seconds = _seconds(experiment)
    if seconds <= budget.seconds:
        return
    plain = replace(experiment, policy=replace(experiment.policy, interactions=()))
    field = "policy.interactions" if _seconds(plain) <= budget.seconds else "actions"
    raise InvalidExperiment(
        [
            Violation(
                field,
                f"a decision would take about {seconds:.2g} s, without any free feature; --decide-budget allows "
                f"{budget.seconds:g} s. Take shorter interactions, fewer actions or fewer features of actions, "
                "or a larger budget",
            )
        ]
    )


def _seconds(experiment: Experiment) -> float:
    actions = Counter([len(action.features) for action in experiment.actions if not action.retired])
    of_history = len(experiment.history.names) if experiment.history else 0
    return experiment.policy.seconds(Shape(len(CONTEXT_FIELDS) + of_history, actions))
