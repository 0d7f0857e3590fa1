"""Whether a lift is beyond a margin for sure, by a bound and an e-value that are valid at every look.

Called by `learn/guardrails.py`, which acts on it, and by `simulator lift`, with the same sums as the lift itself.

The e-value is the one-sided normal mixture: the likelihood ratio of a Wiener process with drifts above 0, mixed by half
a normal distribution, against the one without drift (Robbins, Annals of Mathematical Statistics 1970; Howard, Ramdas,
McAuliffe and Sekhon, Annals of Statistics 2021, one-sided normal mixture). Where the running mean of the lift is within
the margin it exceeds 1 / alpha at any look with probability alpha at most, about; variance and clock are those of
`lift.py`, and so are the limits of what is known.

One thing is another. A guardrail's reward is rare, and in a small holdout hardly ever there: `lift.py` waits until both
groups have enough of it. Here the group that has less may have none. Its variance is then taken to be what the other
group's is by unit: more than its own where the policy harms, and where it does not, what both have in common.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np

from decider.estimate.lift import HOLDOUT, POLICY, SCALE, START, GroupSums, compare, outweighed
from decider.estimate.sample import Floats

ALPHA = 0.05
"""With which all guardrails of an experiment together are crossed by chance, each time that a policy begins."""

FAR = -5.0
"""Below it the normal distribution is replaced by its asymptotic form, which no float is too small for."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """lift: of the reward; nan where nothing is known, as the means. bound: on the side of the margin; infinite where
    too little is known. log_evalue: against "the lift is within the margin"; 0 then. needed: of log_evalue, to be
    crossed. decisions: of (policy, holdout). outweighed: nothing can be told, since some units outweigh all others."""

    lift: float
    bound: float
    log_evalue: float
    needed: float
    policy: float
    holdout: float
    decisions: tuple[int, int]
    outweighed: bool = False

    @property
    def is_known(self) -> bool:
        """Whether there is enough to judge it."""
        return math.isfinite(self.bound)

    @property
    def opposite(self) -> float:
        """The bound on the other side, as far from the lift: valid at every look with the same probability."""
        return 2.0 * self.lift - self.bound

    @property
    def crossed(self) -> bool:
        """Whether the lift is beyond the margin for sure: so is the bound."""
        return self.log_evalue >= self.needed


def alpha_of(guardrails: int) -> float:
    """Of one of so many guardrails."""
    return ALPHA / max(1, guardrails)


def guardrail_evidence(
    strata: Mapping[Hashable, GroupSums], *, margin: float, is_upper: bool, alpha: float = ALPHA
) -> Evidence:
    """is_upper: the lift must not be above the margin; else not below it.

    >>> harmed = GroupSums.of([100.0] * 40 + [10.0] * 40, [3.0, 1.0] * 20 + [0.0] * 40)
    >>> found = guardrail_evidence({1: harmed}, margin=0.002, is_upper=True)
    >>> round(found.lift, 3), round(found.bound, 3), round(found.log_evalue, 2), found.crossed
    (0.02, 0.005, 4.43, True)
    """
    needed, side = math.log(1.0 / alpha), 1.0 if is_upper else -1.0
    compared = compare(strata)
    if compared is None:
        unknown = (math.nan, -side * math.inf, 0.0, needed, math.nan, math.nan)
        return Evidence(*unknown, _decisions(strata), outweighed(strata))
    lift = float(compared.mean[POLICY] - compared.mean[HOLDOUT])
    error = _standard_error(compared.variance, compared.clocks, compared.clusters)
    k = compared.clock / SCALE
    evidence = 0.0
    if math.isfinite(error):
        evidence = _log_mixture(side * (lift - margin) / error, k)
    return Evidence(
        lift=lift,
        bound=lift - side * error * _boundary(k, needed),
        log_evalue=evidence,
        needed=needed,
        policy=float(compared.mean[POLICY]),
        holdout=float(compared.mean[HOLDOUT]),
        decisions=compared.decisions,
        outweighed=not math.isfinite(error) and outweighed(strata),
    )


def _decisions(strata: Mapping[Hashable, GroupSums]) -> tuple[int, int]:
    made = sum((sums.decisions.sum(axis=1) for sums in strata.values()), np.zeros(2))
    return int(made[POLICY]), int(made[HOLDOUT])


def _standard_error(variance: Floats, units: Floats, clusters: Floats) -> float:
    """Infinite, where too few clusters carry the larger variance."""
    by_unit = variance * units
    if clusters[int(np.argmax(by_unit))] < START:
        return math.inf
    return math.sqrt(float(np.where(clusters < START, by_unit.max() / units, variance).sum()))


def _log_mixture(z: float, k: float) -> float:
    """Of 2 / sqrt(1 + k) exp(x^2 / 2) Phi(x) with x = z sqrt(k / (1 + k))."""
    return math.log(2.0) - 0.5 * math.log1p(k) + _log_growth(z * math.sqrt(k / (1.0 + k)))


def _log_growth(x: float) -> float:
    """log(exp(x^2 / 2) Phi(x)), which grows with x.

    >>> [round(_log_growth(x), 3) for x in (-1e6, -5.001, -4.999, 0.0, 3.0)]
    [-14.734, -2.569, -2.565, -0.693, 4.499]
    """
    if x < FAR:
        return -math.log(-x * math.sqrt(2.0 * math.pi)) - 1.0 / x**2
    return 0.5 * x * x + math.log(0.5 * math.erfc(-x / math.sqrt(2.0)))


def _boundary(k: float, needed: float) -> float:
    """Standard errors at which the mixture comes to what is needed."""
    goal = needed - math.log(2.0) + 0.5 * math.log1p(k)
    low, high = -1.0, math.sqrt(2.0 * (abs(goal) + 1.0)) + 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _log_growth(middle) < goal else (low, middle)
    return high * math.sqrt((1.0 + k) / k)
