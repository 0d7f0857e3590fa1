"""An evaluation from end to end: columns + candidates -> `Evaluation`. Called by the commands.

Columns, without leaks --> log findings
   |
   +--> score (one pass, all candidates) --> diagnose --> refused, or estimates, difference, curve, segments
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from decider.estimate.confidence_sequence import confidence_sequence_path
from simulator.evaluate.answer import with_answers
from simulator.evaluate.breakdown import SegmentRows, action_shares, checkpoints, split_by_field, weight_histogram
from simulator.evaluate.candidates import Candidate, LoggedPolicies
from simulator.evaluate.checks.answer import Answer
from simulator.evaluate.checks.candidate import diagnose
from simulator.evaluate.checks.leaks import set_leaks_aside
from simulator.evaluate.checks.log import log_findings
from simulator.evaluate.control_group import HOLDOUT, holdout_mean, with_control_group
from simulator.evaluate.estimates import Estimator, mean_reward
from simulator.evaluate.over_time import split_by_time
from simulator.evaluate.result import Curve, Estimate, Evaluation, Finding, LogSummary, PolicyResult, Segment
from simulator.evaluate.reward_bounds import possible_rewards
from simulator.evaluate.scores import Scores, score
from simulator.evaluate.slates import evaluate_pages
from simulator.evaluate.verdicts import worst_verdict
from simulator.logs.columns import Columns, Longs

WORKERS = 2
"""Threads that compute intervals: NumPy releases the interpreter lock."""

LEVEL = 0.95
"""Of the differences in all segments of a policy at once."""

PASS = 0.5
"""Share of the progress bar for the pass over the log; the rest is for the intervals."""


def evaluate(
    columns: Columns,
    candidates: Sequence[Candidate],
    *,
    force: bool = False,
    breakdown: bool = True,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Evaluation:
    """Estimates of what each candidate would have earned. `on_progress` gets the fraction that is done.

    force: estimates even where a verdict is "do not use". breakdown: also the log over its time, the cumulative
    estimate and the segments, which take longer than all the rest.

    >>> from simulator.logs.example import example
    >>> from simulator.evaluate.candidates import UniformPolicy
    >>> evaluate(example(), [UniformPolicy()]).policies[0].refused  # two decisions carry nothing
    True
    """
    started = time.perf_counter()
    columns = set_leaks_aside(columns)
    findings = log_findings(columns)
    share = PASS / max(1, len(columns))
    scores = score(columns, candidates, on_rows=lambda done: on_progress(share * done))
    pairs = list(zip(candidates, scores, strict=True))
    with ThreadPoolExecutor(WORKERS) as pool:
        results = []
        for result in pool.map(lambda pair: _evaluate(*pair, findings=findings, force=force), pairs):
            results.append(result)
            on_progress(PASS + (1 - PASS) * len(results) / len(pairs))
        if breakdown:
            segments = _Segments()
            segments.of(columns)  # before the threads, so that it is computed once
            results = list(pool.map(lambda result, one: _add_breakdown(result, one, segments), results, scores))
    return with_answers(
        Evaluation(
            log=summarize_log(columns, findings),
            policies=tuple(results),
            over_time=split_by_time(columns) if breakdown else None,
            slates=evaluate_pages(columns, candidates, scores, findings=findings, force=force),
            seconds=time.perf_counter() - started,
        )
    )


def summarize_log(columns: Columns, findings: Sequence[Finding]) -> LogSummary:
    """The log alone: what `simulator inspect` shows, and the head of an evaluation."""
    mean = mean_reward(columns.reward, columns.units, possible_rewards(columns))
    return LogSummary(
        name=columns.name,
        decisions=len(columns),
        units=len(columns.units.size),
        actions=len(columns.actions),
        mean_reward=mean.value,
        mean_reward_low=mean.low,
        mean_reward_high=mean.high,
        reward_range=columns.reward_range,
        hours=float(columns.time.max() - columns.time.min()) / 3.6e9 if len(columns) else 0.0,
        left_out=dict(columns.left_out),
        verdict=worst_verdict(findings),
        findings=tuple(findings),
        experiment=columns.experiment,
        first_decision=_moment(columns.time, np.min),
        last_decision=_moment(columns.time, np.max),
        holdout=holdout_mean(columns, mean),
    )


def _moment(time: Longs, which: Callable[[Longs], Any]) -> str:
    """ISO 8601 in UTC, to the second; empty where the log has no times."""
    if not time.any():
        return ""
    return str(np.datetime_as_string(np.datetime64(int(which(time)), "us"), unit="s")) + "Z"


def _evaluate(candidate: Candidate, scores: Scores, *, findings: tuple[Finding, ...], force: bool) -> PolicyResult:
    """The result of one candidate, with what the control group says of it."""
    result = evaluate_candidate(candidate, scores, findings=findings, force=force)
    return with_control_group(result, candidate, Estimator(scores), findings)


def evaluate_candidate(
    candidate: Candidate, scores: Scores, *, findings: tuple[Finding, ...], force: bool
) -> PolicyResult:
    """One candidate on the policy's decisions, without curve and segments. findings: of the log. `compare` calls it,
    too: its differences are on the same decisions, so the control group has no part in them.
    """
    estimator = Estimator(scores)
    diagnostics = diagnose(scores, log=findings, answer=_answer(estimator))
    refused = diagnostics.verdict == "do not use" and not force and not isinstance(candidate, LoggedPolicies)
    result = PolicyResult(
        name=candidate.name,
        estimand=candidate.estimand,
        decisions=len(scores.columns),
        refused=refused or not len(scores.columns),
        headline=estimator.headline,
        diagnostics=diagnostics,
        estimates={},
        difference=None,
        weights=weight_histogram(scores.weight),
        actions=action_shares(scores),
    )
    if result.refused:
        return result
    if isinstance(candidate, LoggedPolicies):
        return replace(result, **_logged_mean(scores.columns, estimator.answer))
    result = replace(result, estimates=estimator.estimates())
    if not scores.columns.has_propensities:
        return result
    return replace(result, difference=estimator.difference())


def _answer(estimator: Estimator) -> Answer | None:
    if estimator.answer is None:
        return None
    return Answer(estimator.answer, estimator.terms.terms, estimator.value_range)


def _logged_mean(columns: Columns, answer: Estimate | None) -> dict[str, Any]:
    """The log's own mean: IPS with all weights 1, or a plain mean without propensities."""
    if answer is not None:
        return {"headline": "ips", "estimates": {"ips": answer}}
    return {
        "headline": "mean",
        "estimates": {"mean": mean_reward(columns.reward, columns.units, possible_rewards(columns))},
    }


def _add_breakdown(result: PolicyResult, scores: Scores, segments: _Segments) -> PolicyResult:
    """With its cumulative estimate and its segments, unless it was refused or has no weights.

    Where the control group has a part in the headline there is no curve: it would end at another value.
    """
    if result.refused or not scores.columns.has_propensities or result.headline == HOLDOUT:
        return result
    estimator = Estimator(scores)
    curve = cumulative_estimate(estimator) if result.headline == estimator.headline else None
    return replace(result, curve=curve, segments=segments.estimates(estimator))


def cumulative_estimate(estimator: Estimator) -> Curve:
    """The cumulative headline estimate, with its confidence sequence."""
    samples = estimator.samples(estimator.terms)
    counts = checkpoints(len(samples.own.total))
    lowest = confidence_sequence_path(samples.lowest, counts, value_range=estimator.value_range)
    highest = lowest
    if samples.highest is not samples.lowest:
        highest = confidence_sequence_path(samples.highest, counts, value_range=estimator.value_range)
    last = np.array(counts, np.int64) - 1
    done = np.cumsum(samples.own.size)[last]
    return Curve(
        decisions=tuple(done.astype(int).tolist()),
        value=tuple((np.cumsum(samples.own.total)[last] / done).tolist()),
        low=tuple([one.low for one in lowest]),
        high=tuple([one.high for one in highest]),
        estimator=estimator.headline,
    )


class _Segments:
    """The segments of a log with the mean reward logged there, computed once for all candidates with these columns."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Columns, list[tuple[SegmentRows, Estimate]]]] = {}

    def of(self, columns: Columns) -> list[tuple[SegmentRows, Estimate]]:
        """Computed at the first call for these columns."""
        if id(columns) not in self._known:  # the columns are kept as well: an id may be used again
            self._known[id(columns)] = (
                columns,
                [
                    (part, mean_reward(columns.reward[part.rows], part.units, possible_rewards(columns)))
                    for part in split_by_field(columns)
                ],
            )
        return self._known[id(columns)][1]

    def estimates(self, estimator: Estimator) -> tuple[Segment, ...]:
        """A candidate's estimate in each, and its differences to what was logged there, which hold all at once."""
        parts = [
            (part, logged, *estimator.estimate_segment(part.rows, part.units))
            for part, logged in self.of(estimator.columns)
        ]
        judged = sum(estimate is not None for *_, estimate in parts)
        level = 1 - (1 - LEVEL) / max(1, judged)  # Bonferroni
        return tuple(
            Segment(
                part.field,
                part.value,
                len(part.rows),
                ess,
                logged,
                estimate,
                estimator.segment_difference(part.rows, part.units, level=level) if estimate else None,
            )
            for part, logged, ess, estimate in parts
        )
