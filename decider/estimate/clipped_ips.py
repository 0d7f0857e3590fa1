"""IPS with weights cut off at a limit: less variance for some bias. Called by the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from decider.estimate.checks import BadArgument, finite, finite_columns, same, weight, weights
from decider.estimate.sample import Floats
from decider.estimate.slope import Spread, choose, limits_for, normal_interval
from decider.estimate.terms import MeanOfTerms


class ClippedIps(MeanOfTerms):
    """Clipped IPS: (1/n) sum min(w, limit) r with w = pmf / propensity. Biased towards 0 where weights are cut off.

    Ionides, Journal of Computational and Graphical Statistics 2008, section 2 (truncated importance sampling).
    limit in (0, inf], inf is IPS; arguments and errors as of Ips. Only estimators of one limit can be merged.

    >>> import numpy as np
    >>> clipped = ClippedIps(limit=2.0)
    >>> clipped.add(propensity=0.1, reward=1.0, pmf=1.0)
    >>> clipped.add_many(propensity=np.array([0.5]), reward=np.array([1.0]), pmf=np.array([0.5]))
    >>> clipped.value, (clipped + ClippedIps(limit=2.0)).count
    (1.5, 2)
    """

    __slots__ = ("limit",)

    def __init__(self, limit: float) -> None:
        super().__init__()
        if not limit > 0:
            raise BadArgument("limit", f"is {limit}, which is not above 0")
        self.limit = limit

    @classmethod
    def tune(
        cls,
        *,
        propensity: Floats,
        reward: Floats,
        pmf: Floats,
        limits: Sequence[float] = (),
        interval: Spread = normal_interval,
    ) -> Self:
        """An empty estimator with the limit that SLOPE chooses on these decisions, of `limits` or `slope.limits_for`.

        interval: of the mean of terms; by unit where units come back.

        >>> import numpy as np
        >>> p, pmf = np.full(100, 0.5), np.full(100, 0.5)
        >>> ClippedIps.tune(propensity=p, reward=np.arange(100.0), pmf=pmf).limit
        inf
        """

        def terms(limit: float) -> Floats:
            return cls(limit).terms(propensity=propensity, reward=reward, pmf=pmf)

        grid = limits or limits_for(weights(propensity=propensity, pmf=pmf))
        return cls(choose(grid, terms, interval))

    def add(self, *, propensity: float, reward: float, pmf: float) -> None:
        """One more decision."""
        w = weight(propensity=propensity, pmf=pmf)
        finite(reward=reward)
        self.mean.add(min(w, self.limit) * reward)

    def add_many(self, *, propensity: Floats, reward: Floats, pmf: Floats) -> None:
        """Many more, (n,) each."""
        self.mean.add_many(self.terms(propensity=propensity, reward=reward, pmf=pmf))

    def terms(self, *, propensity: Floats, reward: Floats, pmf: Floats) -> Floats:
        """(n,): min(w, limit) r of each decision; their mean is the estimate."""
        terms = weights(propensity=propensity, pmf=pmf)
        finite_columns(len(terms), reward=reward)
        np.minimum(terms, self.limit, out=terms)
        terms *= reward
        return terms

    def __add__(self, other: Self) -> Self:
        """As if one had seen the decisions of both."""
        same("limit", self.limit, other.limit)
        return super().__add__(other)
