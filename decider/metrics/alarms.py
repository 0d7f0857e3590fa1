"""The metrics of evidence that something is wrong, from the log's totals. Called by `collector.py`.

Each is the natural logarithm of an e-value: compare it with ln 1000 = 6.9, however often you look. PromQL could compute
none of them: it knows no units, and an interval for one look is wrong at the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from prometheus_client.core import GaugeMetricFamily, Metric

from decider.estimate.missing_actions import missing_action_log_evalue
from decider.estimate.propensities import propensity_log_evalue
from decider.estimate.split import StratumSplit, split_log_evalue, with_left_out
from decider.experiment.definition import ExperimentVersion
from decider.log.daily_totals import OTHER
from decider.log.lift_totals import StrataTotals
from decider.log.totals import BEFORE, DAYS, POLICY_DRAWS, SLOTS, VARIANCE_UNIT, Labels, LabelTotals
from decider.types import ActionId, Position

VersionAt = Callable[[Position], ExperimentVersion]


def alarm_metrics(totals: LabelTotals, version_at: VersionAt, serving: Sequence[ExperimentVersion]) -> Iterator[Metric]:
    """Of every experiment. version_at: reads a version. serving: those whose actions can be missing."""
    yield _gauge(
        "decider_split_log_evalue",
        "Log evidence that units are not in the holdout with the declared share; above 6.9 it is wrong.",
        {experiment: split_evidence(strata, version_at) for experiment, strata in totals.lift.items()},
    )
    yield _gauge(
        "decider_propensity_log_evalue",
        "Log evidence that actions are not drawn with their logged propensities; above 6.9 they are wrong.",
        propensity_evidence(totals),
    )
    family = GaugeMetricFamily(
        "decider_action_missing_log_evalue",
        "Log evidence that an active action is never drawn, against its propensities; above 6.9 it is not.",
        labels=("experiment", "action"),
    )
    for key, evidence in missing_actions(totals, serving).items():
        family.add_metric(key, evidence)
    yield family


def split_evidence(strata: StrataTotals, version_at: VersionAt) -> float:
    """Of one experiment; nan with too few units."""
    versions = {stratum: version_at(stratum.first).experiment for stratum in strata}
    return split_log_evalue(
        [
            StratumSplit(
                versions[stratum].control_share, versions[stratum].salt, with_left_out(one.decisions, one.left_out)
            )
            for stratum, one in strata.items()
        ]
    )


def propensity_evidence(totals: LabelTotals, only: str | None = None) -> dict[str, float]:
    """By experiment with draws from a policy's pmf; or of one alone."""
    actions: dict[str, dict[str, int]] = {}
    days: dict[str, dict[str, int]] = {}
    drawn = [labels for labels in totals.excess if only in (None, labels[0])]
    for experiment, action, _ in drawn:
        known = actions.setdefault(experiment, {})
        known.setdefault(action, len(known))
    for experiment, day in sorted({(id_, day) for id_, _, day in drawn}, key=lambda one: one[1]):
        known = days.setdefault(experiment, {BEFORE: 0})
        known.setdefault(day, len(known))
    sums = {id_: np.zeros((2, len(days[id_]), len(actions[id_]))) for id_ in actions}
    for row, counts in enumerate((totals.excess, totals.variance)):
        for (experiment, action, day), count in counts.items():
            if experiment in sums:
                sums[experiment][row, days[experiment][day], actions[experiment][action]] = count
    return {
        id_: propensity_log_evalue(excess / SLOTS, variance * VARIANCE_UNIT, days=DAYS)
        for id_, (excess, variance) in sums.items()
    }


def missing_actions(totals: LabelTotals, serving: Sequence[ExperimentVersion]) -> dict[tuple[str, ActionId], float]:
    """By experiment and active action; 0 also where it can never be drawn."""
    days: dict[Labels, list[str]] = {}
    for experiment, action, day in totals.excess:
        days.setdefault((experiment, action), []).append(day)
    return {
        (version.experiment.id, action): _missing_action(
            totals,
            version.experiment.id,
            action,
            sorted({BEFORE, *days.get((version.experiment.id, action), ())}, key=lambda day: int(day or 0)),
            actions=len(version.all_active),
        )
        for version in serving
        for action in version.all_active
    }


def _missing_action(totals: LabelTotals, experiment: str, action: str, days: Sequence[str], *, actions: int) -> float:
    expected = [max(0, -totals.excess[experiment, action, day]) / SLOTS for day in days]  # where it was not drawn
    drawn = [_is_drawn(totals, experiment, action, day) for day in days]
    return missing_action_log_evalue(np.array(expected), np.array(drawn), days=DAYS, actions=actions)


def _is_drawn(totals: LabelTotals, experiment: str, action: str, day: str) -> bool:
    """Whether anybody but the holdout got it on a day; also where that is not known."""
    if not any(totals.decisions[experiment, action, str(reason)] for reason in POLICY_DRAWS):
        return False
    known = totals.daily.get(experiment, {}).get(int(day)) if day != BEFORE else None
    return known is None or action in known.actions or OTHER in known.actions


def _gauge(name: str, text: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("experiment",))
    for experiment, value in values.items():
        if not math.isnan(value):
            family.add_metric((experiment,), value)
    return family
