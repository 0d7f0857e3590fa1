"""Whether a log can say what a candidate would have earned. Called by the evaluation, before any estimate.

The questions, in order: could the log draw what the candidate would (support)? Is the mean weight 1 (are the
propensities those of this log, and was enough of it drawn)? How large is the effective sample size? What is the
interval of the answer worth (`answer.py`)? All of it is the same for rewards r, r + c, -r and k r, with their range
transformed alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from decider.estimate.weights import effective_size, top_share, usual_value
from decider.text import figure, more_decisions, percent
from simulator.evaluate.checks.answer import Answer, answer_findings
from simulator.evaluate.checks.dr_against_ips import dr_against_ips
from simulator.evaluate.checks.mean_weight import mean_of_weights
from simulator.evaluate.checks.overlap import Overlap
from simulator.evaluate.checks.reward_range import reward_range
from simulator.evaluate.result import Diagnostics, Finding
from simulator.evaluate.verdicts import (
    BALANCE,
    ENOUGH_ESS,
    LEAKS,
    LEAST_ESS,
    MATERIAL,
    MORE_LIKE_IT,
    NEGLIGIBLE,
    TOP_SHARE,
    USEFUL_WEIGHT,
    at_least,
    caution_if,
    reasons,
    worst_verdict,
)
from simulator.logs.columns import Category, Columns, Field

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]


def candidate_findings(overlap: Overlap, answer: Answer | None) -> tuple[Finding, ...]:
    """The findings of `diagnose` that are about the candidate."""
    columns, weight = overlap.columns, overlap.weight
    if not len(weight):
        return (Finding("weights", "do not use", "There are no decisions.", 0.0, "A log with decisions."),)
    if np.isnan(weight).any():
        text = "Decisions without propensity have no weight: only the direct method can say anything."
        return (Finding("weights", "do not use", text, None, "Propensities in the log."),)
    mean = mean_of_weights(overlap)
    if mean.verdict == "do not use":  # then the interval says nothing, and neither does its width
        answer = None
    return (
        support(overlap),
        mean,
        *[one for one in [dr_against_ips(overlap)] if one],
        effective_sample_size(weight),
        *(answer_findings(answer, columns.reward, missing=float(overlap.missing.mean())) if answer else ()),
        *[one for one in [reward_range(columns)] if one and one.verdict == "caution"],  # worse ones come with the log
        largest_weight(overlap),
        concentration(weight),
    )


def diagnose(
    overlap: Overlap,
    *,
    log: tuple[Finding, ...] = (),
    answer: Answer | None = None,
    findings_of: Callable[[Overlap, Answer | None], tuple[Finding, ...]] = candidate_findings,
) -> Diagnostics:
    """Everything about one candidate. log: findings of the log; what forbids weighting there forbids it here, too.

    answer: None where there is none, since decisions have no weights. findings_of: the checks of the candidate itself.
    """
    columns, weight = overlap.columns, overlap.weight
    reward = columns.reward
    of_log = [
        one for one in log if one.verdict == "do not use" or (one.name in (LEAKS, BALANCE) and one.verdict == "caution")
    ]
    findings = (*of_log, *findings_of(overlap, answer))
    return Diagnostics(
        ess=effective_size(weight),
        effective_successes=effective_size(weight[reward != usual_value(reward)]),
        max_weight=float(weight.max(initial=0.0)),
        possible_weight=overlap.possible_weight,
        top_share=top_share(weight),
        mean_weight=float(weight.mean()) if len(weight) else math.nan,
        smallest_propensity=float(columns.propensity.min(initial=1.0)),
        support_violations=int(np.count_nonzero(overlap.missing > NEGLIGIBLE)),
        missing_mass=float(overlap.missing.mean()) if len(weight) else 0.0,
        verdict=worst_verdict(findings),
        reasons=reasons(findings),
        findings=findings,
    )


def support(overlap: Overlap) -> Finding:
    """Probability on actions that the log could not draw: whatever they would earn is not in the log."""
    mass, decisions = float(overlap.missing.mean()), len(overlap.missing)
    count = int(np.count_nonzero(overlap.missing > NEGLIGIBLE))
    if not count:
        text = "Full support: no action of the candidate is missing in the log."
        return Finding("support", "fine", text, mass)
    return Finding(
        "support",
        "caution",
        f"In {count:,} of {decisions:,} decisions the candidate would draw actions that the log could not, "
        f"{percent(mass)} of all its draws{_most_missed(overlap)}. What they would earn is unknown: the intervals are "
        f"wider by {percent(mass)} of the range of rewards.",
        mass,
        f"A log that draws these too, with at least {figure(1 / USEFUL_WEIGHT)} times the candidate's probability.",
    )


def _most_missed(overlap: Overlap) -> str:
    action = int(overlap.missing_by_action.argmax())
    if not overlap.missing_by_action[action] > 0:
        return ", all of actions that the log does not know"
    columns, row = overlap.columns, int(overlap.example[action])
    return f"; most of all {columns.actions[action]!r}, as in decision {row + 1:,} ({context_of(columns, row)})"


def context_of(columns: Columns, row: int) -> str:
    """A decision's context in words.

    >>> field = Category.of(["young", ""])
    >>> [_words("segment", field, row) for row in (0, 1)]
    [['segment=young'], []]
    """
    words = [word for name, field in columns.fields.items() for word in _words(name, field, row)]
    return ", ".join(words[:5]) or "no context"


def _words(name: str, field: Field, row: int) -> list[str]:
    if isinstance(field, Category):
        code = int(field.codes[row])
        return [f"{name}={field.values[code]}"] if code >= 0 else []
    value = float(field.values[row])
    return [] if math.isnan(value) else [f"{name}={figure(value)}"]


def effective_sample_size(weight: Floats) -> Finding:
    """How many draws of the candidate itself would tell as much (Kish, Survey Sampling, 1965, section 11.7).

    >>> effective_sample_size(np.array([1.0, 1.0])).verdict
    'do not use'
    """
    ess = effective_size(weight)
    verdict = at_least(ess, least=LEAST_ESS, enough=ENOUGH_ESS)
    text = f"Effective sample size {figure(ess)} of {len(weight):,} decisions."
    if verdict == "fine":
        return Finding("effective sample size", verdict, text, ess)
    more = more_decisions(len(weight), value=ess, enough=ENOUGH_ESS)
    return Finding("effective sample size", verdict, text, ess, f"{MORE_LIKE_IT}; or {more}.")


def largest_weight(overlap: Overlap) -> Finding:
    """The largest weight, and the largest possible one: the mean weight of 1 may rest on draws that did not come."""
    columns = overlap.columns
    row = int(overlap.weight.argmax())
    seen, possible = float(overlap.weight[row]), overlap.possible_weight
    text = f"The largest weight is {figure(seen)}"
    if math.isfinite(possible):
        text += f"; {figure(possible)} was possible"
    rare = math.isfinite(possible) and possible > MATERIAL * len(columns)
    if not rare:
        return Finding("largest weight", "fine", f"{text}.", seen)
    name = columns.actions[int(columns.action[row])]
    return Finding(
        "largest weight",
        "caution",
        f"{text}: one such draw moves the mean weight by {figure(possible / len(columns))}; the intervals include it.",
        seen,
        f"A minimum propensity of {figure(1 / USEFUL_WEIGHT)} times the candidate's probability, as for {name!r}.",
    )


def concentration(weight: Floats) -> Finding:
    """Share of the weight that the heaviest hundredth of the decisions have.

    >>> concentration(np.array([1.0, 3.0])).text
    'The heaviest 1 % of the decisions carry 75 % of the weight.'
    """
    share = top_share(weight)
    text = f"The heaviest 1 % of the decisions carry {percent(share)} of the weight."
    much = share > TOP_SHARE
    return Finding("top 1 %", caution_if(much), text, share, f"{MORE_LIKE_IT}." if much else "")
