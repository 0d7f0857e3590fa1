"""The contract about the features of contexts, and what a context has that breaks it.

A part of an experiment's definition. The server asks before it decides; `decide` never sees it, since it changes no
draw. Called by `server/request_checks.py`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from decider.types import CONTEXT_FIELDS, Context, Features, FeatureValue

SHOWN_VALUES = 20
"""Known values that a text about an unknown one names."""


class FeatureType(enum.StrEnum):
    """What a feature's value is."""

    CATEGORY = "category"
    NUMBER = "number"
    FLAG = "flag"


class FeatureProblem(enum.StrEnum):
    """In which way a context breaks the contract."""

    MISSING = "missing"
    UNDECLARED = "undeclared"
    TYPE = "type"
    VALUE = "value"
    RANGE = "range"


@dataclass(frozen=True, slots=True)
class FeatureRule:
    """values: the categories that are known; none: every one is. minimum, maximum: of a number. refuse: whether a
    request that breaks this rule is refused; None: as the schema says."""

    type: FeatureType = FeatureType.CATEGORY
    values: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    required: bool = False
    refuse: bool | None = None


class Breach(NamedTuple):
    """One feature of a request that breaks the contract. declared: whether its name is in the schema."""

    feature: str
    problem: FeatureProblem
    text: str
    declared: bool
    refused: bool

    @property
    def path(self) -> str:
        """Of the field in the request."""
        return f"context.{self.feature}" if self.feature in CONTEXT_FIELDS else f"context.features[{self.feature}]"


@dataclass(frozen=True, slots=True)
class FeatureSchema:
    """rules: by the name of a feature, or of one of the five fields. refuse: whether requests that break it are
    refused; else they are only counted."""

    rules: Mapping[str, FeatureRule] = field(default_factory=dict)
    refuse: bool = False

    def breaches(self, context: Context) -> Iterator[Breach]:
        """What is wrong with a context.

        >>> schema = FeatureSchema({"segment": FeatureRule(values=("new", "vip"), required=True)}, refuse=True)
        >>> for one in schema.breaches(Context("vpi", features={"age": 31.0})):
        ...     print(one.path, one.text)
        context.segment is 'vpi', which is not among the known values: new, vip
        context.features[age] has no rule in the experiment's schema; it has rules for segment
        """
        fields: Features = dict(zip(CONTEXT_FIELDS, context[:5], strict=True))
        given = {name: value for name, value in {**fields, **context.features}.items() if value != ""}
        for name, rule in self.rules.items():
            found = _problem(rule, given.get(name))
            if found is not None:
                refused = self.refuse if rule.refuse is None else rule.refuse
                yield Breach(name, *found, declared=True, refused=refused)
        for name in sorted(given.keys() - self.rules.keys()):
            text = f"has no rule in the experiment's schema; it has rules for {_shown([*self.rules])}"
            yield Breach(name, FeatureProblem.UNDECLARED, text, declared=False, refused=self.refuse)


def _problem(rule: FeatureRule, value: FeatureValue | None) -> tuple[FeatureProblem, str] | None:
    if value is None:
        return (FeatureProblem.MISSING, f"is missing: it is required, a {rule.type}") if rule.required else None
    if type_of(value) is not rule.type:
        return FeatureProblem.TYPE, f"is the {type_of(value)} {value!r}; it must be a {rule.type}"
    if isinstance(value, str):
        if rule.values and value not in rule.values:
            return FeatureProblem.VALUE, f"is {value!r}, which is not among the known values: {_shown(rule.values)}"
    elif rule.minimum is not None and rule.maximum is not None and not rule.minimum <= value <= rule.maximum:
        return FeatureProblem.RANGE, f"is {value:g}, which is not in [{rule.minimum:g}, {rule.maximum:g}]"
    return None


def type_of(value: FeatureValue) -> FeatureType:
    """Of a value.

    >>> [type_of(value).value for value in ("vip", 31.0, True)]
    ['category', 'number', 'flag']
    """
    if isinstance(value, str):
        return FeatureType.CATEGORY
    return FeatureType.FLAG if isinstance(value, bool) else FeatureType.NUMBER


def _shown(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - SHOWN_VALUES} more" if len(names) > SHOWN_VALUES else ""
    return ", ".join(names[:SHOWN_VALUES]) + more
