"""The metrics of the lift over the holdout, from the log's totals. Called by `collector.py`.

PromQL could compute none of them: it knows neither units nor how often somebody looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric

from decider.estimate.lift import Lift, lift
from decider.learn.group_sums import group_sums
from decider.log.lift_totals import LEARNED, StrataTotals

_FIGURES = {
    "decider_lift": "Mean reward of a decision of the policy's units, less that of the holdout's; absent with too few.",
    "decider_lift_low": "Lower end of its 95 % interval, which holds at every look.",
    "decider_lift_high": "Upper end of its 95 % interval, which holds at every look.",
}


def lift_metrics(totals: Mapping[str, StrataTotals]) -> Iterator[Metric]:
    """Of every experiment with a holdout: of the final reward, and of each name of rewards apart."""
    families = [GaugeMetricFamily(name, text, labels=("experiment", "name")) for name, text in _FIGURES.items()]
    cost = GaugeMetricFamily(
        "decider_holdout_cost", "Lift x share of decisions in the holdout: what one loses.", labels=("experiment",)
    )
    for experiment, strata in totals.items():
        for name, found in lifts(strata).items():
            if not found.is_known:
                continue
            interval = found.interval
            for family, value in zip(families, (interval.value, interval.low, interval.high), strict=True):
                family.add_metric((experiment, name), value)
            if name == LEARNED:
                cost.add_metric((experiment,), found.cost)
    yield from (*families, cost)


def lifts(strata: StrataTotals) -> dict[str, Lift]:
    """By name of reward, each for itself."""
    names = dict.fromkeys(name for totals in strata.values() for name in totals.rewards)
    return {name: lift(group_sums(strata, name)) for name in names}
