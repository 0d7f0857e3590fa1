"""Doubly robust with weights that shrink smoothly as they grow. Called by the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from decider.estimate.checks import BadArgument, finite, same, weight, weights
from decider.estimate.dr import dr_terms
from decider.estimate.sample import Floats
from decider.estimate.slope import Spread, choose, normal_interval, strengths_for
from decider.estimate.terms import MeanOfTerms


class DrShrinkage(MeanOfTerms):
    """DRos: (1/n) sum of expected + v (reward - predicted), v = strength w / (w^2 + strength), w = pmf / propensity.

    Su, Dimakopoulou, Krishnamurthy & Dudik, ICML 2020 (DR with optimistic shrinkage); strength is the paper's lambda:
    weights above its square root are cut back. strength in (0, inf]: towards 0 it is DM, inf is DR. As biased as the
    reward model is where weights are large. Arguments and errors as of DoublyRobust. Only estimators of one strength
    can be merged.

    >>> import numpy as np
    >>> shrunk = DrShrinkage(strength=4.0)
    >>> shrunk.add(propensity=0.5, reward=1.0, pmf=1.0, predicted=0.0, expected=0.5)
    >>> one = np.ones(1)
    >>> shrunk.add_many(propensity=one, reward=one, pmf=one, predicted=one, expected=one / 2)
    >>> shrunk.value, (shrunk + DrShrinkage(strength=4.0)).count
    (1.0, 2)
    """

    __slots__ = ("strength",)

    def __init__(self, strength: float) -> None:
        super().__init__()
        if not strength > 0:
            raise BadArgument("strength", f"is {strength}, which is not above 0")
        self.strength = strength

    @classmethod
    def tune(
        cls,
        *,
        propensity: Floats,
        reward: Floats,
        pmf: Floats,
        predicted: Floats,
        expected: Floats,
        strengths: Sequence[float] = (),
        interval: Spread = normal_interval,
    ) -> Self:
        """An empty estimator with the strength that SLOPE chooses here, of `strengths` or `slope.strengths_for`.

        interval: of the mean of terms; by unit where units come back.

        >>> import numpy as np
        >>> p, pmf, reward = np.full(100, 0.5), np.full(100, 0.5), 1000 + np.arange(100.0) / 100
        >>> q = np.zeros(100)
        >>> DrShrinkage.tune(propensity=p, reward=reward, pmf=pmf, predicted=q, expected=q).strength
        inf
        """

        def terms(strength: float) -> Floats:
            columns = {"reward": reward, "predicted": predicted, "expected": expected}
            return cls(strength).terms(propensity=propensity, pmf=pmf, **columns)

        grid = strengths or strengths_for(weights(propensity=propensity, pmf=pmf))
        return cls(choose(grid, terms, interval))

    def add(self, *, propensity: float, reward: float, pmf: float, predicted: float, expected: float) -> None:
        """One more decision."""
        w = weight(propensity=propensity, pmf=pmf)
        finite(reward=reward, predicted=predicted, expected=expected)
        shrunk = w / (1 + w * w / self.strength)
        self.mean.add(expected + shrunk * (reward - predicted))

    def add_many(self, *, propensity: Floats, reward: Floats, pmf: Floats, predicted: Floats, expected: Floats) -> None:
        """Many more, (n,) each."""
        self.mean.add_many(
            self.terms(propensity=propensity, reward=reward, pmf=pmf, predicted=predicted, expected=expected)
        )

    def terms(self, *, propensity: Floats, reward: Floats, pmf: Floats, predicted: Floats, expected: Floats) -> Floats:
        """(n,): the term of each decision; their mean is the estimate."""
        w = weights(propensity=propensity, pmf=pmf)
        w /= 1 + w * w / self.strength
        return dr_terms(w, reward=reward, predicted=predicted, expected=expected)

    def __add__(self, other: Self) -> Self:
        """As if one had seen the decisions of both."""
        same("strength", self.strength, other.strength)
        return super().__add__(other)
