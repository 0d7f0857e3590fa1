"""What an experiment file holds -> its text in TOML; `schema.parse_toml` reads it back. Pure.

Called for `decider get`, and for the values in a list of changes. Strings are JSON's, which TOML knows as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from decider.errors import InvalidExperiment, Violation

_BARE = re.compile(r"[A-Za-z0-9_-]+")

_STEERS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What a terminal or a reader's eye would take for more than text; below a blank JSON escapes by itself."""

WHOLE = 2**53
"""Below it every whole number is one float, and is written without a point."""


def toml_text(content: Mapping[str, Any]) -> str:
    """A file: single values first, then a table for each other one. Raises InvalidExperiment for a null, which TOML
    does not have.

    >>> print(toml_text({"id": "home", "actions": [{"id": "a", "payload": {"n": 1.0}}], "policy": {"fixed": {}}}))
    id = "home"
    <BLANKLINE>
    [policy]
    fixed = {}
    <BLANKLINE>
    [[actions]]
    id = "a"
    payload = { n = 1 }
    <BLANKLINE>
    """
    for path in nulls(content):
        raise InvalidExperiment(
            [
                Violation(
                    path,
                    "is null, which a TOML file cannot hold; `decider get --json` writes it",
                )
            ]
        )
    return "\n".join(_file_lines(content)) + "\n"


def nulls(value: Any, path: str = "") -> Iterator[str]:
    """Where there are any.

    >>> list(nulls({"a": [1.0, None], "b": {"c": None}}))
    ['a.1', 'b.c']
    """
    if value is None:
        yield path
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from nulls(item, f"{path}.{name}" if path else str(name))


def _file_lines(content: Mapping[str, Any]) -> Iterator[str]:
    tables = {name: value for name, value in content.items() if isinstance(value, Mapping)}
    lists = {name: value for name, value in content.items() if _is_list_of_tables(value)}
    yield from _lines({name: value for name, value in content.items() if name not in {*tables, *lists}})
    for name, table in tables.items():
        yield from ("", f"[{_key(name)}]", *_lines(table))
    for name, items in lists.items():
        for item in items:
            yield from ("", f"[[{_key(name)}]]", *_lines(item))


def _is_list_of_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _lines(table: Mapping[str, Any]) -> Iterator[str]:
    for name, value in table.items():
        yield f"{_key(name)} = {toml_value(value)}"


def toml_value(value: Any) -> str:
    """On one line; a null, which TOML does not have, for people alone.

    >>> toml_value({"a b": [1.0, 0.5, True], "c": "\\x7f"})
    '{ "a b" = [1, 0.5, true], c = "\\\\u007f" }'
    """
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _STEERS.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
        case int() | float():
            return (
                str(int(value)) if abs(value) < WHOLE and value == int(value) and str(value) != "-0.0" else repr(value)
            )
        case Mapping():
            items = [f"{_key(name)} = {toml_value(item)}" for name, item in value.items()]
            return f"{{ {', '.join(items)} }}" if items else "{}"
        case list() | tuple():
            return f"[{', '.join([toml_value(item) for item in value])}]"
        case _:
            return "null"


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else toml_value(name)
