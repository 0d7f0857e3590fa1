"""What differs between two definitions of an experiment, in words: one text for each field. Pure.

Called for the server's log, `decider apply` and whoever shows the history of an experiment. It goes through the
message's fields, so that a new field is told of without a line here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from decider.experiment.definition import Experiment
from decider.experiment.schema import file_content
from decider.experiment.shape import is_map
from decider.experiment.toml_text import toml_value
from decider.v1.experiment_pb2 import Experiment as Message

LONGEST_VALUE = 60
"""Characters of a value."""

MOST_CHANGES = 20
"""In one line."""

_WHOLE = {"payload", "relearned", "range"}
"""Fields that are told of as one."""

_KEYS = ("id", "reward")
"""Of items of a list, by which each is told of for itself."""

_NOTHING = "none"

_PLAIN = re.compile(
    r"(?!(?:none|null|true|false|inf|nan)$)(?:[A-Za-z_][\w.-]*|\d+(?:ms|[dhms])(?:\d|ms|[dhms])*)", re.ASCII
)
"""Texts that need no quotation marks, since no other value looks like them."""


def changes(before: Experiment | None, after: Experiment) -> tuple[str, ...]:
    """Every field that is another one, in words; nothing where the definitions are equal.

    >>> from dataclasses import replace
    >>> from decider.experiment.definition import Action
    >>> old = Experiment(id="home", actions=(Action("sale"),))
    >>> changes(old, replace(old, actions=(Action("none"),), holdout=0.1))
    ('action sale: removed', 'action none: added', 'holdout 0 -> 0.1')
    >>> changes(None, old), changes(old, old)
    (('new experiment',), ())
    """
    if before is None:
        return ("new experiment",)
    return tuple(_message_changes(file_content(before), file_content(after), Message.DESCRIPTOR, ""))


def in_one_line(words: Sequence[str]) -> str:
    """The first few, and how many more there are.

    >>> in_one_line(["a 1 -> 2"]), in_one_line([]), in_one_line(["x"] * 22)[-13:]
    ('a 1 -> 2', 'nothing', 'x, and 2 more')
    """
    more = f", and {len(words) - MOST_CHANGES} more" if len(words) > MOST_CHANGES else ""
    return (", ".join(words[:MOST_CHANGES]) or "nothing") + more


def _message_changes(
    before: Mapping[str, Any], after: Mapping[str, Any], descriptor: Descriptor, path: str
) -> Iterator[str]:
    chosen = {field.name for oneof in descriptor.oneofs if len(oneof.fields) > 1 for field in oneof.fields}
    olds, news = ([name for name in content if name in chosen] for content in (before, after))
    if olds != news:
        yield f"{path.rstrip('.')} {_choice(before, olds, short=True)} -> {_choice(after, news)}"
    for field in descriptor.fields:
        old, new = before.get(field.name), after.get(field.name)
        if old != new and (field.name not in chosen or olds == news):
            yield from _field_changes(old, new, field, f"{path}{field.name}")


def _choice(content: Mapping[str, Any], names: Sequence[str], *, short: bool = False) -> str:
    """Which of several messages it is."""
    if not names:
        return _NOTHING
    parameters = content[names[0]]
    return names[0] if short or not parameters else _cut(f"{names[0]} {toml_value(parameters)}")


def _field_changes(old: Any, new: Any, field: FieldDescriptor, path: str) -> Iterator[str]:
    message = field.message_type
    key = _key_of(field)
    if message is not None and key:
        yield from _by_id(old or [], new or [], message, path, key)
    elif field.name in _WHOLE or message is None or not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        yield f"{path} {_text(old, field)} -> {_text(new, field)}"
    elif is_map(field) or message.full_name == "google.protobuf.Struct":
        yield from _entries(old, new, path)
    else:
        yield from _message_changes(old, new, message, f"{path}.")


def _entries(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[str]:
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield f"{path}.{name} {_text(old.get(name))} -> {_text(new.get(name))}"


def _key_of(field: FieldDescriptor) -> str:
    """What tells the items of a list apart; empty: nothing does, or it is none."""
    names = field.message_type.fields_by_name if field.message_type is not None else ()
    return next((name for name in _KEYS if name in names), "") if field.is_repeated and not is_map(field) else ""


def _by_id(old: Sequence[Any], new: Sequence[Any], message: Descriptor, path: str, key: str) -> Iterator[str]:
    olds, news = {one[key]: one for one in old}, {one[key]: one for one in new}
    name = path.removesuffix("s")
    yield from (f"{name} {id_}: removed" for id_ in olds if id_ not in news)
    yield from (f"{name} {id_}: added" for id_ in news if id_ not in olds)
    for id_ in olds:
        if id_ in news and olds[id_] != news[id_]:
            yield from _message_changes(olds[id_], news[id_], message, f"{name} {id_}.")
    if [id_ for id_ in olds if id_ in news] != [id_ for id_ in news if id_ in olds]:
        yield f"{path}: in another order"


def _text(value: Any, field: FieldDescriptor | None = None) -> str:
    """A value; one that is not there has its field's default."""
    if value is not None:
        return _cut(value if isinstance(value, str) and _PLAIN.fullmatch(value) else toml_value(value))
    if field is None or field.is_repeated or field.message_type is not None or field.has_presence:
        return _NOTHING
    return "default" if field.enum_type is not None else toml_value(field.default_value)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."
