"""Features as models see them: names and numbers, the same for every algorithm. Called by `protocol.py`, `vw/` and
`thompson/`.

A category or a flag becomes a name of its own, `device=mobile` or `vip=true`, with the number 1; a number keeps its
name, `age:`, and is tamed. So the flag True and the number 1 differ, -0.0 and 0.0 are the same, and a `Vector` is a key
that a cache can trust: Python's own `True == 1` is none. Characters that separate things in a model's text are escaped,
so that no input can become another feature. Names are sorted: the order of a caller's map does not matter.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

from decider.types import CONTEXT_FIELDS, Features, FeatureValue

ENCODER_VERSION = 1
"""Part of every model's name. Any change to the vectors needs a new number: a model knows only its own names."""

Pair = tuple[str, float]
Vector = tuple[Pair, ...]
"""Name and value of each feature; the value of a category is 1, the name of a number ends in `:`."""

SMALLEST = 1e-6
LINEAR_UP_TO = 1e3

CACHE_ENTRIES, CACHED_CHARACTERS = 10_000, 200
"""Most entries of each cache of texts here, and most characters of what is kept: then a number of entries is a number
of bytes, 20 MB a cache at the most, 3 MB in practice."""

_UNSAFE = re.compile(r"[\s\x00-\x20\x7f|:=%]")


def fields_vector(fields: tuple[str, ...]) -> Vector:
    """The context's own fields, in the order of CONTEXT_FIELDS, without those that were not given.

    >>> fields_vector(("new visitor", "mobile", "", "", ""))
    (('segment=new%20visitor', 1.0), ('device=mobile', 1.0))
    """
    known = sum(map(len, fields)) <= CACHED_CHARACTERS
    return _fields_vector(fields) if known else _fields_vector.__wrapped__(fields)


@lru_cache(maxsize=CACHE_ENTRIES)
def _fields_vector(fields: tuple[str, ...]) -> Vector:
    return tuple([category(name, value) for name, value in zip(CONTEXT_FIELDS, fields, strict=True) if value])


def vector_of(features: Features) -> Vector:
    """Free features, by name.

    >>> vector_of({"vip": True, "age": 31})
    (('age:', 31.0), ('vip=true', 1.0))
    """
    vector = []
    for name in sorted(features):
        value = features[name]
        if type(value) is float and SMALLEST <= value <= LINEAR_UP_TO:  # most numbers, without three calls
            vector.append((number_name(name), value))
        else:
            vector.append(_pair(name, value))
    return tuple(vector)


def _pair(name: str, value: FeatureValue) -> Pair:
    if isinstance(value, str):
        return category(name, value)
    if isinstance(value, bool):
        return category(name, "true" if value else "false")
    return number_name(name), tame(value)


def category(name: str, value: str) -> Pair:
    """A category's one feature.

    >>> category("colour", "red|blue")
    ('colour=red%7Cblue', 1.0)
    """
    known = len(name) + len(value) <= CACHED_CHARACTERS
    return _category(name, value) if known else _category.__wrapped__(name, value)


@lru_cache(maxsize=CACHE_ENTRIES)
def _category(name: str, value: str) -> Pair:
    return f"{_escape(name)}={_escape(value)}", 1.0


@lru_cache(maxsize=CACHE_ENTRIES)  # names have at most 64 characters
def number_name(name: str) -> str:
    """What a model calls a number.

    >>> number_name("age of visit")
    'age%20of%20visit:'
    """
    return f"{_escape(name)}:"


def _escape(text: str) -> str:
    return _UNSAFE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), text)


def tame(value: float) -> float:
    """What models see of a number: VW computes in float32, with squares of products of up to four features.

    Below 1e-6 it counts as 0; beyond 1,000 it grows only with the logarithm, so that one extreme value cannot
    overflow the weights.

    >>> tame(12.5), tame(1e-150), round(tame(1e12))
    (12.5, 0.0, 21723)
    """
    size = abs(float(value))
    if size <= LINEAR_UP_TO:
        return float(value) if size >= SMALLEST else 0.0
    return math.copysign(LINEAR_UP_TO * (1 + math.log(size / LINEAR_UP_TO)), value)
