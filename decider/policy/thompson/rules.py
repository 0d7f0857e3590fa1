"""What the versions of the learning code do differently. Called by `thompson.py`.

Old ones recompute old decisions bit for bit; the newest serves. To change what is learned, add a version here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from decider.policy.thompson.admission import Admission, FirstCome, MostFrequent
from decider.policy.thompson.noise import FadingNoise, LastingNoise
from decider.policy.thompson.pmf import FirstPmf, OptimisticPmf, PmfFromPosterior
from decider.policy.thompson.prior import FieldPrior, Prior, UnitPrior

DISCOUNTED_MARGIN, LEVELS_MARGIN = 10.0, 3.0
"""Nats that the evidence of the discounted regression, and of the levels, must be ahead: both know less, and are better
by chance in many logs."""


class Rules(NamedTuple):
    """admission: which features are used where there is no room for all, from the largest cost of a solution. prior: of
    a regression's weights. noise: how its noise is estimated. to_pmf: from width, draws and the reward's range. margin:
    in nats, of the discounted regression. levels: whether actions have levels. shares: whether one regression learns
    from all actions, where they are many.
    """

    admission: Callable[[int], Admission]
    prior: Callable[[], Prior]
    noise: Callable[[], LastingNoise]
    to_pmf: Callable[[float, int, tuple[float, float]], PmfFromPosterior]
    margin: float
    levels: bool
    shares: bool


CODES = {
    1: Rules(FirstCome, UnitPrior, LastingNoise, FirstPmf, 0.0, levels=False, shares=False),
    2: Rules(MostFrequent, UnitPrior, LastingNoise, FirstPmf, 0.0, levels=False, shares=False),
    3: Rules(
        MostFrequent,
        FieldPrior,
        FadingNoise,
        OptimisticPmf,
        DISCOUNTED_MARGIN,
        levels=True,
        shares=True,
    ),
}
"""By the version of the learning code."""

NEWEST = max(CODES)
