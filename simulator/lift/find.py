"""Grouped decisions -> the lift, in all and by the values of fields. Called by `simulator lift`.

The estimator is the service's (`decider/estimate/lift.py`). Many rows are many chances to be wrong: with a family of
rows each interval is made so wide that all of them hold together (Bonferroni). The answer, the lift of what is learned,
is by itself. All other names of rewards are a family, whether they have a row or not, and so are all rows by fields:
as the server's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from decider.estimate.exploration import mean_cost
from decider.estimate.guardrail import alpha_of
from decider.estimate.lift import HOLDOUT, LEVEL, POLICY, START, Lift, LiftSums, interval_by_person, level_of_each
from decider.estimate.mean import Interval
from decider.estimate.missing_rewards import ALARM
from decider.estimate.split import split_log_evalue
from decider.experiment.guardrails import Guardrail
from decider.experiment.strata import BUCKETS
from decider.learn.guardrails import Judged, evidence_of
from decider.log.lift_totals import MOST_STRATA
from simulator.lift.result import SPLIT_IS_WRONG, GuardrailRow, LiftResult, LiftRow, PersonsFound
from simulator.logs.columns import Category, Field, Flags, Floats
from simulator.logs.errors import BadLog
from simulator.logs.groups import LEARNED, GroupedDecisions, Persons

MOST_VALUES = 20
"""Of a field that get a row: those with most decisions. The others are one row."""

OTHER, NOT_GIVEN = "(other)", "(not given)"

DAY, WEEK = 86_400e6, 604_800e6
"""Microseconds."""


def find_lift(log: GroupedDecisions, fields: Sequence[str] = (), *, level: float = LEVEL) -> LiftResult:
    """The lift of every reward of the log, and of the first by the values of each field. Raises BadLog."""
    everything = np.ones(len(log), np.bool_)
    family = max(log.live_names, len(log.rewards) - 1)
    levels = {name: level if name == LEARNED else level_of_each(family, level) for name in log.rewards}
    groups = list(_groups(log, fields))
    by_level = level_of_each(len(groups) * len(log.rewards), level)
    whole = _lift(log, LEARNED, everything, level)
    split = split_log_evalue(log.split)
    found = LiftResult(
        log=log.log,
        experiment=log.experiment,
        level=level,
        rows=tuple([_row(log, name, "", "", everything, levels[name]) for name in log.rewards]),
        other_names=family,
        by=tuple([_row(log, name, *group, by_level) for group in groups for name in log.rewards]),
        by_level=level,
        cost=whole.cost_interval if whole.is_known else None,
        exploration=_exploration(log, level),
        strata=log.strata,
        begin=int(log.time.min()) if len(log) else 0,
        end=int(log.time.max()) if len(log) else 0,
        left_out=log.left_out,
        guardrails=tuple([_guardrail(log, one) for one in log.guarded.guardrails]),
        since=log.span.since,
        until=log.span.until,
        other_rewards=tuple([name for name in log.names if name not in log.rewards]),
        live_strata=MOST_STRATA if len(log.strata) > MOST_STRATA else 0,
        persons=None if log.persons is None else _persons(log, log.persons, level),
        split_log_evalue=None if math.isnan(split) else split,
    )
    return _without_answers(found) if split > ALARM else found


def _without_answers(found: LiftResult) -> LiftResult:
    """Of groups that cannot be compared."""
    rows, by = (
        tuple([replace(row, answer=SPLIT_IS_WRONG, per_week=None) for row in rows]) for rows in (found.rows, found.by)
    )
    return replace(found, rows=rows, by=by, cost=None)


def _guardrail(log: GroupedDecisions, guardrail: Guardrail) -> GuardrailRow:
    """As the server judges it."""
    alpha = alpha_of(len(log.guarded.guardrails))
    sums = _sums(log, log.guarded.values[guardrail.reward], log.guarded.counted)
    judged = Judged(guardrail, evidence_of(guardrail, sums.strata, alpha))
    found = judged.evidence
    return GuardrailRow(
        reward=guardrail.reward,
        at_most=guardrail.at_most,
        at_least=guardrail.at_least,
        answer="crossed" if judged.crossed else "held" if found.is_known else "too little",
        lift=found.lift if found.is_known else None,
        bound=found.bound if found.is_known else None,
        log_evalue=found.log_evalue,
        needed=found.needed,
        policy=found.policy if found.is_known else None,
        holdout=found.holdout if found.is_known else None,
        decisions=found.decisions,
        crossed_at=guardrail.crossed_at,
    )


def _persons(log: GroupedDecisions, persons: Persons, level: float) -> PersonsFound:
    units = np.bincount(np.unique(np.stack([persons.code, log.unit]), axis=1)[0])
    # Within a stratum: a larger holdout takes units out of the policy's group, which makes nobody two persons.
    groups, seen = np.unique(np.stack([persons.code, log.stratum, log.holdout]), axis=1)[:2]
    both, times = np.unique(np.stack([groups, seen]), axis=1, return_counts=True)
    by_person = replace(log, bucket=persons.bucket)
    sums = _sums(by_person, log.rewards[LEARNED], np.ones(len(log), np.bool_))
    return PersonsFound(
        units=int(units[units > 1].sum()),
        persons=int((units > 1).sum()),
        in_both=len(np.unique(both[0][times > 1])),
        lift=interval_by_person(sums.strata, level),
    )


def _exploration(log: GroupedDecisions, level: float) -> Interval | None:
    bucket = log.draws.bucket
    draws, costs = (np.bincount(bucket, weights, BUCKETS).astype(np.float64) for weights in (None, log.draws.cost))
    found = mean_cost(draws, costs, level)
    return found.interval if found.is_known else None


def _groups(log: GroupedDecisions, fields: Sequence[str]) -> Iterator[tuple[str, str, Flags]]:
    """Each field and value with its decisions."""
    for name in dict.fromkeys(fields):
        if name not in log.fields:
            has = ", ".join(log.fields) or "none"
            raise BadLog(f"{log.log}: --by {name}: no decision has such a field; there are {has}")
        for value, rows in _values(log.fields[name]).items():
            yield name, value, rows


def _values(given: Field) -> Mapping[str, Flags]:
    """Which decisions have each value, the most frequent first."""
    texts = given if isinstance(given, Category) else Category.of(_texts(given.values.tolist()))
    made = np.bincount(texts.codes + 1, minlength=len(texts.values) + 1)
    order = [int(code) for code in np.argsort(-made, kind="stable") if made[code]]
    names = (NOT_GIVEN, *texts.values)
    found = {names[code]: texts.codes + 1 == code for code in order[:MOST_VALUES]}
    rest = order[MOST_VALUES:]
    return {**found, OTHER: np.isin(texts.codes + 1, rest)} if rest else found


def _texts(numbers: list[float]) -> list[str]:
    return ["" if math.isnan(number) else f"{number:g}" for number in numbers]


def _lift(log: GroupedDecisions, reward: str, rows: Flags, level: float) -> Lift:
    return _sums(log, log.rewards[reward], rows).lift(level)


def _sums(log: GroupedDecisions, values: Floats, rows: Flags) -> LiftSums:
    sums = LiftSums(BUCKETS)
    sums.add_many(bucket=log.bucket[rows], holdout=log.holdout[rows], reward=values[rows], stratum=log.stratum[rows])
    return sums


def _row(log: GroupedDecisions, reward: str, field: str, value: str, rows: Flags, level: float) -> LiftRow:
    found = _lift(log, reward, rows, level)
    units = [len(np.unique(log.unit[rows & (log.holdout == one)])) for one in (False, True)]
    return LiftRow(
        reward=reward,
        field=field,
        value=value,
        answer=found.answer,
        lift=found.interval,
        relative=found.relative,
        per_week=_per_week(found, log) if found.is_known else None,
        policy=found.policy,
        holdout=found.holdout,
        decisions=found.decisions,
        units=(units[POLICY], units[HOLDOUT]),
        clusters=found.clusters,
        needed=START,
    )


def _per_week(found: Lift, log: GroupedDecisions) -> Interval | None:
    took = int(log.time.max() - log.time.min())
    if took < DAY:
        return None
    often = found.decisions[POLICY] * WEEK / took
    interval = found.interval
    return Interval(interval.value * often, interval.low * often, interval.high * often)
