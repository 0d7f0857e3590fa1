"""OpenFeature's evaluation context -> what a DecideRequest has. Pure; errors name the attribute. Called by `flags.py`.

A context is any JSON object: who the flag is for (`targetingKey`) beside whatever an application knows. What has a
field of its own in `decider.v1.Context` goes there, the rest are features, which are flat: a struct's attributes get
the names `struct.attribute`, and a list of texts becomes flags `list.text`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf.struct_pb2 import Struct, Value

from decider.errors import InvalidArgument, TargetingKeyMissing, Violation
from decider.experiment.features import MAX_FEATURES, MAX_NAME
from decider.types import CONTEXT_FIELDS
from decider.v1 import decider_service_pb2 as pb

MOST_DEPTH = 8
"""Structs within structs: deeper ones are no context that somebody wrote."""

MOST_ATTRIBUTES = MAX_FEATURES + 8
"""When they are flat: the features, and what has a field of its own."""

MOST_VIOLATIONS = 20
"""Of one context; what comes behind them is not looked at."""

UNIT, DECISION_ID = "targetingKey", "decision_id"

OTHER_NAMES = {"intentStage": "intent_stage", "decisionId": DECISION_ID}
"""As JavaScript spells them."""

OWN_FIELD = (UNIT, DECISION_ID, *CONTEXT_FIELDS)
"""Attributes that are no features."""

Plain = Mapping[str, Any]
"""A JSON object: texts, numbers, flags, None, lists and objects of such."""


class EvaluationContext(NamedTuple):
    """What a DecideRequest takes of it. decision_id: empty where none was given."""

    unit_id: str
    context: pb.Context
    decision_id: str


def plain(message: Struct, depth: int = 0) -> Plain:
    """A message's attributes; integers are floats, since it has no others. Raises InvalidArgument where it is too
    large.

    >>> message = Struct(); message.update({"targetingKey": "ann", "cart": {"items": 2}, "likes": ["red"], "x": None})
    >>> plain(message)
    {'cart': {'items': 2.0}, 'likes': ['red'], 'targetingKey': 'ann', 'x': None}
    """
    fields = message.fields
    if len(fields) > MOST_ATTRIBUTES:
        raise _too_many()
    return {name: _plain_value(fields[name], depth) for name in sorted(fields)}


def _plain_value(value: Value, depth: int) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return plain(value.struct_value, depth + 1) if depth < MOST_DEPTH else _TooDeep()
    if kind == "list_value":  # of use are texts alone: whatever else is in it only has to be seen
        return [
            one.string_value if one.WhichOneof("kind") == "string_value" else None for one in value.list_value.values
        ]
    return None if kind in (None, "null_value") else getattr(value, kind)


class _TooDeep(dict[str, Any]):
    """What lies too deep to be read."""


def read_context(context: Plain) -> EvaluationContext:
    """Raises InvalidArgument with the first MOST_VIOLATIONS, and TargetingKeyMissing where nothing else is wrong.

    >>> read_context({"targetingKey": "ann", "device": "phone", "cart": {"items": 2}})
    EvaluationContext(unit_id='ann', context=device: "phone"
    features {
      fields {
        key: "cart.items"
        value {
          number_value: 2
        }
      }
    }
    , decision_id='')
    """
    reading = _Reading()
    given = reading.flat(context)
    message = pb.Context(**{name: reading.text(name, given) for name in CONTEXT_FIELDS if name in given})
    decision_id = reading.text(DECISION_ID, given) if DECISION_ID in given else ""
    unit_id = reading.text(UNIT, given) if given.get(UNIT) else ""
    reading.set_features(message, given)
    reading.end()
    if not unit_id:
        raise TargetingKeyMissing([Violation(f"context[{UNIT}]", "is needed: who the flag is for, as a text")])
    return EvaluationContext(unit_id, message, decision_id)


class _Reading:
    """Of one context. Violations are collected, so that a caller mends them all at once."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def _wrong(self, name: str, description: str) -> None:
        shown = name[: MAX_NAME + 1].encode(errors="backslashreplace").decode()  # JSON may have half a character
        self._violations.append(Violation(f"context[{shown}]", description))
        if len(self._violations) == MOST_VIOLATIONS:
            self.end()

    def end(self) -> None:
        """Raises InvalidArgument if anything was wrong."""
        if self._violations:
            raise InvalidArgument(self._violations)

    def flat(self, context: Plain) -> dict[str, Any]:
        """Its attributes by their full names, all of them texts, numbers or flags."""
        given: dict[str, Any] = {}
        for sent, value in self._walk(context, "", 0):
            name = OTHER_NAMES.get(sent, sent)
            if name in given:
                self._wrong(sent, "is given twice: another attribute has this name as well")
            given[name] = value
            if len(given) > MOST_ATTRIBUTES:
                raise _too_many()
        return given

    def _walk(self, context: Plain, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
        for key, value in context.items():
            name = f"{prefix}{key}"
            if len(name) > MAX_NAME:  # looked at here: a long one would be in the names of all that is in it
                self._wrong(name, f"a name has 1 to {MAX_NAME} characters")
            elif isinstance(value, Mapping):
                if depth == MOST_DEPTH or isinstance(value, _TooDeep):
                    self._wrong(name, f"lies too deep: {MOST_DEPTH} structs in structs are possible")
                else:
                    yield from self._walk(value, f"{name}.", depth + 1)
            elif isinstance(value, Sequence) and not isinstance(value, str):
                yield from self._flags(name, value)
            elif value is not None:
                yield name, value

    def _flags(self, name: str, texts: Sequence[Any]) -> Iterator[tuple[str, bool]]:
        """Of a list: what is in it is known, its order is not; a text that is in it twice is one flag."""
        if not all(isinstance(text, str) for text in texts):
            self._wrong(name, "is a list of other things than texts; give each of them a name of its own")
            return
        for text in dict.fromkeys(texts):
            if len(flag := f"{name}.{text[:MAX_NAME]}") > MAX_NAME:
                self._wrong(flag, f"a text in a list is part of a name, which has 1 to {MAX_NAME} characters")
            else:
                yield flag, True

    def text(self, name: str, given: Plain) -> str:
        """What has a field of its own."""
        value = given[name]
        if isinstance(value, str) and _is_whole(value):
            return value
        self._wrong(name, "must be a text")
        return ""

    def set_features(self, message: pb.Context, given: Plain) -> None:
        """All that has no field of its own."""
        features = message.features.fields if given.keys() - OWN_FIELD else {}
        for name, value in given.items():
            if name in OWN_FIELD:
                continue
            try:
                _set(features[name], value)
            except (ValueError, OverflowError):  # half a character; an integer that no float can be
                self._wrong(name, "is no text or number that a feature can be")


def _too_many() -> InvalidArgument:
    said = (
        f"has too many attributes: {MAX_FEATURES} features are possible, a struct and a list count by what is in them"
    )
    return InvalidArgument([Violation("context", said)])


def _is_whole(text: str) -> bool:
    """Whether it can be written in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _set(field: Value, value: Any) -> None:
    if isinstance(value, bool):
        field.bool_value = value
    elif isinstance(value, str):
        field.string_value = value
    else:
        field.number_value = float(value)
