"""Self-normalised doubly robust. Called by the evaluation."""

from __future__ import annotations

from decider.estimate.checks import finite, finite_columns, weight, weights
from decider.estimate.sample import Floats
from decider.estimate.snips import ratio_terms


class Sndr:
    """SNDR: (1/n) sum expected + sum w (reward - predicted) / sum w with w = pmf / propensity.

    Thomas & Brunskill, ICML 2016 (weighted doubly robust) and Kallus & Uehara, NeurIPS 2019, for one step: the
    correction of DR with the weights of SNIPS. Arguments and errors as of DoublyRobust. value is None before the first
    decision and as long as all weights are 0.

    >>> import numpy as np
    >>> robust = Sndr()
    >>> robust.add(propensity=0.5, reward=1.0, pmf=1.0, predicted=0.5, expected=0.5)
    >>> one = np.ones(1)
    >>> robust.add_many(propensity=one, reward=one, pmf=0 * one, predicted=one / 4, expected=one / 4)
    >>> robust.value, robust.count
    (0.875, 2)
    """

    __slots__ = ("_expected", "_missed", "_weights", "count")

    def __init__(self) -> None:
        self.count = 0
        self._expected = 0.0
        self._missed = 0.0
        self._weights = 0.0

    @property
    def value(self) -> float | None:
        """The estimate, in the reward's unit."""
        return self._expected / self.count + self._missed / self._weights if self._weights else None

    def add(self, *, propensity: float, reward: float, pmf: float, predicted: float, expected: float) -> None:
        """One more decision."""
        w = weight(propensity=propensity, pmf=pmf)
        finite(reward=reward, predicted=predicted, expected=expected)
        self.count += 1
        self._expected += expected
        self._missed += w * (reward - predicted)
        self._weights += w

    def add_many(self, *, propensity: Floats, reward: Floats, pmf: Floats, predicted: Floats, expected: Floats) -> None:
        """Many more, (n,) each; 16 bytes a row while it works."""
        w = weights(propensity=propensity, pmf=pmf)
        finite_columns(len(w), reward=reward, predicted=predicted, expected=expected)
        missed = reward - predicted
        missed *= w
        self.count += len(w)
        self._expected += float(expected.sum())
        self._missed += float(missed.sum())
        self._weights += float(w.sum())

    def __add__(self, other: Sndr) -> Sndr:
        """As if one had seen the decisions of both."""
        both = Sndr()
        both.count = self.count + other.count
        both._expected = self._expected + other._expected
        both._missed = self._missed + other._missed
        both._weights = self._weights + other._weights
        return both

    @staticmethod
    def terms(*, propensity: Floats, reward: Floats, pmf: Floats, predicted: Floats, expected: Floats) -> Floats:
        """(n,): expected + d + w (reward - predicted - d) / mean(w), d the correction; nan where all weights are 0.

        Their mean is the estimate on these decisions, and their variance over n is its variance by the delta method.

        >>> import numpy as np
        >>> half, one, none = np.full(2, 0.5), np.ones(2), np.zeros(2)
        >>> Sndr.terms(propensity=half, reward=one, pmf=half, predicted=none, expected=half).tolist()
        [1.5, 1.5]
        """
        w = weights(propensity=propensity, pmf=pmf)
        finite_columns(len(w), reward=reward, predicted=predicted, expected=expected)
        terms = ratio_terms(w, reward - predicted)
        terms += expected
        return terms
