"""Inverse propensity score: the estimate that everything else here is compared with. Called by the evaluation."""

from __future__ import annotations

from decider.estimate.checks import finite, finite_columns, weight, weights
from decider.estimate.sample import Floats
from decider.estimate.terms import MeanOfTerms


class Ips(MeanOfTerms):
    """IPS: (1/n) sum w r with w = pmf / propensity. Unbiased where the log could draw what the candidate would.

    Horvitz & Thompson, JASA 1952; for logged decisions Dudik, Langford & Li, ICML 2011, section 2.1.
    propensity in (0, 1], pmf in [0, 1] of the logged action; reward in its own unit. Raises PropensityError or
    BadArgument. A policy on its own log has w = 1 exactly, so its IPS is the log's mean reward, to the last bit.

    >>> import numpy as np
    >>> one, other = Ips(), Ips()
    >>> one.add(propensity=0.5, reward=1.0, pmf=1.0)
    >>> other.add_many(propensity=np.array([0.5, 0.25]), reward=np.array([1.0, 1.0]), pmf=np.array([0.0, 0.5]))
    >>> one.value, other.value, (one + other).value, (one + other).count
    (2.0, 1.0, 1.3333333333333335, 3)
    """

    __slots__ = ()

    def add(self, *, propensity: float, reward: float, pmf: float) -> None:
        """One more decision."""
        w = weight(propensity=propensity, pmf=pmf)
        finite(reward=reward)
        self.mean.add(w * reward)

    def add_many(self, *, propensity: Floats, reward: Floats, pmf: Floats) -> None:
        """Many more, (n,) each; 16 bytes a row while it works."""
        self.mean.add_many(self.terms(propensity=propensity, reward=reward, pmf=pmf))

    @staticmethod
    def terms(*, propensity: Floats, reward: Floats, pmf: Floats) -> Floats:
        """(n,): w r of each decision; their mean is the estimate."""
        terms = weights(propensity=propensity, pmf=pmf)
        finite_columns(len(terms), reward=reward)
        terms *= reward
        return terms
