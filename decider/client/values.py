"""What a page has -> what a request can carry. Whatever cannot be carried is refused, and the error names the field.

A page passes on what it finds: None where a price is missing, Decimals from Django, scalars from numpy and pandas,
members of enums. Called by `messages.py` and `fallback.py`; pure. Every function raises TypeError or ValueError.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from numbers import Number
from typing import Any, SupportsFloat, TypeGuard

from decider.types import FeatureValue


def text(field: str, value: object) -> str:
    """A text that may be empty.

    >>> text("unit_id", 4711)
    Traceback (most recent call last):
        ...
    TypeError: unit_id: is of type int; give a text, for example str(...)
    """
    value = _content(value)
    if not isinstance(value, str):
        raise TypeError(f"{field}: is {type_of(value)}; give a text, for example str(...)")
    plain = str.__str__(value)  # a subclass may print as something else
    try:
        plain.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{field}: has half of a surrogate pair, which no UTF-8 has; replace it") from None
    return plain


def full_text(field: str, value: object) -> str:
    """A text that is not empty."""
    found = text(field, value)
    if not found:
        raise ValueError(f"{field}: is empty; give a text")
    return found


def texts(field: str, value: object) -> list[str]:
    """Several texts that are not empty.

    >>> texts("eligible_actions", "sale")
    Traceback (most recent call last):
        ...
    TypeError: eligible_actions: is of type str; give a list of texts
    """
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise TypeError(f"{field}: is {type_of(value)}; give a list of texts")
    return [full_text(f"{field}[{index}]", one) for index, one in enumerate(value)]


def flag(field: str, value: object) -> bool:
    """True or False."""
    value = _content(value)
    if not isinstance(value, bool):
        raise TypeError(f"{field}: is {type_of(value)}; give True or False")
    return value


def number(field: str, value: object) -> float:
    """A finite number, of whatever type.

    >>> from decimal import Decimal
    >>> number("value", Decimal("19.90"))
    19.9
    """
    value = _content(value)
    if not _is_number(value):
        raise TypeError(f"{field}: is {type_of(value)}; give a number")
    try:
        found = float(value)
    except Exception as error:  # whatever the number's own code raises
        raise ValueError(f"{field}: {type_of(value)} that is no finite number ({error})") from error
    if not math.isfinite(found):
        raise ValueError(f"{field}: is {found}; give a finite number")
    return found


def feature(field: str, value: object) -> FeatureValue | None:
    """A category, a number or a flag; None is unknown.

    >>> feature("price", [1, 2])
    Traceback (most recent call last):
        ...
    TypeError: price: is of type list; give a text, a number, a flag, or None where it is unknown
    """
    value = _content(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return text(field, value)
    if _is_number(value):
        return number(field, value)
    raise TypeError(f"{field}: is {type_of(value)}; give a text, a number, a flag, or None where it is unknown")


def features(path: str, known: object) -> dict[str, FeatureValue]:
    """Features by name, without the unknown ones. path: what stands before a name in errors."""
    if not isinstance(known, Mapping):
        raise TypeError(f"{path.rstrip('.') or 'features'}: is {type_of(known)}; give a mapping of names to values")
    found = {}
    for name, value in known.items():
        name = text(f"{path.rstrip('.') or 'features'}: a name", name)
        one = feature(f"{path}{name}", value)
        if one is not None:
            found[name] = one
    return found


def tree(field: str, value: object) -> Any:
    """Anything that JSON has, with the scalars of above."""
    if isinstance(value, Mapping):
        return {text(f"{field}: a name", name): tree(f"{field}.{name}", one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [tree(f"{field}[{index}]", one) for index, one in enumerate(value)]
    return feature(field, value)


def _content(value: object) -> Any:
    """Of a member of an enum, and of a scalar of numpy or its like: what stands in it."""
    if isinstance(value, enum.Enum):
        return value.value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


def _is_number(value: object) -> TypeGuard[SupportsFloat]:
    """Decimal is a Number; other libraries' numbers know __float__, and so do their arrays, which have a length."""
    return isinstance(value, Number) or (hasattr(value, "__float__") and not hasattr(value, "__len__"))


def type_of(value: object) -> str:
    """For an error: values may be personal, so it names the type alone.

    >>> type_of(None), type_of("sale")
    ('None', 'of type str')
    """
    return "None" if value is None else f"of type {type(value).__name__}"
