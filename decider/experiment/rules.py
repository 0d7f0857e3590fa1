"""Which of an experiment's actions a context and a time allow. Called by `decide` and, for what is wrong in a rule, by
`checks.py`.

Rules are CEL (cel.dev), computed by its reference implementation: typed, without side effects, always ending, and the
same on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from cel_expr_python import cel

from decider.types import CONTEXT_FIELDS, ActionId, Context

LONGEST_RULE = 1_000
"""Characters."""

COMPILED = 10_000
"""Most rules that are kept compiled; of versions that no longer serve, too."""

_ENVIRONMENT = cel.NewEnv(
    variables={**dict.fromkeys(CONTEXT_FIELDS, cel.Type.STRING), "features": cel.Type.MAP},
)


def rule_problem(text: str) -> str | None:
    """What is wrong with a rule, in words; None for a right one.

    >>> rule_problem("segment == 'vip'")
    >>> rule_problem("segmnt == 'vip'")
    "undeclared reference to 'segmnt' (in container '')"
    >>> rule_problem("segment")
    'is a STRING, not true or false'
    """
    if len(text) > LONGEST_RULE:
        return f"is longer than {LONGEST_RULE} characters"
    try:
        found = _compiled(text).return_type()
    except RuntimeError as error:
        return _in_words(str(error))
    return None if found in (cel.Type.BOOL, cel.Type.DYN) else f"is a {found}, not true or false"


def _in_words(message: str) -> str:
    """Of the library's message its first sentence: "INVALID_ARGUMENT: ERROR: <input>:1:1: words\n | the rule ..."."""
    return message.partition("\n")[0].rpartition("<input>:")[2].partition(": ")[2] or message


@lru_cache(maxsize=COMPILED)
def _compiled(text: str) -> cel.Expression:
    return _ENVIRONMENT.compile(text)


_CONSTANTS = cel.NewEnv(variables={})

_EQUALITY = re.compile(
    r"""\s*(?:(?P<field>\w+)|features\.(?P<name>\w+)|features\['(?P<key>[^'\\]+)'\])"""
    r"""\s*==\s*(?:'(?P<one>[^'\\]*)'|"(?P<other>[^"\\]*)")\s*"""
)


def is_never(text: str) -> bool:
    """Whether a right rule holds for no context: it looks at none, and is not true.

    >>> is_never("false"), is_never("1 == 2"), is_never("true"), is_never("segment == 'vip'")
    (True, True, False, False)
    """
    if not text:
        return False
    try:
        found = _CONSTANTS.compile(text)
    except RuntimeError:  # it names a part of the context
        return False
    return not _is_true(found, _CONSTANTS.Activation({}))


class Equality(NamedTuple):
    """A rule that wants one value of one feature. feature: its name in a schema, where context fields stand, too."""

    feature: str
    value: str


def equality(text: str) -> Equality | None:
    """What a rule says that is nothing but this; None for others.

    >>> equality("features.plan == 'gold'")
    Equality(feature='plan', value='gold')
    >>> equality("segment == 'vip' || features.plan == 'gold'")
    """
    found = _EQUALITY.fullmatch(text)
    if found is None:
        return None
    name = found["name"] or found["key"]
    if name in CONTEXT_FIELDS:  # a feature that has the name of a field
        return None
    return Equality(name or found["field"], found["one"] or found["other"] or "")


class Rules:
    """The rules of a version's actions: texts by action; those without one are always allowed."""

    __slots__ = ("_texts",)

    def __init__(self, texts: Mapping[ActionId, str]) -> None:
        self._texts = texts

    def allowed(self, eligible: tuple[ActionId, ...], context: Context) -> tuple[ActionId, ...]:
        """Those of the actions that the context allows."""
        activation = _ENVIRONMENT.Activation(_variables(context))
        texts = self._texts
        return tuple([id_ for id_ in eligible if id_ not in texts or _holds(texts[id_], activation)])


def _variables(context: Context) -> dict[str, Any]:
    fields = {name: _known(text) for name, text in zip(CONTEXT_FIELDS, context[:-1], strict=True)}
    return {**fields, "features": {_known(name): _known(value) for name, value in context.features.items()}}


def _known(value: Any) -> Any:
    """The library ends a text at the character 0: "vip\\0" must not be "vip" for it."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) and "\0" in value else value


def _holds(text: str, activation: cel.Activation) -> bool:
    return _is_true(_compiled(text), activation)


def _is_true(rule: cel.Expression, activation: cel.Activation) -> bool:
    """False, too, where the rule cannot be computed: an error is a value of another type."""
    try:
        return rule.eval(activation).value() is True
    except RuntimeError:  # it would take too many iterations: CEL's bound, a number, so the same in a replay
        return False
