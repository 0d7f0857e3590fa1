"""The control group (the holdout) as evidence: its own mean, the lift over it, and what it adds to a candidate.

Called by `run.py`. Its units always get the baseline action, so their rewards answer directly what a candidate would
have earned that does the same. The decisions of the policy answer it, too, weighted; the two groups have no unit in
common. So the best mean of both is used, and its interval is that of a sum of independent estimates. Where persons have
linked units in both groups, it is that of correlated ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

import numpy as np

from decider.estimate.default_interval import NAME as DEFAULT
from decider.estimate.independent import share_of, weighted_sum
from decider.estimate.mean import Interval
from decider.text import count, figure, percent
from simulator.evaluate.candidates import Candidate, FixedAction
from simulator.evaluate.checks.split import split_verdict, versions_apart
from simulator.evaluate.estimates import Estimator, Terms, estimate_mean, mean_reward
from simulator.evaluate.result import Diagnostics, Difference, Estimate, Finding, HoldoutMean, PolicyResult
from simulator.evaluate.reward_bounds import possible_rewards
from simulator.evaluate.verdicts import ENOUGH_ESS, LEAST_ESS, at_least, reasons, worst_verdict
from simulator.logs.columns import Columns, Flags, Floats

TWO_GROUPS = f"{DEFAULT}, of two groups"

HOLDOUT = "holdout"

WIDER = 1.68
"""Of a 95 % interval to one that is missed once in a thousand, as `ALARM` wants: 3.29 to 1.96 standard errors."""


def holdout_mean(columns: Columns, logged: Estimate) -> HoldoutMean | None:
    """The control group's own mean, and how much more the policy's units earned. None where the log has no group.

    logged: the mean of the decisions that the policy made. Only those that could have the baseline action are compared
    with the group: others may be of better or worse visits, and the group has none of them. Versions that must not be
    pooled have no lift: each group may be of another time, and their difference can have any sign (Simpson's paradox).
    """
    group = columns.holdout
    if group is None or not len(group):
        return None
    estimate, units = _own_mean(group), len(group.units.size)
    apart, served = versions_apart(columns), columns
    could = _with_baseline(columns)
    if could is not None and could.any():
        alike = columns.take(could)
        logged = mean_reward(alike.reward, alike.units, possible_rewards(alike))
        served = alike
    elif could is not None:
        apart = apart or "The policy made no decision for which the control group's action was eligible."
    return HoldoutMean(
        action="" if columns.baseline is None else columns.actions[columns.baseline],
        share=columns.split.declared if columns.split else 0.0,
        decisions=len(group),
        units=units,
        estimate=estimate,
        lift=_lift(logged, estimate, correlation(served, served.reward, group)) if len(columns) and not apart else None,
        verdict=worst_verdict([Finding(HOLDOUT, split_verdict(columns), ""), _enough(units, len(group))]),
        no_lift=apart,
    )


def _with_baseline(columns: Columns) -> Flags | None:
    """(n,): whether the baseline action was eligible; None where it always was, or is not known."""
    if columns.baseline is None:
        return None
    could = columns.member[columns.eligible, columns.baseline]
    return None if could.all() else could


def _lift(logged: Estimate, own: Estimate, correlation: float) -> Difference:
    more = weighted_sum((1.0, _interval(logged)), (-1.0, _interval(own)), correlation=correlation)
    return Difference(HOLDOUT, "mean", more.value, more.low, more.high, TWO_GROUPS)


def correlation(columns: Columns, terms: Floats, group: Columns) -> float:
    """Of the mean term of the policy's decisions and the control group's mean reward: what persons with linked units in
    both add to both. 0 where no units are linked.

    >>> from simulator.logs.example import example
    >>> linked = replace(example(), person=np.array([0, 1]))
    >>> correlation(linked, linked.reward, linked), correlation(example(), example().reward, example())
    (1.0, 0.0)
    """
    if columns.person is None or group.person is None:
        return 0.0
    persons = int(max(columns.person.max(initial=0), group.person.max(initial=0))) + 1
    one = np.bincount(columns.person, terms - terms.mean(), persons)
    other = np.bincount(group.person, group.reward - group.reward.mean(), persons)
    scale = sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / scale if scale else 0.0


def with_control_group(
    result: PolicyResult, candidate: Candidate, estimator: Estimator, log: Sequence[Finding]
) -> PolicyResult:
    """The result of a candidate, with the control group where that did what the candidate would do.

    log: its findings. Where the log cannot be used, or its units were not split as declared, all stays as it is.
    Where the policy's decisions cannot carry the candidate, the control group alone answers.
    """
    columns = estimator.columns
    group = columns.holdout
    if group is None or not isinstance(candidate, FixedAction) or not always_drew(group, candidate.action):
        return result
    units = len(group.units.size)
    unusable = any(finding.verdict == "do not use" for finding in log) or split_verdict(columns) != "fine"
    unusable |= _with_baseline(columns) is not None  # the two groups are not of the same visits
    if unusable or units < LEAST_ESS or not columns.has_propensities or not len(columns):
        return result
    own = _own_mean(group)
    shared = correlation(columns, estimator.terms.terms, group)
    if result.diagnostics.verdict == "do not use":
        return _alone(result, own, estimator, _too_little(group))
    if disagree(result.estimates[result.headline], own, shared):
        return _alone(result, own, estimator, _disagreement(result, own))
    return _combined(result, own, estimator, shared)


def disagree(one: Estimate, other: Estimate, correlation: float = 0.0) -> bool:
    """Whether chance cannot explain the difference of two estimates of the same.

    >>> low, high = Estimate(0.1, 0.08, 0.12, ""), Estimate(0.2, 0.17, 0.23, "")
    >>> disagree(low, high), disagree(low, low)
    (True, False)
    """
    less = weighted_sum((1.0, _interval(one)), (-1.0, _interval(other)), correlation=correlation)
    return less.value - WIDER * (less.value - less.low) > 0 or less.value + WIDER * (less.high - less.value) < 0


def _disagreement(result: PolicyResult, own: Estimate) -> Finding:
    weighted = result.estimates[result.headline]
    return Finding(
        HOLDOUT,
        "caution",
        f"The control group always got this action and earned {figure(own.value)}; the policy's decisions, weighted, "
        f"say {figure(weighted.value)}. Chance cannot explain that. The control group alone is the estimate: it needs "
        "no propensities.",
        weighted.value - own.value,
        "Find out what is wrong: the propensities, a field of the context that knows the action or the reward, or "
        "units that come back more often in one group.",
    )


def _own_mean(group: Columns) -> Estimate:
    return mean_reward(group.reward, group.units, possible_rewards(group))


def always_drew(group: Columns, action: int) -> bool:
    """Whether every decision that could draw the action did.

    >>> from simulator.logs.example import example
    >>> always_drew(example(), 0), always_drew(example().take(slice(1, 2)), 0)
    (False, True)
    """
    could = group.member[group.eligible, action]
    return bool(could.any()) and bool((group.action[could] == action).all())


def _combined(result: PolicyResult, own: Estimate, estimator: Estimator, shared: float) -> PolicyResult:
    """Both groups: share x the policy's decisions + (1 - share) x the control group's mean. shared: `correlation`."""
    weighted, group = result.estimates[result.headline], _group(estimator)
    share = share_of(_interval(weighted), _interval(own), shared)
    both = weighted_sum((share, _interval(weighted)), (1 - share, _interval(own)), correlation=shared)
    low, high = estimator.value_range
    both = Interval(both.value, max(both.low, low), min(both.high, high))
    name = f"{result.headline}_and_{HOLDOUT}"
    found = Estimate(both.value, both.low, both.high, TWO_GROUPS)
    text = (
        f"The control group always got this action: {count(len(group))} decisions of {count(len(group.units.size))} "
        f"units, which have {percent(1 - share)} of the weight."
    )
    return replace(
        result,
        headline=name,
        estimates={name: found, HOLDOUT: own, **result.estimates},
        difference=_difference(estimator, own, share, name),
        diagnostics=_diagnostics(result.diagnostics, Finding(HOLDOUT, "fine", text, 1 - share), matter=share >= 0.5),
    )


def _group(estimator: Estimator) -> Columns:
    group = estimator.columns.holdout
    assert group is not None
    return group


def _too_little(group: Columns) -> Finding:
    enough = _enough(len(group.units.size), len(group))
    text = f"{enough.text} They alone are the estimate: the policy's decisions cannot carry it."
    return replace(enough, text=text, value=1.0)


def _alone(result: PolicyResult, own: Estimate, estimator: Estimator, finding: Finding) -> PolicyResult:
    """The policy's decisions have no weight. finding: why."""
    columns = estimator.columns
    logged = mean_reward(columns.reward, columns.units, possible_rewards(columns))
    shared = correlation(columns, columns.reward, _group(estimator))
    less = weighted_sum((1.0, _interval(own)), (-1.0, _interval(logged)), correlation=shared)
    return replace(
        result,
        refused=False,
        headline=HOLDOUT,
        estimates={HOLDOUT: own, **result.estimates},
        difference=Difference("logged", HOLDOUT, less.value, less.low, less.high, TWO_GROUPS),
        diagnostics=_diagnostics(result.diagnostics, finding, matter=False),
    )


def _enough(units: int, decisions: int) -> Finding:
    """Whether the control group is large enough to say something by itself."""
    verdict = at_least(units, least=LEAST_ESS, enough=ENOUGH_ESS)
    text = f"The control group always got this action: {count(decisions)} decisions of {count(units)} units."
    needed = "" if verdict == "fine" else "A larger holdout, or a longer log."
    return Finding(HOLDOUT, verdict, text, float(units), needed)


def _diagnostics(found: Diagnostics, holdout: Finding, *, matter: bool) -> Diagnostics:
    """matter: the findings about the policy's decisions count; else they are told, and nothing hangs on them."""
    others = found.findings if matter else [replace(one, verdict="fine", needed="") for one in found.findings]
    findings = (holdout, *others)
    return replace(found, findings=findings, verdict=worst_verdict(findings), reasons=reasons(findings))


def _difference(estimator: Estimator, own: Estimate, share: float, name: str) -> Difference:
    """To the logged mean: the policy's decisions carry share x their term - their reward, the control group the rest.

    What a decision's term and its reward have in common cancels before the interval is made.
    """
    terms = estimator.terms
    low, high = estimator.value_range
    idle = terms.idle or (low, high)
    less = Terms(
        share * terms.terms - estimator.columns.reward,
        share * terms.low - high,
        share * terms.high - low,
        idle=(share * idle[0] - high, share * idle[1] - low),
        unseen=terms.unseen and terms.unseen.times(share),
    )
    policy = estimate_mean(estimator.samples(less), (share * low - high, share * high - low))
    shared = correlation(estimator.columns, less.terms, _group(estimator))
    both = weighted_sum((1.0, _interval(policy)), (1 - share, _interval(own)), correlation=shared)
    width = high - low
    return Difference("logged", name, both.value, max(both.low, -width), min(both.high, width), TWO_GROUPS)


def _interval(estimate: Estimate) -> Interval:
    return Interval(estimate.value, estimate.low, estimate.high)
