"""Doubly robust, but no correction where its weight would be too large. Called by the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from decider.estimate.checks import BadArgument, finite, same, weight, weights
from decider.estimate.dr import dr_terms
from decider.estimate.sample import Floats
from decider.estimate.slope import Spread, choose, limits_for, normal_interval
from decider.estimate.terms import MeanOfTerms


class SwitchDr(MeanOfTerms):
    """Switch-DR: (1/n) sum of expected + w 1{w <= limit} (reward - predicted) with w = pmf / propensity.

    Wang, Agarwal & Dudik, ICML 2017, section 4 (SWITCH-DR). As biased as the reward model is on actions whose weight
    is above the limit. limit in [0, inf]: 0 is DM, inf is DR; arguments and errors as of DoublyRobust. Only
    estimators of one limit can be merged.

    >>> import numpy as np
    >>> switch = SwitchDr(limit=5.0)
    >>> switch.add(propensity=0.1, reward=1.0, pmf=1.0, predicted=0.0, expected=0.5)
    >>> one = np.ones(1)
    >>> switch.add_many(propensity=one / 2, reward=one, pmf=one, predicted=one / 2, expected=one / 2)
    >>> switch.value, (switch + SwitchDr(limit=5.0)).count
    (1.0, 2)
    """

    __slots__ = ("limit",)

    def __init__(self, limit: float) -> None:
        super().__init__()
        if not limit >= 0:
            raise BadArgument("limit", f"is {limit}, which is not 0 or more")
        self.limit = limit

    @classmethod
    def tune(
        cls,
        *,
        propensity: Floats,
        reward: Floats,
        pmf: Floats,
        predicted: Floats,
        expected: Floats,
        limits: Sequence[float] = (),
        interval: Spread = normal_interval,
    ) -> Self:
        """An empty estimator with the limit that SLOPE chooses on these decisions, of `limits` or `slope.limits_for`.

        interval: of the mean of terms; by unit where units come back.

        >>> import numpy as np
        >>> p, pmf, q = np.full(100, 0.5), np.full(100, 0.5), np.zeros(100)
        >>> SwitchDr.tune(propensity=p, reward=np.arange(100.0), pmf=pmf, predicted=q, expected=q).limit
        inf
        """

        def terms(limit: float) -> Floats:
            columns = {"reward": reward, "predicted": predicted, "expected": expected}
            return cls(limit).terms(propensity=propensity, pmf=pmf, **columns)

        grid = limits or limits_for(weights(propensity=propensity, pmf=pmf))
        return cls(choose(grid, terms, interval))

    def add(self, *, propensity: float, reward: float, pmf: float, predicted: float, expected: float) -> None:
        """One more decision."""
        w = weight(propensity=propensity, pmf=pmf)
        finite(reward=reward, predicted=predicted, expected=expected)
        self.mean.add(expected + (w * (reward - predicted) if w <= self.limit else 0.0))

    def add_many(self, *, propensity: Floats, reward: Floats, pmf: Floats, predicted: Floats, expected: Floats) -> None:
        """Many more, (n,) each."""
        self.mean.add_many(
            self.terms(propensity=propensity, reward=reward, pmf=pmf, predicted=predicted, expected=expected)
        )

    def terms(self, *, propensity: Floats, reward: Floats, pmf: Floats, predicted: Floats, expected: Floats) -> Floats:
        """(n,): the term of each decision; their mean is the estimate."""
        w = weights(propensity=propensity, pmf=pmf)
        w *= w <= self.limit
        return dr_terms(w, reward=reward, predicted=predicted, expected=expected)

    def __add__(self, other: Self) -> Self:
        """As if one had seen the decisions of both."""
        same("limit", self.limit, other.limit)
        return super().__add__(other)
