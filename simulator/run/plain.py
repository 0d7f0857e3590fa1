"""Frozen dataclasses of plain values <-> what JSON holds, so that a result can be kept and read again as it was.

Called by `keep.py`. Floats survive exactly; tuples, nested dataclasses and optional values come back as what they were.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


class NotThis(ValueError):
    """The value is not of that type."""


def to_plain(value: Any) -> Any:
    """Dataclasses become objects of their fields, tuples lists.

    >>> from simulator.run.task import Task
    >>> to_plain((Task("storefront", "uniform", seed=1, rounds=10),))
    [{'world': 'storefront', 'policy': 'uniform', 'seed': 1, 'rounds': 10, 'delayed': True}]
    """
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(inner) for inner in value]
    return value


def from_plain(kind: Any, value: Any) -> Any:
    """What `to_plain` was given, if it was of this type. Raises NotThis.

    >>> from simulator.run.task import Task
    >>> task = Task("storefront", "uniform", seed=1, rounds=10)
    >>> from_plain(Task, to_plain(task)) == task
    True
    """
    kind = getattr(kind, "__supertype__", kind)
    if is_dataclass(kind):
        return _dataclass(kind, value)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _first_that_fits(inner, value)
    if origin is Literal:
        return _checked(value, value in inner, kind)
    if kind is tuple or origin is tuple:
        return _tuple(inner, value)
    if origin is not None and issubclass(origin, Mapping):
        return {key: from_plain(inner[1], one) for key, one in _checked(value, isinstance(value, dict), kind).items()}
    if origin is not None and issubclass(origin, Sequence):
        return [from_plain(inner[0], one) for one in _checked(value, isinstance(value, list), kind)]
    return _simple(kind, value)


def _dataclass(kind: Any, value: Any) -> Any:
    hints = _hints(kind)
    _checked(value, isinstance(value, dict) and value.keys() == hints.keys(), kind)
    return kind(**{name: from_plain(hint, value[name]) for name, hint in hints.items()})


@lru_cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _first_that_fits(kinds: tuple[Any, ...], value: Any) -> Any:
    for kind in kinds:
        try:
            return from_plain(kind, value)
        except NotThis:
            continue
    raise NotThis(f"{value!r} is none of {kinds}")


def _tuple(inner: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    _checked(value, isinstance(value, list), tuple)
    if len(inner) == 2 and inner[1] is ...:
        return tuple([from_plain(inner[0], one) for one in value])
    _checked(value, len(inner) == len(value), tuple)
    return tuple([from_plain(one, given) for one, given in zip(inner, value, strict=True)])


def _simple(kind: Any, value: Any) -> Any:
    if kind is Any:
        return value
    kind = type(None) if kind is None else kind
    exact = isinstance(value, bool) == (kind is bool)
    return _checked(value, exact and isinstance(value, (int, float) if kind is float else kind), kind)


def _checked(value: Any, right: bool, kind: Any) -> Any:
    if not right:
        raise NotThis(f"{value!r} is no {kind}")
    return value
