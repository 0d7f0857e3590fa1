"""Validates an experiment's schema of features: every violation, with its field. Called by `checks.py`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from decider.errors import Violation
from decider.experiment.features import MAX_CATEGORY, MAX_FEATURES, MAX_NAME, MAX_NUMBER
from decider.types import CONTEXT_FIELDS
from decider.v1 import experiment_pb2 as pb

MAX_VALUES = 1000


def schema_violations(message: pb.FeatureSchema) -> Iterator[Violation]:
    """What is wrong with a schema by itself."""
    yield from enum_violation("schema.on_problem", message.on_problem, pb.OnFeatureProblem)
    if not message.features:
        yield Violation("schema.features", "has no rule: give at least one, or leave out the schema")
    free = [name for name in message.features if name not in CONTEXT_FIELDS]
    if len(free) > MAX_FEATURES:
        yield Violation(
            "schema.features", f"has rules for {len(free)} free features; a context has {MAX_FEATURES} at most"
        )
    for name, rule in sorted(message.features.items()):
        yield from _rule_violations(f"schema.features[{name[:MAX_NAME]}]", name, rule)


def _rule_violations(path: str, name: str, rule: pb.FeatureRule) -> Iterator[Violation]:
    if not 0 < len(name) <= MAX_NAME:
        yield Violation(path, f"a name has 1 to {MAX_NAME} characters")
    yield from enum_violation(f"{path}.type", rule.type, pb.FeatureType)
    yield from enum_violation(f"{path}.on_problem", rule.on_problem, pb.OnFeatureProblem)
    type_ = feature_type(rule)
    if name in CONTEXT_FIELDS and type_ != pb.FEATURE_TYPE_CATEGORY:
        yield Violation(f"{path}.type", f"{name} is a field of the context: a category always")
    if rule.values and type_ != pb.FEATURE_TYPE_CATEGORY:
        yield Violation(f"{path}.values", "are for categories; a number has a range, a flag is true or false")
    if len(rule.values) > MAX_VALUES:
        yield Violation(f"{path}.values", f"has {len(rule.values)} values; at most {MAX_VALUES} are possible")
    if not all(0 < len(value) <= MAX_CATEGORY for value in rule.values):
        yield Violation(f"{path}.values", f"a value has 1 to {MAX_CATEGORY} characters")
    if rule.HasField("range"):
        yield from _range_violations(f"{path}.range", type_, rule.range)


def _range_violations(path: str, type_: pb.FeatureType, range_: pb.Range) -> Iterator[Violation]:
    if type_ != pb.FEATURE_TYPE_NUMBER:
        yield Violation(path, "is for numbers")
    if not -MAX_NUMBER <= range_.minimum < range_.maximum <= MAX_NUMBER:
        yield Violation(
            path,
            f"[{range_.minimum}, {range_.maximum}] is not an interval with minimum < maximum within +-{MAX_NUMBER:g}",
        )


def feature_type(rule: pb.FeatureRule) -> pb.FeatureType:
    """The type, or its default.

    >>> pb.FeatureType.Name(feature_type(pb.FeatureRule(range=pb.Range(maximum=1))))
    'FEATURE_TYPE_NUMBER'
    """
    default = pb.FEATURE_TYPE_NUMBER if rule.HasField("range") else pb.FEATURE_TYPE_CATEGORY
    return rule.type or default


def enum_violation(path: str, value: int, enum: Any) -> Iterable[Violation]:
    """What is wrong with a value of an enum."""
    if value not in enum.values():
        yield Violation(path, f"{value} is none of {', '.join(enum.keys()[1:])}")
