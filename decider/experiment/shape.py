"""The shape of an experiment file against the proto message, before protobuf reads it: unknown keys, wrong kinds.

protobuf's own JSON errors speak of messages and camelCase; people who write TOML need the key and its possible values.
Called by `schema.parse_toml`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from decider.durations import EXAMPLES, MICROSECONDS, microseconds_of
from decider.errors import Violation

_DURATION = "google.protobuf.Duration"
_TIMESTAMP = "google.protobuf.Timestamp"
_STRUCT = "google.protobuf.Struct"

_LARGEST = {
    FieldDescriptor.CPPTYPE_INT64: 2**63 - 1,
    FieldDescriptor.CPPTYPE_UINT32: 2**32 - 1,
}
"""Of the whole numbers that a definition has."""


def shape_violations(content: Mapping[str, Any], descriptor: Descriptor, path: str = "") -> Iterator[Violation]:
    """Every key that does not fit.

    >>> from decider.v1.experiment_pb2 import Experiment
    >>> list(map(str, shape_violations({"holdot": 1, "reward": {"window": 600}}, Experiment.DESCRIPTOR)))
    ... # doctest: +NORMALIZE_WHITESPACE
    ['holdot: unknown key; did you mean holdout?',
     'reward.window: must be a duration like "10m", "1h30m", "7d", "600s" or "500ms"']
    """
    for name, value in content.items():
        field = descriptor.fields_by_name.get(name)
        if field is None:
            yield Violation(f"{path}{name}", f"unknown key; {_suggestion(name, descriptor)}")
        else:
            yield from _field_violations(value, field, f"{path}{name}")


def _suggestion(name: str, descriptor: Descriptor) -> str:
    names = [field.name for field in descriptor.fields]
    close = get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"


def _field_violations(value: Any, field: FieldDescriptor, path: str) -> Iterator[Violation]:
    if _is_map(field):
        yield from _map_violations(value, field.message_type.fields_by_name["value"], path)
    elif not field.is_repeated:
        yield from _value_violations(value, field, path)
    elif not isinstance(value, list):
        yield Violation(path, "must be a list")
    else:
        for index, item in enumerate(value):
            yield from _value_violations(item, field, f"{path}[{index}]")


def _map_violations(content: Any, value: FieldDescriptor, path: str) -> Iterator[Violation]:
    if not isinstance(content, Mapping):
        yield Violation(path, "must be a table of names and values")
        return
    for name, item in content.items():
        yield from _value_violations(item, value, f"{path}[{name}]")


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _value_violations(value: Any, field: FieldDescriptor, path: str) -> Iterator[Violation]:
    message = field.message_type
    if field.enum_type is not None:
        if _short(value, field) not in _short_names(field):
            yield Violation(path, f"{value!r} is none of {', '.join(_short_names(field))}")
    elif message is None:
        problem = _scalar_problem(value, field)
        if problem:
            yield Violation(path, problem)
    elif message.full_name == _DURATION:
        if not isinstance(value, str) or microseconds_of(value) is None:
            yield Violation(path, f"must be a duration like {EXAMPLES}")
    elif message.full_name == _TIMESTAMP:
        if not isinstance(value, str):
            yield Violation(path, 'must be a text in quotation marks, like "2026-12-24T18:00:00Z"')
    elif not isinstance(value, Mapping):
        names = "any names" if message.full_name == _STRUCT else ", ".join(f.name for f in message.fields)
        yield Violation(path, f"must be a table with {names or 'nothing in it: {}'}")
    elif message.full_name != _STRUCT:
        yield from shape_violations(value, message, f"{path}.")


def _scalar_problem(value: Any, field: FieldDescriptor) -> str | None:
    """protobuf takes true for 1."""
    if isinstance(value, Mapping | list):
        return "must be a single value, not a table or list"
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return None if isinstance(value, bool) else "must be true or false, without quotation marks"
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return None if isinstance(value, str) else 'must be a text in quotation marks, like "abc"'
    number = _number(value)
    if number is None:
        return f"must be a number, not {str(value).lower()[:64] if isinstance(value, bool) else repr(value)[:64]}"
    largest = _LARGEST.get(field.cpp_type)
    if largest is not None and not (number % 1 == 0 and 0 <= number <= largest):
        return f"must be a whole number from 0 to {largest}, not {number}"
    return None


def _number(value: Any) -> float | None:
    """The number that a value says; in quotation marks, too. None: it says none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if isinstance(value, str) else value


def _short_names(field: FieldDescriptor) -> list[str]:
    prefix = _prefix(field)
    return [value.name.removeprefix(prefix).lower() for value in field.enum_type.values[1:]]


def _short(value: Any, field: FieldDescriptor) -> str:
    """An enum value without its prefix; the long name is legal too, and '-' for '_'."""
    return str(value).upper().replace("-", "_").removeprefix(_prefix(field)).lower()


def _prefix(field: FieldDescriptor) -> str:
    return str(field.enum_type.values[0].name).removesuffix("UNSPECIFIED")


def to_json_mapping(value: Any, descriptor: Descriptor) -> Any:
    """The same content, of right shape, with enum values and durations as protobuf's JSON mapping wants them.

    >>> from decider.v1.experiment_pb2 import Experiment
    >>> to_json_mapping({"state": "paused", "reward": {"window": "1h30m"}}, Experiment.DESCRIPTOR)
    {'state': 'EXPERIMENT_STATE_PAUSED', 'reward': {'window': '5400.000000s'}}
    """
    return {name: _to_json(item, descriptor.fields_by_name[name]) for name, item in value.items()}


def _to_json(value: Any, field: FieldDescriptor) -> Any:
    if isinstance(value, list):
        return [_to_json(item, field) for item in value]
    if field.enum_type is not None:
        return _prefix(field) + _short(value, field).upper()
    message = field.message_type
    if message is None or message.full_name in (_STRUCT, _TIMESTAMP):
        return value
    if _is_map(field):
        return {name: _to_json(item, message.fields_by_name["value"]) for name, item in value.items()}
    if message.full_name == _DURATION:
        seconds, rest = divmod(microseconds_of(value) or 0, MICROSECONDS["s"])
        return f"{seconds}.{rest:06d}s"
    return to_json_mapping(value, message)
