"""What exploration costs a draw of the policy, on average; by unit, and valid at every look.

Called by the metrics with the log's totals, and by `simulator lift` with its columns. A draw costs the reward of the
policy's most probable action less that of the action drawn; the former is known by weighting (`log/exploration.py`), so
this is a one-step cost: it does not say what exploration has taught. The interval is that of the lift, of one group:
see `lift.py` for buckets, clock and when there is enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from decider.estimate.lift import (
    LARGEST,
    LEVEL,
    START,
    STRATUM_START,
    UNKNOWN,
    boundary,
    effective_clusters,
    effective_units,
    residuals,
)
from decider.estimate.mean import Interval
from decider.estimate.sample import Floats


@dataclass(frozen=True, slots=True)
class ExplorationCost:
    """interval: reward/draw, unbounded as long as too little is known. draws: from the policy's pmf."""

    interval: Interval
    draws: int

    @property
    def is_known(self) -> bool:
        """Whether there is enough for an interval."""
        return math.isfinite(self.interval.low)


def mean_cost(draws: Floats, costs: Floats, level: float = LEVEL) -> ExplorationCost:
    """draws, costs: (buckets,) number of draws of each bucket's units, and the sum of their costs.

    >>> found = mean_cost(np.full(512, 100.0), np.tile([3.0, -1.0], 256))
    >>> found.draws, round(found.interval.value, 4), round(found.interval.low, 4)
    (51200, 0.01, 0.0069)
    """
    size = float(draws.sum())
    units = float(effective_units(draws[None])[0])
    if units < STRATUM_START or float(np.abs(costs).max()) > LARGEST:
        return ExplorationCost(UNKNOWN, int(size))
    value = float(costs.sum()) / size
    residual = residuals(costs, value * draws)
    if float(effective_clusters(residual[None])[0]) < START:
        return ExplorationCost(UNKNOWN, int(size))
    filled = int(np.count_nonzero(draws))
    error = math.sqrt(float(np.dot(residual, residual)) * filled / max(filled - 1, 1)) / size
    half = boundary(units, level) * error
    return ExplorationCost(Interval(value, value - half, value + half), int(size))
