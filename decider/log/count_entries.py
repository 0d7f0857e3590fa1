"""Counts entries into totals one by one: the plain meaning of every total. Called by logs that do not count in SQL."""

from __future__ import annotations

from bisect import bisect_left

from decider.experiment.aggregate import final_reward
from decider.experiment.definition import ExperimentVersion
from decider.experiment.strata import HOLDOUT_REASONS, Stratum, bucket_of
from decider.log.cell_totals import LEAST, Cell, cell_of
from decider.log.daily_totals import DayCell, DayGroup, Earned, day_of
from decider.log.exact_sum import ZERO, ExactSum
from decider.log.exploration import exploration_cost
from decider.log.lift_totals import LEARNED, StratumTotals, place_of
from decider.log.protocol import LoggedDecision, NewRewardChange, SealedDecision
from decider.log.totals import (
    ALL,
    CALLED,
    CHANNEL,
    DELAY_BUCKETS,
    HOLDOUT,
    POLICY,
    POLICY_DRAWS,
    SLOTS,
    ActionNames,
    FieldCell,
    NamedTotals,
    RewardTotals,
    SealedTotals,
    Totals,
    names_of,
    slots_variance,
)
from decider.types import Position, RewardOutcome


def count_ended(
    totals: Totals, sealed: SealedDecision, version: ExperimentVersion, stratum: Stratum | None, measure: Stratum
) -> None:
    """A decision whose declared window is over, with `named` filled. stratum: None where its version has no holdout."""
    _count_sealed(totals, sealed, version, stratum)
    _count_rewarded(totals, sealed, version)
    _count_exploration(totals, sealed, version, measure)


def count_reward(
    totals: Totals, version: Position, name: str, value: float, outcome: RewardOutcome, delay: int
) -> None:
    """A reward as it was sent. delay: microseconds after its decision."""
    key = (version, name, outcome)
    more = RewardTotals(1, ExactSum.of(value), ExactSum.of(value * value))
    totals.rewards[key] = totals.rewards.get(key, RewardTotals()) + more
    totals.delays[version, bisect_left(DELAY_BUCKETS, delay / 1e6)] += 1
    totals.delay[version] += delay


def count_decision(totals: Totals, logged: LoggedDecision, names: ActionNames, measure: Position) -> None:
    """A decision as it was made. names: of its version's actions. measure: the first version of its measure."""
    decision, day = logged.decision, day_of(logged.time)
    version, action = decision.version, names.counted_as(decision.action)
    totals.decisions[version, action, decision.reason] += 1
    if decision.reason not in HOLDOUT_REASONS:
        totals.days[DayCell(version, day, decision.context.segment, action)] += 1
    if decision.reason in POLICY_DRAWS:
        key = (version, action)
        totals.inverse_propensity[key] = totals.inverse_propensity.get(key, ZERO) + ExactSum.of(1 / decision.propensity)
        totals.excess[*key, day] += SLOTS
        for eligible, slots in zip(decision.eligible, decision.pmf, strict=True):
            key = (version, names.counted_as(eligible))
            totals.possible[key] += slots > 0
            totals.excess[*key, day] -= slots
            totals.variance[*key, day] += slots_variance(slots)
            if slots and key[1] != CALLED:
                cell = Cell(measure, decision.context.segment, key[1])
                cell_of(totals.cells, cell).add_pmf(slots)


def count_change(totals: Totals, change: NewRewardChange, name: str, version: Position, *, in_time: bool) -> None:
    """A change of a reward of that name. version: of the decision."""
    key = (version, name, _outcome_of_change(change) if in_time else RewardOutcome.LATE)
    totals.rewards[key] = totals.rewards.get(key, RewardTotals()) + RewardTotals(1)


def _outcome_of_change(change: NewRewardChange) -> RewardOutcome:
    return RewardOutcome.RETRACTED if change.value is None else RewardOutcome.CORRECTED


def _count_sealed(totals: Totals, sealed: SealedDecision, version: ExperimentVersion, stratum: Stratum | None) -> None:
    is_holdout = sealed.decision.reason in HOLDOUT_REASONS
    key = (version.position, HOLDOUT if is_holdout else POLICY)
    more = _sealed_totals(sealed, version)
    totals.sealed[key] = totals.sealed.get(key, SealedTotals()) + more
    if more.count:
        day = DayGroup(version.position, day_of(sealed.time), key[1])
        totals.earned[day] = totals.earned.get(day, Earned()).plus(Earned(more.count, more.reward))
    if stratum is None:
        return
    lift = totals.lift.setdefault(stratum, StratumTotals())
    place = place_of(bucket_of(sealed.decision.unit_id), holdout=is_holdout)
    if not version.counts(activated=sealed.activated):
        lift.left_out[place] += 1
    else:
        lift.decisions[place] += 1
        lift.of(LEARNED).add_float(place, final_reward(version.experiment.reward, sealed.rewards))
        for name, value in sealed.named or ():
            lift.of(name).add_float(place, value)


def _count_rewarded(totals: Totals, sealed: SealedDecision, version: ExperimentVersion) -> None:
    if not version.counts(activated=sealed.activated):
        return
    group = HOLDOUT if sealed.decision.reason in HOLDOUT_REASONS else POLICY
    context, rewarded, day = sealed.decision.context, int(bool(sealed.rewards)), day_of(sealed.time)
    values: dict[str, float] = {}
    for name, value in sealed.named:
        values[name] = values.get(name, 0.0) + value
    totals.count_fields(version.position, context, group, day, count=1, rewarded=rewarded)
    for name in (ALL, *values):
        totals.rewarded[version.position, name, group, day] += 1
    for name, value in values.items():
        key = (version.position, name, group)
        totals.named[key] = totals.named.get(key, NamedTotals()) + NamedTotals.of(value)
        totals.by_field[FieldCell(version.position, CHANNEL, context.channel, name, group, day)] += 1


def _count_exploration(totals: Totals, sealed: SealedDecision, version: ExperimentVersion, measure: Stratum) -> None:
    decision = sealed.decision
    if decision.reason in POLICY_DRAWS and version.counts(activated=sealed.activated):
        draws = totals.exploration.setdefault(measure, StratumTotals())
        place = place_of(bucket_of(decision.unit_id), holdout=False)
        draws.decisions[place] += 1
        reward = final_reward(version.experiment.reward, sealed.rewards)
        draws.of(LEARNED).add_float(place, exploration_cost(decision, reward))
        action = names_of(version).counted_as(decision.action)
        if action != CALLED and decision.propensity >= LEAST:
            cell = Cell(measure.first, decision.context.segment, action)
            cell_of(totals.cells, cell).add_draw(bucket_of(decision.unit_id), decision.propensity, reward)


def _sealed_totals(sealed: SealedDecision, version: ExperimentVersion) -> SealedTotals:
    """Of one decision."""
    if not version.counts(activated=sealed.activated):
        return SealedTotals(not_activated=1)
    reward = final_reward(version.experiment.reward, sealed.rewards)
    return SealedTotals(
        count=1,
        defaulted=int(not sealed.rewards),
        overridden=int(sealed.overridden),
        activated=int(sealed.activated),
        reward=ExactSum.of(reward),
        squared=ExactSum.of(reward * reward),
    )
