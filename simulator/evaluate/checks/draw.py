"""Are the logged propensities those with which the actions were drawn? Called by `checks/log.py`.

Every estimate that weights by 1/propensity depends on it. A log with pmfs is checked in full. Without pmfs,
1{a}/propensity has a mean of 1 if `a` could always be drawn and of less if not: a mean above 1 shows wrong
propensities, a mean below 1 may only show that `a` was not always eligible.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from decider.estimate.sample import Floats
from decider.estimate.sample_ratio import Skew, freedman, weight_evidence
from decider.text import figure, percent
from simulator.evaluate.checks.context import context_balance
from simulator.evaluate.result import Finding
from simulator.evaluate.tally import Tally, bin_edges, divide, tally
from simulator.evaluate.verdicts import ALARM, MATERIAL, alarm, caution_if
from simulator.logs.columns import Columns, first_of_each

LIKELIEST = "the most probable action"
"""An event of the sample ratio test besides the actions: it finds a server that draws the argmax and logs a softmax."""

NOT_COME = 7
"""Draws that were to be expected and did not come, with a chance of e^-7: about that of an alarm."""

_FIX = "Log the probability with which the drawn action was really drawn, taken from the code that draws."


def draw_findings(columns: Columns) -> tuple[Finding, ...]:
    """Everything about propensities; the draws themselves only where every decision has one."""
    if not columns.has_propensities:
        return (missing_propensities(columns),)
    findings = [missing_propensities(columns), smallest_propensity(columns), exploration(columns)]
    repeats = repeated_draws(columns)
    findings += [repeats] if repeats else []
    independent = independent_draws(columns, repeats)
    checks = _with_pmfs(independent) if columns.pmf is not None else _without_pmfs(independent)
    balance = context_balance(independent)
    return (*findings, *checks, *([balance] if balance else []))


def missing_propensities(columns: Columns) -> Finding:
    """Decisions without a propensity."""
    missing = int(np.isnan(columns.propensity).sum())
    if not missing:
        return Finding("propensities", "fine", "Every decision has its propensity.", 0.0)
    return Finding(
        "propensities",
        "do not use",
        f"{missing:,} of {len(columns):,} decisions have no propensity: nothing can be weighted (no IPS, SNIPS, DR). "
        "What remains possible: plain means of what was logged, and the direct method, which is as good as its model.",
        float(missing),
        "Log with every decision the probability with which its action was drawn.",
    )


def smallest_propensity(columns: Columns) -> Finding:
    """The least probable of the draws: 1/propensity is how many decisions it stands for."""
    smallest = float(columns.propensity.min(initial=1.0))
    too_small = smallest * len(columns) < 1.0 and len(columns) > 0
    text = (
        f"The smallest propensity is {figure(smallest)}: such a decision can weigh as much as {figure(1 / smallest)}."
    )
    if too_small:
        text += " That is more than the log has."
    needed = "A minimum propensity (floor) for every action that a candidate may want." if too_small else ""
    return Finding("smallest propensity", caution_if(too_small), text, smallest, needed)


def exploration(columns: Columns) -> Finding:
    """Decisions without randomisation although several actions were eligible."""
    sizes = np.array([len(members) for members in columns.sets], np.int64)
    choice = sizes[columns.eligible] > 1
    certain = int(np.count_nonzero(choice & (columns.propensity >= 1.0)))
    share = certain / max(1, int(np.count_nonzero(choice)))
    if share <= MATERIAL:
        text = f"{percent(1 - share)} of the decisions with a choice were randomised."
        return Finding("exploration", "fine", text, share)
    return Finding(
        "exploration",
        "caution",
        f"{percent(share)} of the decisions with a choice were not randomised (propensity 1): only a policy that "
        "does the same there can be evaluated.",
        share,
        "Propensities below 1 wherever there is a choice.",
    )


def repeated_draws(columns: Columns) -> Finding | None:
    """Whether units keep their action from one decision to the next; None where no unit comes back.

    1{same action as before}/propensity has a mean of at most 1 if every decision has a draw of its own.
    """
    order = np.argsort(columns.unit, kind="stable")
    before, after = order[:-1], order[1:]
    again = (columns.unit[before] == columns.unit[after]) & (columns.propensity[after] < 1.0)
    before, after = before[again], after[again]
    if not len(after):
        return None
    same = after[columns.action[before] == columns.action[after]]
    weights, none = 1.0 / columns.propensity[same], np.zeros(len(same), np.int64)
    evidence = float(weight_evidence(weights, none, np.array([len(after)]))[0])
    mean = float(weights.sum()) / len(after)
    if evidence < 1 / ALARM:
        return Finding("draws of a unit", "fine", "A unit that comes back gets a new draw.", mean)
    return Finding(
        "draws of a unit",
        "caution",
        f"Units that come back get their last action {figure(mean)} times as often as its propensities say: "
        "probably one draw for each unit. Intervals are clustered by unit; checks of draws take its first decision.",
        mean,
        "Nothing, if that is meant; else draw with the decision's id, not the unit's.",
    )


def independent_draws(columns: Columns, repeats: Finding | None) -> Columns:
    """Each decision that has a draw of its own. repeats: what `repeated_draws` found."""
    return columns if repeats is None or repeats.verdict == "fine" else columns.take(first_of_each(columns.unit))


def _with_pmfs(columns: Columns) -> tuple[Finding, ...]:
    found = tally(columns)
    excess = found.weight - found.chances
    down = np.where(excess < 0, 1.0, found.heaviest)  # a draw missed lowers the sum by 1 at most
    chance = freedman(excess, variance=found.spread, largest=down)
    return (
        agreement(found, len(columns)),
        mean_weights(found.mean_weight, chance, columns.actions),
        calibration(found),
        sample_ratio(found.ratio.highest, found.ratio.skew, (*columns.actions, LIKELIEST)),
    )


def agreement(found: Tally, decisions: int) -> Finding:
    """Whether each propensity is the pmf's value at the drawn action, and each pmf sums to 1, within 1 %."""
    share = found.disagreeing / max(1, decisions)
    if not found.disagreeing:
        return Finding("pmfs", "fine", "Every propensity is its pmf's value at the drawn action.", share)
    return Finding(
        "pmfs",
        alarm(significant=True, material=share > MATERIAL),
        f"In {found.disagreeing:,} decisions ({percent(share)}) the propensity is not the pmf's value at the drawn "
        "action, or the pmf does not sum to 1: one of them was not logged as it was drawn.",
        share,
        "Log the pmf that was drawn from, after every rule and override, and its value at the drawn action.",
    )


def mean_weights(mean: Floats, chance: Floats, actions: tuple[str, ...]) -> Finding:
    """Mean of 1{a}/propensity by action, where `a` could be drawn. chance: (actions,), the p-value of each mean.

    >>> mean_weights(np.array([1.0, 1.5]), np.array([1.0, 1e-9]), ("a", "b")).text[:75]
    "1/propensity of 'b' has a mean of 1.5, not 1 (by chance: 1e-09 at most): it"
    """
    known = np.flatnonzero(~np.isnan(mean))
    if not len(known):
        return Finding("mean weight by action", "fine", "No action could be drawn.")
    off = np.abs(mean[known] - 1.0)
    alarming = chance[known] < ALARM / len(known)
    worst = int(known[np.lexsort((off, alarming))[-1]])  # the farthest of those that alarm, if any does
    verdict = alarm(significant=bool(alarming.any()), material=abs(mean[worst] - 1.0) > MATERIAL)
    low, high = (figure(float(end)) for end in (mean[known].min(), mean[known].max()))
    if verdict == "fine":
        text = f"1/propensity has a mean of {low} to {high} by action: consistent with 1."
        return Finding("mean weight by action", verdict, text, float(mean[worst]))
    return Finding(
        "mean weight by action",
        verdict,
        f"1/propensity of {actions[worst]!r} has a mean of {figure(float(mean[worst]))}, not 1 (by chance: "
        f"{figure(float(chance[worst]))} at most): it was drawn {_more_or_less(float(mean[worst]))} than its "
        "propensities say.",
        float(mean[worst]),
        _FIX,
    )


def calibration(found: Tally) -> Finding:
    """Realised against expected draws in bins of about equal probability, over all actions."""
    used = np.flatnonzero(found.bins[0, 1:] > 0) + 1
    if not len(used):
        return Finding("propensity calibration", "fine", "No decision was randomised.")
    expected, variance, realised = found.bins[:, used]
    chance = freedman(realised - expected, variance=variance, largest=np.ones(len(used)))
    ratio = realised / expected
    alarming = chance < ALARM / len(used)
    worst = int(np.argmin(chance))
    verdict = alarm(significant=bool(alarming.any()), material=abs(ratio[worst] - 1.0) > MATERIAL)
    low, high = (figure(edge) for edge in bin_edges(int(used[worst])))
    wanted, got = figure(float(expected[worst])), figure(float(realised[worst]))
    text = f"Actions with a logged probability of {low} to {high} were expected {wanted} times and drawn {got} times"
    if verdict == "fine":
        return Finding("propensity calibration", verdict, text + ": consistent with chance.", float(ratio[worst]))
    text += f" (by chance: {figure(float(chance[worst]))} at most)."
    return Finding("propensity calibration", verdict, text, float(ratio[worst]), _FIX)


def sample_ratio(evidence: float, skew: Skew, events: tuple[str, ...]) -> Finding:
    """The test of the sample ratio, an e-process on the draws. evidence: its highest value, a bet's wealth.

    >>> sample_ratio(5e4, Skew(1, 1.2), ("a", "b")).text[:99]
    'The draws do not follow the logged pmfs (sample-ratio test: evidence of mismatch at odds of 50,000)'
    """
    if evidence < 1 / ALARM:
        text = f"The draws follow the logged pmfs ({_evidence_of(evidence)}; alarm at odds of 1,000)."
        return Finding("sample ratio", "fine", text, evidence)
    name = events[skew.event] if events[skew.event] == LIKELIEST else repr(events[skew.event])
    return Finding(
        "sample ratio",
        alarm(significant=True, material=abs(skew.ratio - 1.0) > MATERIAL),
        f"The draws do not follow the logged pmfs ({_evidence_of(evidence)}): "
        f"{name} was drawn {_more_or_less(skew.ratio)} than its probabilities say.",
        evidence,
        _FIX,
    )


def _evidence_of(wealth: float) -> str:
    odds = f"evidence of mismatch at odds of {figure(wealth)}" if wealth > 1.0 else "no evidence of mismatch"
    return f"sample-ratio test: {odds}"


def _more_or_less(ratio: float) -> str:
    return f"{percent(abs(ratio - 1.0))} {'more' if ratio > 1 else 'less'} often"


def _without_pmfs(columns: Columns) -> tuple[Finding, ...]:
    """Decisions with propensity 1 are no draws: they are left out."""
    random = columns.propensity < 1.0
    actions = len(columns.actions)
    by_set = np.bincount(columns.eligible[random], minlength=len(columns.sets))
    chances = (by_set[:, np.newaxis] * columns.member).sum(axis=0)
    action, weights = columns.action[random].astype(np.int64), 1.0 / columns.propensity[random]
    weight = np.bincount(action, weights=weights, minlength=actions).astype(np.float64)
    mean = divide(weight, np.where(weight > 0, chances, 0))
    seen = np.bincount(action, weights=weights * (weights - 1.0), minlength=actions)  # on average the variance,
    variance = seen / np.fmin(mean, 1.0)  # but too small where the action was drawn too rarely
    heaviest = np.zeros(actions)
    np.maximum.at(heaviest, action, weights)
    excess = weight - chances
    most = float(weights.max(initial=1.0))
    heavy = np.bincount(action[weights >= most / 2], minlength=actions)
    # a deficit that a few of the heaviest draws would fill, of an action that hardly had such: they may not have come
    few = (excess < 0) & (-excess <= NOT_COME * most) & (heavy < NOT_COME)
    chance = np.where(few, 1.0, freedman(excess, variance=variance, largest=heaviest))
    return (
        _unless_not_eligible(mean_weights(mean, chance, columns.actions)),
        one_sided(weight_evidence(weights, action, chances), mean, columns.actions),
    )


def _unless_not_eligible(found: Finding) -> Finding:
    if found.verdict == "fine" or found.value is None or found.value > 1.0:
        return found
    text = found.text + " Or it could not always be drawn: without pmfs both are possible."
    return replace(found, verdict="caution", text=text, needed="Log the whole pmf with every decision.")


def one_sided(evidence: Floats, mean: Floats, actions: tuple[str, ...]) -> Finding:
    """The sample ratio of a log without pmfs. evidence: (actions,), that their mean weight is above 1.

    >>> one_sided(np.array([1.0, 5e4]), np.array([1.0, 1.2]), ("a", "b")).verdict
    'do not use'
    """
    # a mean of e-values is an e-value (Vovk & Wang, Annals of Statistics 2021, section 3)
    combined = float(evidence.mean()) if len(evidence) else 1.0
    unseen = "Only drawn actions' propensities are logged, so only actions drawn too often can be seen"
    if combined < 1 / ALARM:
        text = f"{unseen} ({_evidence_of(combined)}; alarm at odds of 1,000)."
        return Finding("sample ratio", "fine", text, combined)
    worst = int(evidence.argmax())
    excess = float(mean[worst])
    return Finding(
        "sample ratio",
        alarm(significant=True, material=excess - 1.0 > MATERIAL),
        f"{unseen}: {actions[worst]!r} was drawn {_more_or_less(excess)} than its propensities say "
        f"({_evidence_of(combined)}).",
        combined,
        _FIX,
    )
