"""google.protobuf.Struct -> features: a map from name to category, number or flag, checked before anything reads it."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.struct_pb2 import Struct, Value

from decider.errors import Violation
from decider.types import Features, FeatureValue

MAX_FEATURES = 100
MAX_NAME = 64
MAX_CATEGORY = 256
MAX_NUMBER = 1e12
"""VW computes in float32: cubes of larger numbers would overflow."""


def read_features(
    message: Struct, path: str = "features", *, reserved: Sequence[str] = ()
) -> tuple[Features, list[Violation]]:
    """The features of a message, by name, and what is wrong with them; integers stay floats. `reserved` names have a
    field of their own.

    >>> message = Struct(fields={"vip": Value(bool_value=True), "age": Value(number_value=float("nan"))})
    >>> read_features(message)
    ({'vip': True}, [Violation(field='features[age]', description='nan is not a finite number up to 1e+12')])
    """
    fields = message.fields
    features: dict[str, FeatureValue] = {}
    violations: list[Violation] = []
    if len(fields) > MAX_FEATURES:
        violations.append(Violation(path, f"has {len(fields)} features; at most {MAX_FEATURES} are possible"))
    for name in sorted(fields):  # one walk: every access to a value makes it anew
        value = fields[name]
        if not 0 < len(name) <= MAX_NAME:
            violations.append(Violation(path, f"{name[:MAX_NAME]!r}: a name has 1 to {MAX_NAME} characters"))
        if name in reserved:
            violations.append(Violation(f"{path}[{name}]", "is reserved: it has a field of its own"))
        # What is not its default tells its kind, in a fifth of the time of asking for the kind.
        if (number := value.number_value) and abs(number) <= MAX_NUMBER:
            features[name] = number
        elif 0 < len(text := value.string_value) <= MAX_CATEGORY:
            features[name] = text
        else:
            _read_rare(value, name, features, violations, path)
    return features, violations


def _read_rare(
    value: Value, name: str, features: dict[str, FeatureValue], violations: list[Violation], path: str
) -> None:
    """A flag, zero, the empty text, or what is wrong."""
    kind = value.WhichOneof("kind")
    if kind == "bool_value":
        features[name] = value.bool_value
    elif kind == "number_value" and value.number_value == 0:
        features[name] = value.number_value
    elif kind == "string_value" and not value.string_value:
        features[name] = ""
    else:
        violations.append(Violation(f"{path}[{name}]", _problem(kind, value)))


def _problem(kind: str | None, value: Value) -> str:
    if kind == "number_value":
        return f"{value.number_value} is not a finite number up to {MAX_NUMBER:g}"
    if kind == "string_value":
        return f"is longer than {MAX_CATEGORY} characters"
    return "must be a category (string), a number or a flag (true or false)"
