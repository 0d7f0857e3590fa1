"""Which differences a paired comparison could have told: what "not told apart" is worth. Called by `verdicts.py`."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import chi2

POWER = 0.8
_QUANTILES = (np.arange(2_000) + 0.5) / 2_000


def smallest_told(error: float, *, critical: float, seeds: int) -> float:
    """The true difference whose |t| exceeds `critical` with probability 0.8, in its own sign.

    error: standard error of the mean difference over the seeds, taken to be the true one. Two seeds at least.

    >>> round(smallest_told(0.01, critical=1.96, seeds=100_000), 4)  # (1.96 + 0.84) standard errors
    0.028
    """
    # |t| > c where Z + d/error > c * s; s is the standard deviation that is seen, as a part of the true one.
    seen = critical * np.sqrt(chi2.ppf(_QUANTILES, seeds - 1) / (seeds - 1))
    most = float(seen.max()) + 10.0
    return error * float(brentq(lambda shift: float(ndtr(shift - seen).mean()) - POWER, -10.0, most))
