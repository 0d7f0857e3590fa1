"""How long until the lift's interval excludes 0, for a lift that is there from the start. Called by `plan.py`.

The interval may be looked at always, so it has found a lift once it has ever excluded 0: what counts is the first time,
not where it stands at one look. In the clock of information (1 / the squared standard error of the lift) the sum behind
the estimate is a Brownian motion with the lift as drift, and excludes 0 where it is above boundary x square root of the
clock (`decider/estimate/lift.py`). The first time it gets there has the distribution F of the integral equation

    P(X(t) > g(t)) = integral of P(X(t) > g(t) | X(s) = g(s)) dF(s)

(Peskir, "On integral equations arising in the first-passage problem for Brownian motion", 2002, equation 2.1): whoever
is above the boundary has crossed it before. It is solved on a grid. Before the start rule of the interval is met nobody
looks; what is above then is found at once. `tests/test_plan.py` holds it against simulated logs and their estimates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import ndtr

from decider.estimate.lift import LEVEL, START, STRATUM_START, boundary
from decider.estimate.sample import Floats
from decider.experiment.strata import BUCKETS

STEPS, NODES = 250, 64
"""Of the grid in time, and of the integral over where the sum stands at the start."""

POWER = 0.8


@dataclass(frozen=True, slots=True)
class Rewards:
    """What a decision without the policy earns. deviation: of one decision; is_rate: they are 0 or 1, so it follows
    from the mean. visits: of a unit. correlation: of two rewards of one unit. kurtosis: of what a unit earns; None: as
    if equal amounts came at random."""

    mean: float
    deviation: float
    is_rate: bool = False
    visits: float = 1.0
    correlation: float = 0.0
    kurtosis: float | None = None

    @classmethod
    def of_rate(cls, rate: float, *, visits: float = 1.0, correlation: float = 0.0) -> Rewards:
        """Of rewards that are 0 or 1."""
        deviation = math.sqrt(rate * (1.0 - rate))
        return cls(rate, deviation, is_rate=True, visits=visits, correlation=correlation)

    def variance(self, mean: float) -> float:
        """Of a decision where they earn so much on average, for a mean over units: visits of one are not independent.

        >>> Rewards.of_rate(0.1, visits=5, correlation=0.25).variance(0.2)
        0.32000000000000006
        """
        of_one = mean * (1.0 - mean) if self.is_rate else self.deviation**2
        return of_one * (1.0 + (self.visits - 1.0) * self.correlation)

    @property
    def unit_kurtosis(self) -> float:
        """Of what a unit earns. Of amounts with that mean and deviation, 0 and one other value are the least skewed
        guess; where the mean is large beside the deviation these are not rare amounts, but as a normal's.

        >>> [round(one.unit_kurtosis, 2) for one in (Rewards(1.0, 10.0), Rewards(100.0, 2.0))]
        [99.01, 3.0]
        """
        if self.kurtosis is not None:
            return self.kurtosis
        share = 1.0 / (1.0 + (self.deviation / self.mean) ** 2) if self.mean else 0.5
        spread = max(share * (1.0 - share), 1e-9)
        of_one = (1.0 - 3.0 * spread) / spread
        if not self.is_rate:
            of_one = 3.0 if share > 0.5 else max(of_one, 3.0)
        return 3.0 + (of_one - 3.0) / self.visits


@dataclass(frozen=True, slots=True)
class Design:
    """Of a holdout. share: of units; lift: reward/decision; level: of the interval."""

    rewards: Rewards
    share: float
    lift: float
    level: float = LEVEL

    @property
    def variance(self) -> float:
        """Of the lift, times the number of decisions of both groups."""
        policy, holdout = self.rewards.variance(self.rewards.mean + self.lift), self.rewards.variance(self.rewards.mean)
        return policy / (1.0 - self.share) + holdout / self.share

    @property
    def start(self) -> float:
        """Decisions until there is an interval: the START clusters of `effective_clusters`, in the smaller group."""
        # Sums of `BUCKETS` buckets, each of a random number of units: their kurtosis is 3 + that of a unit / units.
        units = START * self.rewards.unit_kurtosis / (1.0 - 3.0 * START / BUCKETS)
        return max(units, STRATUM_START) * self.rewards.visits / min(self.share, 1.0 - self.share)

    def bound(self, decisions: float) -> float:
        """Standard errors on each side after so many decisions."""
        return boundary(decisions / self.rewards.visits * self.share * (1.0 - self.share), self.level)

    def drift(self, decisions: float) -> float:
        """The lift in standard errors, after so many decisions."""
        return self.lift * math.sqrt(decisions / self.variance)

    def fixed(self, power: float) -> float:
        """Decisions that a test with one look needs."""
        normal = NormalDist()
        return self.variance * ((normal.inv_cdf((1.0 + self.level) / 2.0) + normal.inv_cdf(power)) / self.lift) ** 2


def decisions_needed(design: Design, power: float = POWER) -> float:
    """Until the interval has excluded 0 with that probability.

    >>> round(decisions_needed(Design(Rewards.of_rate(0.1), share=0.1, lift=0.02)), -2)
    33000.0
    """
    last, far = design.start, NormalDist().inv_cdf(power) + 1.0
    while design.drift(last) < design.bound(last) + far:  # more than that share is above there
        last *= 1.3
    time, found = crossing(design, last)
    return float(np.interp(power, found, time))


def power_after(design: Design, decisions: float) -> float:
    """Probability that the interval has excluded 0 by then."""
    return float(crossing(design, decisions)[1][-1]) if decisions > design.start else 0.0


def smallest_lift(rewards: Rewards, share: float, decisions: float, *, level: float, power: float) -> float | None:
    """That is found with that probability after so many decisions; None: they are too few for any."""
    most = (1.0 - rewards.mean) * (1.0 - 1e-9) if rewards.is_rate else 1e3 * (abs(rewards.mean) + rewards.deviation)

    def is_found(lift: float) -> bool:
        return power_after(Design(rewards, share, lift, level), decisions) >= power

    if not is_found(most):
        return None
    low, high = most * 1e-9, most
    while high > low * 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if is_found(middle) else (middle, high)
    return high


def crossing(design: Design, last: float) -> tuple[Floats, Floats]:
    """Decisions up to `last`, and the probability that the interval has excluded 0 by then."""
    first = min(design.start, last)
    time = np.geomspace(first, max(last, first * 1.0001), STEPS + 1)
    middle = np.sqrt(time[1:] * time[:-1])
    clock, before = time / design.variance, middle / design.variance
    edge, crossed = (
        np.array([design.bound(n) for n in at.tolist()]) * np.sqrt(at / design.variance) for at in (time, middle)
    )
    # Whoever was below at the start and is above now has crossed in between.
    below, z = _nodes((edge[0] - design.lift * clock[0]) / math.sqrt(clock[0]))
    start = design.lift * clock[0] + math.sqrt(clock[0]) * z
    ahead = (clock[1:, None] - clock[0], edge[1:, None] - start[None, :])
    above = _above(*ahead, design.lift) @ below
    past = np.maximum(clock[1:, None] - before[None, :], 1e-300)
    kernel = np.tril(_above(past, edge[1:, None] - crossed[None, :], design.lift))
    steps = np.maximum(solve_triangular(kernel, above, lower=True), 0.0)
    return time, np.minimum(1.0, np.r_[0.0, np.cumsum(steps)] + 1.0 - below.sum())


def _above(time: Floats, height: Floats, drift: float) -> Floats:
    """Probability to be higher by more than `height` after that time."""
    return np.asarray(ndtr((drift * time - height) / np.sqrt(time)))


def _nodes(z: float) -> tuple[Floats, Floats]:
    """Weights and nodes of an integral over a standard normal up to z."""
    low, high = -9.0, max(min(z, 9.0), -8.999)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    at = (high - low) / 2.0 * nodes + (high + low) / 2.0
    return (high - low) / 2.0 * weights * np.exp(-(at**2) / 2.0) / math.sqrt(2.0 * math.pi), at
