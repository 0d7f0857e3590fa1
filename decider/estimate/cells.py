"""What an action earns in a segment; by unit, simultaneous, and valid at every look.

Called by the page with the log's totals. Of draws from a policy's pmf in which the action had a probability of `LEAST`
or more (`log/cell_totals.py`), each weighted with 1 / propensity. The estimate is the doubly robust one whose reward
model is one number for the cell, the weighted mean m of its rewards:

    m + sum(weight x (reward - m)) / draws

where the sum is 0: so it is the self-normalised one. Its target is the running mean, over those draws, of what the
action would have earned; a policy that learns and a world that drifts have no fixed one. Which draws those are depends
on the pmf and not on what came, so the target is well defined; `coverage` says which part it is of all draws in which
the action was eligible. Over all of them nobody could estimate it: a single weight of 1,000 would decide.

The interval is that of the lift (see `lift.py`), for one group: residuals by bucket of units, a normal mixture over an
intrinsic clock. The clock is the sum of 1 / probability over those draws: it is known before anything is drawn, and
grows as the variance does.

Simultaneous: the error is split over as many cells as there can be, whatever is shown of them. Asymptotics need some
data: `is_known` waits for effective draws, which do not depend on luck either, and for clusters that carry the
variance. A simulation in `tests/test_cells.py` holds it against the truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from decider.estimate.lift import LARGEST, LEVEL, START, UNKNOWN, boundary, effective_clusters, residuals
from decider.estimate.mean import Interval
from decider.estimate.sample import Floats

EFFECTIVE_DRAWS = 50.0
"""That a cell needs: draws^2 / sum(1 / probability). Fewer say nothing about what the policy hardly ever tried."""

CLOCK = 10.0
"""Of 1 / probability, to one of the lift's units: a typical draw."""


@dataclass(frozen=True, slots=True)
class CellMean:
    """interval: of the reward of a decision, unbounded as long as too little is known. draws: of the action.
    effective: what they are worth, if the policy had always given it. coverage: see above."""

    interval: Interval
    draws: int
    effective: float
    coverage: float

    @property
    def is_known(self) -> bool:
        """Whether there is enough for an interval."""
        return math.isfinite(self.interval.low)


def cell_mean(
    weights: Floats,
    rewards: Floats,
    *,
    draws: int,
    probable: float,
    eligible: float,
    inverse: float,
    cells: int,
    level: float = LEVEL,
) -> CellMean:
    """weights, rewards: (buckets,) sums of 1 / propensity and of reward / propensity of the draws that gave the action.
    probable: draws in which it could come with LEAST; inverse: their sum of 1 / probability; eligible: draws in which
    it could come at all. cells: that hold together.

    >>> drawn = np.full(128, 40.0)
    >>> earned = drawn * 0.1 + np.tile([0.5, -0.5], 64)
    >>> found = cell_mean(drawn, earned, draws=1280, probable=5120.0, eligible=6400.0, inverse=20480.0, cells=1)
    >>> round(found.interval.value, 3), round(found.interval.low, 3), found.effective, found.coverage
    (0.1, 0.097, 1280.0, 0.8)
    """
    effective = probable**2 / inverse if inverse > 0 else 0.0
    coverage = probable / eligible if eligible else 0.0
    nothing = CellMean(UNKNOWN, draws, effective, coverage)
    if effective < EFFECTIVE_DRAWS or float(np.abs(rewards).max()) > LARGEST:
        return nothing
    size = float(weights.sum())
    if size <= 0:
        return nothing
    value = float(rewards.sum()) / size
    residual = residuals(rewards, value * weights)
    if float(effective_clusters(residual[None])[0]) < START:
        return nothing
    filled = int(np.count_nonzero(weights))
    error = math.sqrt(float(np.dot(residual, residual)) * filled / max(filled - 1, 1)) / min(size, probable)
    half = boundary(inverse / CLOCK, 1.0 - (1.0 - level) / cells) * error
    return CellMean(Interval(value, value - half, value + half), draws, effective, coverage)
