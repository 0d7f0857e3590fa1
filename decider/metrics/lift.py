"""The metrics of the lift over the holdout and of what exploration costs, from the log's totals. Called by
`collector.py` and, for the same figures, by the page.

PromQL could compute none of them: it knows neither units nor how often somebody looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from prometheus_client.core import GaugeMetricFamily, Metric

from decider.estimate.exploration import ExplorationCost, mean_cost
from decider.estimate.lift import LEVEL, Lift, level_of_each, lift
from decider.estimate.mean import Interval
from decider.experiment.strata import BUCKETS
from decider.learn.group_sums import group_sums
from decider.log.lift_totals import LEARNED, MOST_STRATA, StrataTotals, StratumTotals

_FIGURES = {
    "decider_lift": "Mean reward of a decision of the policy's units, less that of the holdout's, over the newest "
    f"{MOST_STRATA} times with another holdout; absent with too few.",
    "decider_lift_low": "Lower end of its 95 % interval at every look; names but (learned): all together.",
    "decider_lift_high": "Upper end of its 95 % interval at every look; names but (learned): all together.",
}

_HOLDOUT_COSTS = {
    "decider_holdout_cost": "Lift x share of decisions in the holdout: what one loses.",
    "decider_holdout_cost_low": "Lower end of its 95 % interval, which holds at every look.",
    "decider_holdout_cost_high": "Upper end of its 95 % interval, which holds at every look.",
}

_COSTS = {
    "decider_exploration_cost": "What a draw of the policy earns less than its most probable action; absent with too "
    "few.",
    "decider_exploration_cost_low": "Lower end of its 95 % interval, which holds at every look.",
    "decider_exploration_cost_high": "Upper end of its 95 % interval, which holds at every look.",
}


def lift_metrics(totals: Mapping[str, StrataTotals]) -> Iterator[Metric]:
    """Of every experiment with a holdout: of the final reward, and of each name of rewards apart."""
    families = [GaugeMetricFamily(name, text, labels=("experiment", "name")) for name, text in _FIGURES.items()]
    costs = [GaugeMetricFamily(name, text, labels=("experiment",)) for name, text in _HOLDOUT_COSTS.items()]
    outweighed = GaugeMetricFamily(
        "decider_lift_outweighed", "1 where a few units have nearly all of a reward, so that its lift is absent.",
        labels=("experiment", "name"),
    )  # fmt: skip
    for experiment, strata in totals.items():
        for name, found in lifts(strata).items():
            if found.outweighed:
                outweighed.add_metric((experiment, name), 1.0)
            if not found.is_known:
                continue
            _add(families, (experiment, name), found.interval)
            if name == LEARNED:
                _add(costs, (experiment,), found.cost_interval)
    yield from (*families, *costs, outweighed)


def _add(families: Sequence[GaugeMetricFamily], labels: Sequence[str], interval: Interval) -> None:
    for family, value in zip(families, (interval.value, interval.low, interval.high), strict=True):
        family.add_metric(labels, value)


def lifts(strata: StrataTotals) -> dict[str, Lift]:
    """By name of reward, LEARNED first. That one is the answer, so its interval is right by itself; those of all other
    names hold together."""
    others = sorted({name for totals in strata.values() for name in totals.rewards} - {LEARNED})
    level = level_of_each(len(others))
    return {LEARNED: lift_of(strata, LEARNED), **{name: lift_of(strata, name, level) for name in others}}


def lift_of(strata: StrataTotals, name: str, level: float = LEVEL) -> Lift:
    """Of one name of rewards, or LEARNED."""
    return lift(group_sums(strata, name), level)


def exploration_metrics(totals: Mapping[str, StrataTotals]) -> Iterator[Metric]:
    """Of every experiment whose policy draws."""
    families = [GaugeMetricFamily(name, text, labels=("experiment",)) for name, text in _COSTS.items()]
    for experiment, measures in totals.items():
        for draws in measures.values():
            found = exploration_cost(draws)
            if found.is_known:
                _add(families, (experiment,), found.interval)
    yield from families


def exploration_cost(draws: StratumTotals) -> ExplorationCost:
    """Of the draws of one measure."""
    costs = np.array(draws.of(LEARNED).floats()[:BUCKETS])
    return mean_cost(np.array(draws.decisions[:BUCKETS], np.float64), costs)
