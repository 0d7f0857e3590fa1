"""Doubly robust: the reward model's figure, corrected on the logged actions. Called by the evaluation."""

from __future__ import annotations

from decider.estimate.checks import finite, finite_columns, weight, weights
from decider.estimate.sample import Floats
from decider.estimate.terms import MeanOfTerms


class DoublyRobust(MeanOfTerms):
    """DR: (1/n) sum of expected + w (reward - predicted) with w = pmf / propensity. Unbiased whatever the model says.

    Dudik, Langford & Li, ICML 2011, section 2.2. predicted: the reward model q at the logged action; expected: the
    candidate's mean of it, sum_a pmf(a) q(a). The model must not have learned from the decision that it scores.
    Other arguments and errors as of Ips.

    >>> import numpy as np
    >>> robust = DoublyRobust()
    >>> robust.add(propensity=0.5, reward=1.0, pmf=1.0, predicted=0.75, expected=0.5)
    >>> one = np.ones(1)
    >>> robust.add_many(propensity=one, reward=one, pmf=0 * one, predicted=one, expected=one / 2)
    >>> robust.value, robust.count
    (0.75, 2)
    """

    __slots__ = ()

    def add(self, *, propensity: float, reward: float, pmf: float, predicted: float, expected: float) -> None:
        """One more decision."""
        w = weight(propensity=propensity, pmf=pmf)
        finite(reward=reward, predicted=predicted, expected=expected)
        self.mean.add(expected + w * (reward - predicted))

    def add_many(self, *, propensity: Floats, reward: Floats, pmf: Floats, predicted: Floats, expected: Floats) -> None:
        """Many more, (n,) each; 16 bytes a row while it works."""
        self.mean.add_many(
            self.terms(propensity=propensity, reward=reward, pmf=pmf, predicted=predicted, expected=expected)
        )

    @staticmethod
    def terms(*, propensity: Floats, reward: Floats, pmf: Floats, predicted: Floats, expected: Floats) -> Floats:
        """(n,): expected + w (reward - predicted) of each decision; their mean is the estimate."""
        w = weights(propensity=propensity, pmf=pmf)
        return dr_terms(w, reward=reward, predicted=predicted, expected=expected)


def dr_terms(w: Floats, *, reward: Floats, predicted: Floats, expected: Floats) -> Floats:
    """(n,): expected + w (reward - predicted), for any weights. Called by the doubly robust estimators.

    >>> import numpy as np
    >>> dr_terms(np.array([2.0]), reward=np.ones(1), predicted=np.zeros(1), expected=np.ones(1)).tolist()
    [3.0]
    """
    finite_columns(len(w), reward=reward, predicted=predicted, expected=expected)
    terms = reward - predicted
    terms *= w
    terms += expected
    return terms
