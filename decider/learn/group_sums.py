"""The log's totals of the lift -> the estimator's sums. Called by the guardrails and the metrics of the lift."""

from __future__ import annotations

from collections.abc import Hashable

from decider.estimate.lift import GroupSums
from decider.log.lift_totals import PLACES, StrataTotals


def group_sums(strata: StrataTotals, name: str) -> dict[Hashable, GroupSums]:
    """Of one reward, by stratum; all 0 where it never came."""
    nothing = [0.0] * PLACES
    return {
        stratum: GroupSums.of(
            totals.decisions.tolist(), totals.rewards[name].floats() if name in totals.rewards else nothing
        )
        for stratum, totals in strata.items()
    }
