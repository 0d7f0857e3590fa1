"""google.protobuf.Struct -> features: a map from name to category, number or flag, checked before anything reads it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from google.protobuf.struct_pb2 import Struct, Value

from decider.errors import Violation
from decider.types import Features, FeatureValue

MAX_FEATURES = 100
MAX_NAME = 64
MAX_CATEGORY = 256
MAX_NUMBER = 1e12
"""VW computes in float32: cubes of larger numbers would overflow."""


def to_features(message: Struct) -> Features:
    """The features of a message that `feature_violations` has found right; integers stay floats.

    >>> to_features(Struct(fields={"vip": Value(bool_value=True), "age": Value(number_value=31)}))
    {'age': 31.0, 'vip': True}
    """
    fields = message.fields
    return {name: _value(fields[name]) for name in sorted(fields)} if fields else {}


def _value(value: Value) -> FeatureValue:
    known: FeatureValue = getattr(value, value.WhichOneof("kind"))
    return known


def feature_violations(message: Struct, path: str, *, reserved: Sequence[str]) -> Iterable[Violation]:
    """What is wrong with a map of features; `reserved` names have a field of their own.

    >>> list(feature_violations(Struct(fields={"a": Value(number_value=float("nan"))}), "features", reserved=()))
    [Violation(field='features[a]', description='nan is not a finite number up to 1e+12')]
    """
    fields = message.fields
    if len(fields) > MAX_FEATURES:
        yield Violation(path, f"has {len(fields)} features; at most {MAX_FEATURES} are possible")
    for name, value in fields.items():
        if not 0 < len(name) <= MAX_NAME:
            yield Violation(path, f"{name[:MAX_NAME]!r}: a name has 1 to {MAX_NAME} characters")
        if name in reserved:
            yield Violation(f"{path}[{name}]", "is reserved: it has a field of its own")
        problem = _value_problem(value)
        if problem:
            yield Violation(f"{path}[{name}]", problem)


def _value_problem(value: Value) -> str | None:
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number = value.number_value
        # `not <=` so that NaN is refused too
        return None if abs(number) <= MAX_NUMBER else f"{number} is not a finite number up to {MAX_NUMBER:g}"
    if kind == "string_value":
        return None if len(value.string_value) <= MAX_CATEGORY else f"is longer than {MAX_CATEGORY} characters"
    return None if kind == "bool_value" else "must be a category (string), a number or a flag (true or false)"
