"""Context and actions -> Vowpal Wabbit text lines. The only place that writes that format.

Namespace C holds the context, A the action. Separator characters are escaped, so that no input can become another
feature, another namespace or another line; features are sorted, so that their order does not matter. Called by `vw.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import lru_cache

from decider.types import CONTEXT_FIELDS, ActionId, Context, Features, FeatureValue

ENCODER_VERSION = 1
"""Part of every model. Any change to the lines below needs a new number: a model reads only its own encoding."""

SMALLEST = 1e-6
LINEAR_UP_TO = 1e3

_UNSAFE = re.compile(r"[\s\x00-\x20\x7f|:=%]")


def _escape(text: str) -> str:
    return _UNSAFE.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), text)


@lru_cache(maxsize=65_536)
def _category(name: str, value: str) -> str:
    return f" {_escape(name)}={_escape(value)}"


@lru_cache(maxsize=65_536)
def _number_name(name: str) -> str:
    return f" {_escape(name)}:"


def _feature(name: str, value: FeatureValue) -> str:
    if isinstance(value, str):
        return _category(name, value)
    if isinstance(value, bool):
        return _category(name, "true" if value else "false")
    return f"{_number_name(name)}{_number(value)!r}"


def _number(value: float) -> float:
    """What VW sees of a number: it computes in float32, with squares of products of up to four features.

    Below 1e-6 it counts as 0; beyond 1,000 it grows only with the logarithm, so that one extreme value cannot
    overflow the weights.

    >>> _number(12.5), _number(1e-150), round(_number(1e12))
    (12.5, 0.0, 21723)
    """
    size = abs(float(value))
    if size <= LINEAR_UP_TO:
        return float(value) if size >= SMALLEST else 0.0
    return math.copysign(LINEAR_UP_TO * (1 + math.log(size / LINEAR_UP_TO)), value)


def _features(features: Features) -> str:
    return "".join([_feature(name, features[name]) for name in sorted(features)])


def context_line(context: Context) -> str:
    """The shared line of one decision.

    >>> context_line(Context(segment="new visitor", features={"age": 31.0, "vip": True}))
    'shared |C segment=new%20visitor age:31.0 vip=true'
    """
    line = _fields_line(context[:5])
    return line + _features(context.features) if context.features else line


@lru_cache(maxsize=65_536)
def _fields_line(fields: tuple[str, ...]) -> str:
    named = zip(CONTEXT_FIELDS, fields, strict=True)
    return "shared |C" + "".join([_category(name, value) for name, value in named if value])


def action_line(action: ActionId, kind: str, features: Features, extra: Features | None = None) -> str:
    """The line of one action; `extra` features, known only now, win over its own.

    >>> action_line(ActionId("sale"), "offer", {"price": 9.5, "colour": "red|blue"}, {"price": 8.0})
    '|A id=sale kind=offer colour=red%7Cblue price:8.0'
    """
    merged: Mapping[str, FeatureValue] = {**features, **extra} if extra else features
    return f"|A{_category('id', action)}{_category('kind', kind)}{_features(merged)}"
