"""Estimates that are the mean of one term a decision: what they share. Subclassed by ips.py, dr.py and their kin.

Such an estimate is all that its terms are: an interval needs nothing else (`sample.by_unit` adds them up by unit). So
each of them has `terms` for arrays, and `add_many` is the mean of these.
"""

from __future__ import annotations

from copy import copy
from typing import Self

from decider.estimate.mean import Mean


class MeanOfTerms:
    """The mean of the terms seen so far; mergeable with `+`. A subclass says what a decision's term is.

    mean: of the terms, with their variance; its interval takes every decision for an independent one.
    """

    __slots__ = ("mean",)

    def __init__(self) -> None:
        self.mean = Mean()

    @property
    def count(self) -> int:
        """Decisions seen."""
        return self.mean.count

    @property
    def value(self) -> float | None:
        """The estimate, in the reward's unit; None before the first decision."""
        return self.mean.value if self.mean.count else None

    def __add__(self, other: Self) -> Self:
        """As if one had seen the decisions of both."""
        both = copy(self)
        both.mean = self.mean + other.mean
        return both
