"""Reward interaction: a slot's reward, weighted by its page up to this slot. Called by the simulator's evaluation."""

from __future__ import annotations

import numpy as np

from decider.estimate.checks import finite_columns
from decider.estimate.sample import Flags, Floats


class Rips:
    """RIPS: (1/n) sum over pages of sum_k w_1 ... w_k r_k, with w_j the weight of slot j given the slots before it.

    McInerney, Brost, Chandar, Mehrotra & Carterette, KDD 2020, section 4. Unbiased where what a slot earns does not
    depend on the slots behind it: their weights, whose mean is 1, are left out, so it varies less than IPS of the whole
    page. weight, reward: (pages, slots); a page with fewer slots has weight 1 and reward 0 in their place.

    >>> weight, reward = np.array([[2.0, 0.0], [0.5, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> Rips.terms(weight=weight, reward=reward).tolist()
    [2.0, 1.0]
    """

    @staticmethod
    def terms(*, weight: Floats, reward: Floats) -> Floats:
        """(pages,): their mean is the estimate of what a page earns."""
        finite_columns(weight.size, reward=reward.ravel())
        terms: Floats = (weight.cumprod(axis=1) * reward).sum(axis=1)
        return terms

    @staticmethod
    def normalised(*, weight: Floats, reward: Floats, there: Flags) -> float:
        """The self-normalised value, as the paper has it: at each place sum W r / sum W. there: (pages, slots), which
        slots a page has. A place whose weights are all 0 counts nothing.

        >>> weight, reward = np.array([[2.0, 0.0], [0.5, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> Rips.normalised(weight=weight, reward=reward, there=np.ones((2, 2), np.bool_))
        1.8
        """
        upto = np.where(there, weight.cumprod(axis=1), 0.0)
        total = upto.sum(axis=0)
        mean = np.divide((upto * reward).sum(axis=0), total, out=np.zeros_like(total), where=total > 0)
        return float(mean @ there.mean(axis=0))
