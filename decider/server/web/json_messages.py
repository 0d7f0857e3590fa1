"""Messages as JSON, as protobuf maps them (protobuf.dev/programming-guides/json). Called by `codecs.py`.

protobuf's own `json_format` takes 25 us to read a Decide. So what is plain, as nearly every request is, is read here,
and everything else by it: what is read here, it reads alike (tests/test_web_json.py), and every error is its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from decider.errors import InvalidArgument, Violation

STRUCT, TIMESTAMP = "google.protobuf.Struct", "google.protobuf.Timestamp"

EXACT = 2**53
"""Up to here every integer is a double, too."""


MOST_VALUES, MOST_UNUSUAL = 120_000, 6_000
"""Of a request, counted by commas: as many as 1,000 decisions with 100 features have. And where `json_format` has to
read it, which takes 7 to 30 us for each, and nobody else gets an answer meanwhile."""

LONGEST_WORDS = 300
"""Characters of `json_format`'s words that a caller is told: they may hold all that it sent."""


class _Unsure(Exception):
    """`json_format` shall say what this is."""


Convert = Callable[[Any], Any]
"""A value of JSON -> what a message's constructor takes. Raises _Unsure."""


def json_parser(kind: type[Message]) -> Callable[[bytes], Any]:
    """JSON -> message of this type. Raises InvalidArgument, also for a field that it does not have: one that is written
    wrong must not be lost in silence."""
    convert = _message(kind.DESCRIPTOR)

    def parse(text: bytes) -> Any:
        if text.count(b",") > MOST_VALUES:
            raise InvalidArgument([Violation("request", f"has more than {MOST_VALUES:,} values; {_FEWER}")])
        try:
            return kind(**convert(json.loads(text, object_pairs_hook=_object)))
        except Exception:  # whatever it was: nothing is decided here
            return _parse_slowly(text, kind)

    return parse


_FEWER = "send fewer requests a call"


def _parse_slowly(text: bytes, kind: type[Message]) -> Any:
    if text.count(b",") > MOST_UNUSUAL:
        words = "is unusual or wrong JSON (an unknown field, a number as a text, a list in features)"
        raise InvalidArgument(
            [Violation("request", f"{words}, of which at most {MOST_UNUSUAL:,} values are read; {_FEWER}")]
        )
    try:
        return json_format.Parse(text.decode(), kind())
    except (ValueError, RecursionError, json_format.ParseError) as error:
        raise InvalidArgument([_violation(str(error))]) from error


def _violation(text: str) -> Violation:
    """What is wrong, and where, from the words of `json_format`. They hold what the caller sent, so no pattern is
    sought in them: one with several gaps took hours for some, and nobody else had an answer meanwhile."""
    text = text.encode(errors="backslashreplace").decode()  # JSON may have half a character, an answer may not
    _, found, rest = text.partition(' has no field named "')
    rest, ends, fields = rest.rpartition('".\n Available Fields(except extensions): "[')
    name, named, path = rest.rpartition('" at "')
    if not (found and ends and named):
        return Violation("request", f"is no JSON of this method's request: {text.splitlines()[0][:LONGEST_WORDS]}")
    known = [one.strip("' ") for one in fields.rpartition("]")[0].split(",")]
    name, at = name[:100], f"{path.partition('.')[2]}." if "." in path else ""
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
    return Violation(f"{at}{name}", f"unknown field; {hint}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Unsure
    return found


@cache
def _message(descriptor: Descriptor) -> Convert:
    if descriptor.full_name == STRUCT:
        return _struct
    if descriptor.full_name == TIMESTAMP:
        return _timestamp
    if descriptor.full_name.startswith("google.protobuf.") or any(len(one.fields) > 1 for one in descriptor.oneofs):
        return _refuse
    fields: dict[str, tuple[str, Convert]] = {}

    def convert(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise _Unsure
        found: dict[str, Any] = {}
        for key, one in value.items():
            name, convert_one = fields[key]
            if one is not None:
                if name in found:
                    raise _Unsure
                found[name] = convert_one(one)
        return found

    for field in descriptor.fields:
        fields[field.name] = fields[field.json_name] = field.name, _field(field)
    return convert


def _field(field: FieldDescriptor) -> Convert:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        if key.type != FieldDescriptor.TYPE_STRING:
            return _refuse
        is_struct = value.message_type is not None and value.message_type.full_name == STRUCT
        return _map(_struct_of_map if is_struct else _single(value))
    one = _single(field)
    return _list(one) if field.is_repeated else one


def _single(field: FieldDescriptor) -> Convert:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        late = field.message_type
        return lambda value: _message(late)(value)  # a type may contain itself
    if field.type == FieldDescriptor.TYPE_ENUM:
        return _enum({name: value.number for name, value in field.enum_type.values_by_name.items()})
    return _SCALARS.get(field.type, _refuse)


def _refuse(_: Any) -> Any:
    raise _Unsure


def _list(one: Convert) -> Convert:
    def convert(value: Any) -> list[Any]:
        if type(value) is not list:
            raise _Unsure
        return [one(item) for item in value]

    return convert


def _map(one: Convert) -> Convert:
    def convert(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise _Unsure
        return {key: one(item) for key, item in value.items()}

    return convert


def _enum(numbers: Mapping[str, int]) -> Convert:
    def convert(value: Any) -> int:
        if type(value) is not str:
            raise _Unsure
        return numbers[value]

    return convert


def _string(value: Any) -> str:
    if type(value) is not str:
        raise _Unsure
    return value


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise _Unsure
    return value


def _int(value: Any) -> int:
    if type(value) is not int:
        raise _Unsure
    return value


def _double(value: Any) -> float:
    if type(value) is float and value - value == 0.0:  # it is finite
        return value
    if type(value) is int and -EXACT <= value <= EXACT:
        return value
    raise _Unsure


_SCALARS: dict[int, Convert] = {
    FieldDescriptor.TYPE_STRING: _string,
    FieldDescriptor.TYPE_BOOL: _bool,
    FieldDescriptor.TYPE_INT32: _int,
    FieldDescriptor.TYPE_INT64: _int,
    FieldDescriptor.TYPE_DOUBLE: _double,
}


def _struct(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise _Unsure
    for one in value.values():
        kind = type(one)
        if kind is not str and kind is not bool and one is not None:
            _double(one)  # lists and objects are seldom, and no features
    return value


def _timestamp(value: Any) -> Timestamp:
    found = Timestamp()
    found.FromJsonString(value)  # as `json_format` does
    return found


def _struct_of_map(value: Any) -> dict[str, Any]:
    """The constructor of a map takes the fields of Struct, not what they stand for."""
    return {"fields": {key: {_KINDS[type(one)]: one} for key, one in _struct(value).items()}}


_KINDS = {str: "string_value", bool: "bool_value", float: "number_value", int: "number_value"}


def to_json(message: Message) -> bytes:
    """Without fields that are not set."""
    return json.dumps(_to_object(message)).encode()


def _to_object(message: Message) -> Any:
    write = _writers(message.DESCRIPTOR)
    if write is None:
        return json_format.MessageToDict(message)
    found = {}
    for field, value in message.ListFields():
        name, convert = write[field.number]
        found[name] = convert(value)
    return found


@cache
def _writers(descriptor: Descriptor) -> Mapping[int, tuple[str, Convert]] | None:
    """By number of the field; None for a type that `json_format` has to write."""
    if descriptor.full_name.startswith("google."):
        return None
    found = {field.number: (field.json_name, _writer(field)) for field in descriptor.fields}
    return None if any(convert is _refuse for _, convert in found.values()) else found


def _writer(field: FieldDescriptor) -> Convert:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        return _refuse
    one = _writer_of_one(field)
    if one is _refuse or not field.is_repeated:
        return one
    return lambda values: [one(value) for value in values]


def _writer_of_one(field: FieldDescriptor) -> Convert:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return _write_struct if field.message_type.full_name == STRUCT else _to_object
    if field.type == FieldDescriptor.TYPE_ENUM:
        names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
        return lambda number: names.get(number, number)
    return _WRITERS.get(field.type, _refuse)


def _write_struct(struct: Any) -> Any:
    return json_format.MessageToDict(struct) if struct.fields else {}


def _write_double(value: float) -> float | str:
    return value if value - value == 0.0 else _NOT_FINITE[str(value)]


_NOT_FINITE = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}


def _same(value: Any) -> Any:
    return value


_WRITERS: dict[int, Convert] = {
    FieldDescriptor.TYPE_STRING: _same,
    FieldDescriptor.TYPE_BOOL: _same,
    FieldDescriptor.TYPE_INT32: _same,
    FieldDescriptor.TYPE_INT64: str,
    FieldDescriptor.TYPE_DOUBLE: _write_double,
}
