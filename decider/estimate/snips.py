"""Self-normalised IPS: the rewards' mean, weighted. Called by the evaluation."""

from __future__ import annotations

import numpy as np

from decider.estimate.checks import finite, finite_columns, weight, weights
from decider.estimate.sample import Floats


class Snips:
    """SNIPS: sum w r / sum w with w = pmf / propensity. Never outside the seen rewards; its bias goes as 1/n.

    Swaminathan & Joachims, NeurIPS 2015 (the self-normalized estimator). Arguments and errors as of Ips. value is
    None before the first decision and as long as all weights are 0.

    >>> import numpy as np
    >>> one, other = Snips(), Snips()
    >>> one.add(propensity=0.5, reward=1.0, pmf=1.0)
    >>> other.add_many(propensity=np.array([0.5, 0.5]), reward=np.array([0.0, 1.0]), pmf=np.array([0.5, 0.5]))
    >>> one.value, other.value, (one + other).value, (one + other).count
    (1.0, 0.5, 0.75, 3)
    """

    __slots__ = ("_rewards", "_weights", "count")

    def __init__(self) -> None:
        self.count = 0
        self._weights = 0.0
        self._rewards = 0.0

    @property
    def value(self) -> float | None:
        """The estimate, in the reward's unit."""
        return self._rewards / self._weights if self._weights else None

    def add(self, *, propensity: float, reward: float, pmf: float) -> None:
        """One more decision."""
        w = weight(propensity=propensity, pmf=pmf)
        finite(reward=reward)
        self.count += 1
        self._weights += w
        self._rewards += w * reward

    def add_many(self, *, propensity: Floats, reward: Floats, pmf: Floats) -> None:
        """Many more, (n,) each; 8 bytes a row while it works."""
        w = weights(propensity=propensity, pmf=pmf)
        finite_columns(len(w), reward=reward)
        self.count += len(w)
        self._weights += float(w.sum())
        w *= reward
        self._rewards += float(w.sum())

    def __add__(self, other: Snips) -> Snips:
        """As if one had seen the decisions of both."""
        both = Snips()
        both.count = self.count + other.count
        both._weights = self._weights + other._weights
        both._rewards = self._rewards + other._rewards
        return both

    @staticmethod
    def terms(*, propensity: Floats, reward: Floats, pmf: Floats) -> Floats:
        """(n,): v + w (r - v) / mean(w), where v is the estimate on these decisions; nan where all weights are 0.

        Their mean is v, and their variance over n is v's by the delta method (same paper, the variance of a ratio):
        so whatever makes an interval from terms makes the asymptotic one from these.

        >>> half = np.array([0.5, 0.5])
        >>> Snips.terms(propensity=half, reward=np.array([1.0, 0.0]), pmf=half).tolist()
        [1.0, 0.0]
        """
        w = weights(propensity=propensity, pmf=pmf)
        finite_columns(len(w), reward=reward)
        return ratio_terms(w, reward)


def ratio_terms(w: Floats, rewards: Floats) -> Floats:
    """(n,): terms of sum w r / sum w, centred so that their mean is the ratio; nan where all weights are 0.

    >>> ratio_terms(np.array([0.0, 2.0]), np.array([5.0, 1.0])).tolist()
    [1.0, 1.0]
    """
    total = float(w.sum())
    if not total:
        return np.full(len(w), np.nan)
    ratio = float((w * rewards).sum()) / total
    terms = rewards - ratio
    terms *= w
    terms *= len(w) / total
    terms += ratio
    return terms
