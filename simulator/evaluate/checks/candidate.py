"""Whether a log can say what a candidate would have earned. Called by the evaluation, before any estimate.

The questions, in order: could the log draw what the candidate would (support)? Is the mean weight 1 (are the
propensities those of this log, and was enough of it drawn)? How large are the effective sample sizes, of all decisions
and of the rewarded ones? Does one decision carry everything?
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from decider.estimate.weights import effective_size, largest_share, mean_weight, top_share, usual_value
from simulator.evaluate.result import Diagnostics, Finding
from simulator.evaluate.verdicts import (
    DOMINATES,
    ENOUGH_ESS,
    ENOUGH_SUCCESSES,
    LEAST_ESS,
    LEAST_SUCCESSES,
    MATERIAL,
    NEGLIGIBLE,
    TOP_SHARE,
    USEFUL_WEIGHT,
    Z_ALARM,
    alarm,
    at_least,
    caution_if,
    reasons,
    worst_verdict,
)
from simulator.logs.columns import Category, Columns, Field
from simulator.text import figure, more_decisions, percent

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]

_MORE_LIKE_IT = "A log of a policy that is more like the candidate, or that explores more"


class Overlap(Protocol):
    """A candidate's probabilities beside a log's; `Scores` is one. Arrays are (n,) unless said otherwise."""

    @property
    def columns(self) -> Columns:
        """The decisions that the candidate is judged on."""

    @property
    def weight(self) -> Floats:
        """Its probability of the drawn action / propensity; nan where there is no propensity."""

    @property
    def missing(self) -> Floats:
        """Its probability of actions that the log could not draw; 0 where the log cannot say."""

    @property
    def missing_by_action(self) -> Floats:
        """(actions,): the same by action, means."""

    @property
    def example(self) -> Longs:
        """(actions,): a row of `columns` where the action is missing; -1 for none."""

    @property
    def possible_weight(self) -> float:
        """The largest weight that any action could have had."""


def diagnose(overlap: Overlap, *, log: tuple[Finding, ...] = ()) -> Diagnostics:
    """Everything about one candidate. log: findings of the log; what forbids weighting there forbids it here, too."""
    columns, weight = overlap.columns, overlap.weight
    reward = columns.reward
    findings = (*[one for one in log if one.verdict == "do not use"], *candidate_findings(overlap))
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


def candidate_findings(overlap: Overlap) -> tuple[Finding, ...]:
    """The findings of `diagnose` that are about the candidate."""
    columns, weight = overlap.columns, overlap.weight
    if not len(weight):
        return (Finding("weights", "do not use", "There are no decisions.", 0.0, "A log with decisions."),)
    if np.isnan(weight).any():
        text = "Decisions without propensity have no weight: only the direct method can say anything."
        return (Finding("weights", "do not use", text, None, "Propensities in the log."),)
    usual = usual_value(columns.reward)
    return (
        support(overlap),
        mean_of_weights(overlap),
        effective_sample_size(weight),
        effective_successes(weight, columns.reward, usual),
        largest_contribution(weight * (columns.reward - usual)),
        largest_weight(overlap),
        concentration(weight),
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
        "do not use" if mass > MATERIAL else "caution",
        f"In {count:,} of {decisions:,} decisions the candidate would draw actions that the log could not, "
        f"{percent(mass)} of all its draws{_most_missed(overlap)}. What they would earn is unknown: an estimate can be "
        f"off by {percent(mass)} of the range of rewards.",
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


def mean_of_weights(overlap: Overlap) -> Finding:
    """The mean weight should be 1, less what the log could not draw."""
    expected = 1.0 - float(overlap.missing.mean())
    mean = float(overlap.weight.mean())
    if abs(mean - expected) <= MATERIAL:
        return Finding("mean weight", "fine", f"The mean weight is {figure(mean)}; {figure(expected)} is right.", mean)
    z = mean_weight(overlap.weight, overlap.columns.unit).z(expected)
    verdict = alarm(significant=abs(z) > Z_ALARM, material=True)
    text = f"The mean weight is {figure(mean)} where {figure(expected)} is right (z = {figure(z)})"
    if verdict == "fine":
        return Finding(
            "mean weight",
            "caution",
            f"{text}: chance can explain it.",
            mean,
            "A longer log: with more decisions the mean comes near to 1 if the propensities are right.",
        )
    if mean > expected:
        text += ": actions were drawn more often than their propensities say."
        return Finding("mean weight", verdict, text, mean, "The probabilities with which the actions were drawn.")
    text += ": what the candidate prefers was hardly drawn, or the logged propensities are too large."
    return Finding("mean weight", verdict, text, mean, f"{_MORE_LIKE_IT}.")


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
    return Finding("effective sample size", verdict, text, ess, f"{_MORE_LIKE_IT}; or {more}.")


def effective_successes(weight: Floats, reward: Floats, usual: float) -> Finding:
    """The effective sample size of the decisions whose reward is not the usual one.

    >>> effective_successes(np.array([3.0, 1.0, 1.0]), np.array([0.0, 1.0, 1.0]), usual=0.0).value
    2.0
    """
    rewarded = weight[reward != usual]
    count, size = len(rewarded), effective_size(rewarded)
    verdict = at_least(size, least=LEAST_SUCCESSES, enough=ENOUGH_SUCCESSES)
    text = f"{count:,} decisions have a reward other than {figure(usual)}; their effective number is {figure(size)}."
    if verdict == "fine":
        return Finding("effective successes", verdict, text, size)
    more = more_decisions(len(weight), value=size, enough=ENOUGH_SUCCESSES)
    return Finding("effective successes", verdict, text, size, f"A log with more rewards: {more}.")


def largest_contribution(contributions: Floats) -> Finding:
    """Share of the largest contribution in all. contributions: weight x (reward - the usual one).

    >>> largest_contribution(np.array([5.0, 1.0])).text
    'One decision carries 83.3 % of the weighted rewards: without it the result is another.'
    """
    share = largest_share(contributions)
    text = f"One decision carries {percent(share)} of the weighted rewards."
    more = "More decisions, or a cap on the reward that one decision can have."
    if share > DOMINATES:
        return Finding(
            "largest contribution", "do not use", text[:-1] + ": without it the result is another.", share, more
        )
    much = share > DOMINATES / 5
    return Finding("largest contribution", caution_if(much), text, share, more if much else "")


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
    return Finding("top 1 %", caution_if(much), text, share, f"{_MORE_LIKE_IT}." if much else "")
