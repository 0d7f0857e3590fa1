"""How much each field of a context contributes to the gap between what a policy expects of two actions. Pure.

Called by `replay/explain.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from decider.policy.protocol import Choice, Policy
from decider.types import CONTEXT_FIELDS, Context, FeatureValue


class Contribution(NamedTuple):
    """What a field of the context with that value adds to the gap, in the reward's unit."""

    field: str
    value: FeatureValue
    reward: float


class Gap(NamedTuple):
    """What a policy expects of one action more than of another one, and where that comes from.

    constant: without any context. contributions: of every field, in the order of the context. together: of three and
    more fields at once, which belongs to none of them; 0 (but for rounding) where a model multiplies two at most,
    unless Vowpal Wabbit cuts a prediction off at the largest or smallest cost that it has seen.
    The constant, all contributions and `together` sum to the difference of `expected`. spread: see `Scores`.
    """

    expected: tuple[float, float]
    spread: tuple[float, float] | None
    constant: float
    contributions: tuple[Contribution, ...]
    together: float

    @property
    def total(self) -> float:
        """The difference of the two."""
        return self.expected[0] - self.expected[1]


def asked_contexts(context: Context) -> int:
    """How many contexts a policy is asked about for `gap_between`."""
    return 2 + 2 * len(fields_of(context))


def gap_between(policy: Policy, context: Context, actions: Sequence[Choice], *, first: int, second: int) -> Gap | None:
    """first, second: indexes of the two actions. None where the context makes no difference to the policy.

    A field contributes the mean of what it adds to an empty context and of what the whole context loses without it. For
    a model that is linear in the fields both are the same; with products of two fields it is the Shapley value (Shapley
    1953), which gives each of the two one half.
    """
    fields = fields_of(context)
    alone = [_with_only(context, name) for name, _ in fields]
    left = [_without(context, name) for name, _ in fields]
    scores = policy.scores([context, Context(), *alone, *left], actions)
    if scores is None:
        return None
    full, constant, *others = [one.expected[first] - one.expected[second] for one in scores]
    contributions = tuple(
        [
            Contribution(name, value, (full - without + only - constant) / 2)
            for (name, value), only, without in zip(fields, others[: len(fields)], others[len(fields) :], strict=True)
        ]
    )
    asked = scores[0]
    return Gap(
        (asked.expected[first], asked.expected[second]),
        (asked.spread[first], asked.spread[second]) if asked.spread else None,
        constant,
        contributions,
        full - constant - sum([one.reward for one in contributions]),
    )


def fields_of(context: Context) -> list[tuple[str, FeatureValue]]:
    """Names and values of what is known: the five fields first, then the features by name.

    >>> fields_of(Context(device="mobile", features={"age": 31.0}))
    [('device', 'mobile'), ('features.age', 31.0)]
    """
    own = [(name, value) for name, value in zip(CONTEXT_FIELDS, context[:5], strict=True) if value]
    return [*own, *[(f"{FEATURES}{name}", context.features[name]) for name in sorted(context.features)]]


FEATURES = "features."
"""Begins the name of a feature, as in rules: one may be called `segment`, too."""


def _without(context: Context, field: str) -> Context:
    return _keeping(context, lambda name: name != field)


def _with_only(context: Context, field: str) -> Context:
    return _keeping(context, lambda name: name == field)


def _keeping(context: Context, wanted: Callable[[str], bool]) -> Context:
    features = {name: value for name, value in context.features.items() if wanted(f"{FEATURES}{name}")}
    changed: dict[str, Any] = {name: "" for name in CONTEXT_FIELDS if not wanted(name)}
    return context._replace(**changed, features=features)
