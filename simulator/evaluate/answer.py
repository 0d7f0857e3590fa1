"""A result -> three sentences that a growth team understands: how much, how sure, what to do. Called by `run.py`.

The terminal and the page show them first, and the JSON has them: all are made here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from decider.text import (
    between,
    count,
    figure,
    more_decisions,
    rough,
    signed,
    signed_percent,
)
from simulator.evaluate.result import (
    Answer,
    Conclusion,
    Difference,
    Estimate,
    Evaluation,
    Finding,
    LogSummary,
    PageResults,
    PolicyResult,
)
from simulator.evaluate.verdicts import MATERIAL, by_severity

LOGGED = "logged"
"""The name of the policies that made the log."""

BEST_FIRST: tuple[Conclusion, ...] = (
    "more",
    "not told apart",
    "less",
    "no comparison",
    "not to be relied on",
    "refused",
)
"""In which order policies are shown."""

WEEK = 168.0
DAY = 24.0
"""Hours that a log spans at least when its traffic is told by the week: less says nothing of other days."""

FEW = 1000
"""Decisions that a difference is told for where the log is shorter, or has no times."""

WIDEST = 10.0
"""An interval so many times as wide as what it should tell would need a hundred times the log: that is no advice."""

MORE_LIKE_IT = "Log decisions of a policy that is more like this one, or that explores more"


def with_answers(found: Evaluation) -> Evaluation:
    """Every policy with its answer, but for what was logged, with which the others are compared.

    >>> from simulator.evaluate.example import evaluation
    >>> [one.answer and one.answer.conclusion for one in with_answers(evaluation()).policies]
    [None, 'not to be relied on']
    """
    answered = [one if one.name == LOGGED else replace(one, answer=answer(one, found.log)) for one in found.policies]
    return replace(found, policies=tuple(answered), slates=found.slates and _with_page_answers(found.slates, found.log))


def _with_page_answers(slates: PageResults, log: LogSummary) -> PageResults:
    """As if each page were one decision."""
    mean = slates.mean_reward
    pages = replace(
        log,
        decisions=slates.pages,
        mean_reward=mean.value,
        mean_reward_low=mean.low,
        mean_reward_high=mean.high,
        reward_range=slates.reward_range,
    )
    return replace(
        slates, policies=tuple([replace(one, answer=_said_of_pages(answer(one, pages))) for one in slates.policies])
    )


def _said_of_pages(said: Answer) -> Answer:
    return replace(said, effect=of_pages(said.effect), certainty=of_pages(said.certainty), advice=of_pages(said.advice))


def of_pages(text: str) -> str:
    """What is said of decisions, said of pages.

    >>> of_pages("One decision carries 75 % of the spread; log 3 times as many decisions.")
    'One page carries 75 % of the spread; log 3 times as many pages.'
    """
    return text.replace("decision", "page")


def answer(result: PolicyResult, log: LogSummary) -> Answer:
    """The three sentences about one policy."""
    conclusion = conclude(result)
    if conclusion in ("refused", "not to be relied on"):
        return _no_answer(result, conclusion)
    if result.difference is None:
        return _alone(result)
    found = _possible(result.difference, log)
    if conclusion == "not told apart":
        return _not_told_apart(found, log, _cautions(result, log))
    end, side = ("low", "better") if conclusion == "more" else ("high", "worse")
    return Answer(
        conclusion,
        _effect(result, found, log),
        f"Sure: even the {end} end of the 95 % interval is {side} than what was logged.{_cautions(result, log)}",
        "Try it live with a share of the traffic." if conclusion == "more" else "Keep what you have.",
    )


def conclude(result: PolicyResult) -> Conclusion:
    """What may be said of a policy: nothing where the log cannot carry it, else what its interval shows.

    >>> from simulator.evaluate.example import uniform
    >>> conclude(uniform())
    'not to be relied on'
    """
    if result.refused:
        return "refused"
    if result.diagnostics.verdict == "do not use":
        return "not to be relied on"
    if result.difference is None:
        return "no comparison"
    if result.difference.low > 0:
        return "more"
    return "less" if result.difference.high < 0 else "not told apart"


def best_first(policies: Iterable[PolicyResult]) -> list[PolicyResult]:
    """Those that earn more, then those of which it is not known, then the others; the largest difference first."""
    return sorted(policies, key=lambda one: (BEST_FIRST.index(conclude(one)), -_estimated_difference(one)))


def _estimated_difference(result: PolicyResult) -> float:
    found = result.difference
    return found.value if found and not math.isnan(found.value) else -math.inf


def log_answer(log: LogSummary) -> str:
    """Whether a log can be used and what to do first, in two or three sentences."""
    if log.verdict == "fine" or not log.findings:
        return "This log can be used. Nothing has to be done first."
    worst = by_severity(log.findings)[0]
    to_do = f"To do first ({worst.name.replace('_', ' ')}): {worst.needed or worst.text}"
    if log.verdict == "caution":
        return f"This log can be used. {to_do}"
    return f"Do not use this log: its answers would be wrong. {worst.text} {to_do}"


def _no_answer(result: PolicyResult, conclusion: Conclusion) -> Answer:
    """Why, by the worst finding, and the first way out."""
    findings = by_severity(result.diagnostics.findings)
    why = next(iter(result.diagnostics.reasons), "nothing could be computed.")
    effect = "This log cannot tell what it would have earned."
    if conclusion == "not to be relied on":
        effect = "This log cannot tell what it would have earned: do not rely on the figures."
    needed = _first_needed(findings)
    return Answer(conclusion, effect, f"Why: {why}", needed or f"{MORE_LIKE_IT}.")


def _first_needed(findings: Iterable[Finding]) -> str:
    return next((one.needed for one in findings if one.verdict != "fine" and one.needed), "")


def _alone(result: PolicyResult) -> Answer:
    found = result.estimates.get(result.headline)
    figures = f": {figure(_inside(found))} ({between(found.low, found.high)}) reward a decision" if found else ""
    return Answer(
        "no comparison",
        f"There is no comparison with what was logged{figures}.",
        "Not sure: the log gives no difference.",
        f"{MORE_LIKE_IT}.",
    )


def _not_told_apart(found: Difference, log: LogSummary, cautions: str) -> Answer:
    if not _is_known(found):
        return Answer(
            "not told apart",
            "This log cannot tell whether it is better or worse.",
            "Not sure: there is no interval.",
            f"{MORE_LIKE_IT}.",
        )
    if found.low == found.high == 0:
        return Answer(
            "not told apart",
            "It would do the same as what was logged.",
            "Sure: it has the same probabilities.",
            "Keep what you have.",
        )
    most = max(-found.low, found.high)
    if most <= MATERIAL * abs(log.mean_reward):
        return Answer(
            "not told apart",
            f"About the same as what was logged: {_range(found, log)}.",
            f"Sure: the 95 % interval is within {signed_percent(MATERIAL)[1:]} of what was logged.{cautions}",
            "Keep what you have: a change would earn nothing worth the work.",
        )
    return Answer(
        "not told apart",
        f"This log cannot tell whether it is better or worse: {_range(found, log)}.",
        f"Not sure: the 95 % interval goes from worse to better. The best guess is {_best_guess(found, log)}.",
        f"{_more_evidence(found, log)}. Until then keep what you have.",
    )


def _possible(found: Difference, log: LogSummary) -> Difference:
    """Cut where no policy could be: nobody loses more than everything. The table's interval knows less of the log.

    The estimate, too: weights alone can say -601 % where -600 % is everything.
    """
    least, most = (end - log.mean_reward for end in log.reward_range)
    cut = replace(found, low=max(found.low, least), high=min(found.high, most))
    return replace(cut, value=_inside(cut))


def _inside(found: Difference | Estimate) -> float:
    """The value, or the end of its interval that is nearest; nan stays nan."""
    return min(max(found.value, found.low), found.high)


def _is_known(found: Difference) -> bool:
    return all(map(math.isfinite, (found.value, found.low, found.high)))


def _more_evidence(found: Difference, log: LogSummary) -> str:
    """How many decisions tell a difference as large as the estimated one, in most cases.

    An interval shrinks with their root; twice as many as make it reach 0 find the difference in 8 of 10 logs.
    """
    half = (found.high - found.low) / 2
    wanted = max(abs(found.value), MATERIAL * abs(log.mean_reward))
    if not wanted or half > WIDEST * wanted:
        return MORE_LIKE_IT
    more = more_decisions(log.decisions, value=min(1.0, wanted / half) ** 2 / 2, enough=1.0)
    return f"Log {more}, or try it live with a small share of the traffic"


def _effect(result: PolicyResult, found: Difference, log: LogSummary) -> str:
    """In per cent and by the week, with both intervals, and by the decision."""
    scale, period = _traffic(log)
    value = scale * found.value
    low, high = _signed(scale * found.low), _signed(scale * found.high)
    amount = f"about {rough(abs(value))} {'more' if value > 0 else 'less'} reward {period} ({low} to {high})"
    own = result.estimates.get(result.headline)
    reward = (
        f" A decision: {rough(_inside(own), digits=3)} instead of {rough(log.mean_reward, digits=3)}." if own else ""
    )
    if not _has_percent(log):
        return f"{amount[0].upper()}{amount[1:]}.{reward}"
    return (
        f"{_percent(found.value, log)} ({_percent(found.low, log)} to {_percent(found.high, log)}): {amount}.{reward}"
    )


def _range(found: Difference, log: LogSummary) -> str:
    scale, period = _traffic(log)
    amount = f"{_signed(scale * found.low)} to {_signed(scale * found.high)} reward {period}"
    if not _has_percent(log):
        return amount
    return f"{_percent(found.low, log)} to {_percent(found.high, log)}, or {amount}"


def _best_guess(found: Difference, log: LogSummary) -> str:
    if _has_percent(log):
        return _percent(found.value, log)
    scale, period = _traffic(log)
    return f"{_signed(scale * found.value)} reward {period}"


def _traffic(log: LogSummary) -> tuple[float, str]:
    """Decisions for which a difference is told, and these in words."""
    if log.hours >= DAY:
        return log.decisions * WEEK / log.hours, "a week"
    return float(FEW), f"in {count(FEW)} decisions"


def _has_percent(log: LogSummary) -> bool:
    """Whether a part of what was logged means something: not if that may be nothing, or less."""
    return log.mean_reward_low > 0


def _percent(difference: float, log: LogSummary) -> str:
    return signed_percent(difference / log.mean_reward)


def _cautions(result: PolicyResult, log: LogSummary) -> str:
    """Of the log and of the policy: an interval knows nothing of rows that are missing or of versions that differ."""
    found = (*log.findings, *result.diagnostics.findings)
    names = dict.fromkeys(one.name.replace("_", " ") for one in found if one.verdict == "caution")
    return f" Caution: {', '.join(names)}." if names else ""


def _signed(x: float) -> str:
    return rough(x, written=signed)
