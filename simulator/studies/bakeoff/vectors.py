"""Contexts -> the dense vectors that most bandit libraries take. Called by `rivals.py` and what it names.

One place for each value of a field or feature, one for each number, scaled.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decider.types import CONTEXT_FIELDS, Context
from simulator.worlds.world import Floats

Value = tuple[str, str]
"""A field or feature, and which of its values."""


def categories(context: Context) -> list[Value]:
    """What is known by name: the fields given, text and flags.

    >>> categories(Context(segment="vip", features={"age": 31.0, "member": True}))
    [('segment', 'vip'), ('member', 'True')]
    """
    fields = [(name, value) for name, value in zip(CONTEXT_FIELDS, context[:5], strict=True) if value]
    features = context.features.items()
    return fields + [(name, str(value)) for name, value in features if isinstance(value, str | bool)]


def numbers(context: Context) -> list[tuple[str, float]]:
    """The numeric features.

    >>> numbers(Context(segment="vip", features={"age": 31.0, "member": True}))
    [('age', 31.0)]
    """
    features = context.features.items()
    return [(name, float(value)) for name, value in features if not isinstance(value, str | bool)]


@dataclass(frozen=True, slots=True)
class Scale:
    """Brings a number's usual range to [-1, 1]."""

    middle: float
    half: float

    def __call__(self, value: float) -> float:
        """As far beyond as the value is beyond."""
        return (value - self.middle) / self.half


@dataclass(frozen=True, slots=True)
class Vectors:
    """places: of each value. scales: of each number, with its place. What is in neither is left out."""

    places: dict[Value, int]
    scales: dict[str, tuple[int, Scale]]

    @classmethod
    def seen_in(cls, contexts: tuple[Context, ...]) -> Vectors:
        """All values of those contexts; numbers from the least to the greatest.

        >>> found = Vectors.seen_in((Context(segment="new"), Context(features={"age": 20.0}), Context("vip")))
        >>> found.of(Context(segment="vip", features={"age": 20.0})).tolist()
        [0.0, 1.0, 0.0]
        """
        values = dict.fromkeys(value for context in contexts for value in categories(context))
        found: dict[str, list[float]] = {}
        for context in contexts:
            for name, number in numbers(context):
                found.setdefault(name, []).append(number)
        scales = {name: (len(values) + place, _scale(seen)) for place, (name, seen) in enumerate(found.items())}
        return cls({value: place for place, value in enumerate(values)}, scales)

    def __len__(self) -> int:
        return len(self.places) + len(self.scales)

    def of(self, context: Context) -> Floats:
        """The vector: 1 where a value is there, scaled numbers, otherwise 0."""
        vector = np.zeros(len(self))
        for value in categories(context):
            if value in self.places:
                vector[self.places[value]] = 1.0
        for name, number in self.scaled(context):
            vector[self.scales[name][0]] = number
        return vector

    def scaled(self, context: Context) -> list[tuple[str, float]]:
        """The numeric features that the sample had, scaled."""
        return [(name, self.scales[name][1](number)) for name, number in numbers(context) if name in self.scales]


def _scale(seen: list[float]) -> Scale:
    low, high = min(seen), max(seen)
    return Scale((low + high) / 2, (high - low) / 2 or 1.0)
