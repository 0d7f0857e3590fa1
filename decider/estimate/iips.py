"""Each slot of a page by itself, whatever stands before it. Called by the simulator's evaluation."""

from __future__ import annotations

from decider.estimate.checks import finite_columns
from decider.estimate.sample import Floats


class Iips:
    """IIPS: (1/n) sum over pages of sum_k w_k r_k, with w_k the weight of slot k alone.

    Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay & Wen, KDD 2018 (the item-position model). A log has propensities
    given the slots before, so w_k is conditional, too: the value is that of a candidate that fills each slot behind
    what the log put before it. It is what the candidate would earn only where neither its choice nor a slot's reward
    depends on the slots before. weight, reward: (pages, slots), as of Rips.

    >>> import numpy as np
    >>> Iips.terms(weight=np.array([[2.0, 0.5]]), reward=np.array([[1.0, 1.0]])).tolist()
    [2.5]
    """

    @staticmethod
    def terms(*, weight: Floats, reward: Floats) -> Floats:
        """(pages,): their mean is the estimate of what a page earns."""
        finite_columns(weight.size, reward=reward.ravel())
        terms: Floats = (weight * reward).sum(axis=1)
        return terms
