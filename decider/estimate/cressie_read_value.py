"""Cressie-Read empirical likelihood: the estimate. Called by the evaluation; the interval is in its own file."""

from __future__ import annotations

import math

import numpy as np

from decider.estimate.checks import BadArgument, finite, finite_columns, weight, weights
from decider.estimate.sample import Floats


class CressieRead:
    """The mean reward under the distribution nearest to the data whose mean weight is 1, which is known to be true.

    Karampatziakis, Langford & Mineiro, NeurIPS 2020, with the Cressie-Read power divergence of order -2, for which
    there is a closed form; one more decision, unseen, has the largest possible weight where the seen ones weigh less
    than 1 on average, else the smallest. With d = w - 1 and, over the n + 1, m = mean of d and s = mean of d^2:

        (1/(n+1)) sum w r (s - m d) / (s - m^2)  +  (the probability left over) x (mean of the logged rewards)

    (`microsoft/vw-estimators`, cressieread.py, has the same in sums of w, which lose digits where all w are near 1.)
    min_weight in [0, 1), max_weight in [1, inf]: the least and largest that *can* occur, not that did; arguments and
    errors of `add` as of Ips. value is None before the first decision.

    >>> import numpy as np
    >>> one, other = CressieRead(max_weight=4.0), CressieRead(max_weight=4.0)
    >>> one.add(propensity=0.5, reward=1.0, pmf=0.5)
    >>> other.add_many(propensity=np.array([0.25, 0.5]), reward=np.array([1.0, 0.0]), pmf=np.array([0.5, 0.0]))
    >>> one.value, round((one + other).value, 3), (one + other).count
    (1.0, 1.0, 3)
    """

    __slots__ = (
        "_excess",
        "_excess_rewards",
        "_rewards",
        "_squares",
        "_weighted_rewards",
        "count",
        "max_weight",
        "min_weight",
    )

    def __init__(self, *, min_weight: float = 0.0, max_weight: float = math.inf) -> None:
        if not 0 <= min_weight < 1:
            raise BadArgument("min_weight", f"is {min_weight}, which is not in [0, 1)")
        if not max_weight >= 1:
            raise BadArgument("max_weight", f"is {max_weight}, which is not in [1, inf]")
        self.min_weight = min_weight
        self.max_weight = max_weight
        self.count = 0
        self._excess = 0.0  # sum of d
        self._squares = 0.0  # sum of d^2
        self._rewards = 0.0  # sum of r
        self._weighted_rewards = 0.0  # sum of w r
        self._excess_rewards = 0.0  # sum of d w r

    @property
    def value(self) -> float | None:
        """The estimate, in the reward's unit."""
        if not self.count:
            return None
        base, tilt = self._probabilities()
        seen = base * self._weighted_rewards - tilt * self._excess_rewards
        mass = base * (self.count + self._excess) - tilt * (self._excess + self._squares)
        return seen + max(0.0, 1 - mass) * self._rewards / self.count

    def _probabilities(self) -> tuple[float, float]:
        """base, tilt: a seen decision has probability base - tilt d in the nearest distribution."""
        unseen = (self.max_weight if self._excess < 0 else self.min_weight) - 1
        if unseen == math.inf:
            return 1 / self.count, 0.0
        size = self.count + 1
        mean = (unseen + self._excess) / size
        square = (unseen**2 + self._squares) / size
        spread = (square - mean**2) * size
        return square / spread, mean / spread

    def add(self, *, propensity: float, reward: float, pmf: float) -> None:
        """One more decision."""
        w = weight(propensity=propensity, pmf=pmf)
        finite(reward=reward)
        self.count += 1
        self._excess += w - 1
        self._squares += (w - 1) ** 2
        self._rewards += reward
        self._weighted_rewards += w * reward
        self._excess_rewards += (w - 1) * w * reward
        self.min_weight = min(self.min_weight, w)
        self.max_weight = max(self.max_weight, w)

    def add_many(self, *, propensity: Floats, reward: Floats, pmf: Floats) -> None:
        """Many more, (n,) each; 24 bytes a row while it works."""
        w = weights(propensity=propensity, pmf=pmf)
        finite_columns(len(w), reward=reward)
        if not w.size:
            return
        excess = w - 1
        weighted = w * reward
        self.count += len(w)
        self._excess += float(excess.sum())
        self._squares += float(np.dot(excess, excess))
        self._rewards += float(reward.sum())
        self._weighted_rewards += float(weighted.sum())
        self._excess_rewards += float(np.dot(excess, weighted))
        self.min_weight = min(self.min_weight, float(w.min()))
        self.max_weight = max(self.max_weight, float(w.max()))

    def __add__(self, other: CressieRead) -> CressieRead:
        """As if one had seen the decisions of both; the weights that can occur are those of either."""
        both = CressieRead(
            min_weight=min(self.min_weight, other.min_weight), max_weight=max(self.max_weight, other.max_weight)
        )
        both.count = self.count + other.count
        both._excess = self._excess + other._excess
        both._squares = self._squares + other._squares
        both._rewards = self._rewards + other._rewards
        both._weighted_rewards = self._weighted_rewards + other._weighted_rewards
        both._excess_rewards = self._excess_rewards + other._excess_rewards
        return both
