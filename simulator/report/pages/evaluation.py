"""The page of `simulator evaluate --report`. Called by the command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from simulator.evaluate.answer import best_first, conclude
from simulator.evaluate.result import Conclusion, Diagnostics, Evaluation, PolicyResult
from simulator.report import checks, evaluation, slates
from simulator.report.evaluation import candidates, span, subject
from simulator.report.pages.glossary import explained
from simulator.report.pages.html import write_page
from simulator.report.plots.canvas import Plot
from simulator.report.plots.estimates import headlines
from simulator.report.plots.over_time import over_time
from simulator.report.plots.over_time import title as over_time_title
from simulator.report.plots.policy import of_policy


@dataclass(frozen=True, slots=True)
class Section:
    """One candidate as the page shows it. number: from 1, in the order of the evaluation."""

    number: int
    result: PolicyResult
    plots: tuple[Plot, ...]


def write_report(found: Evaluation, folder: Path) -> Path:
    """Write `index.html` and the plots into the folder; the page's path. Raises OSError."""
    sections = [
        Section(number, result, tuple(of_policy(result, found.log, number)))
        for number, result in enumerate(candidates(found), 1)
    ]
    overview = headlines(found.log, [section.result for section in sections]) if sections else None
    by_time = over_time(found.over_time, found.log) if found.over_time else None
    plots = [*(one for one in (overview, by_time) if one), *(plot for section in sections for plot in section.plots)]
    return write_page(
        folder,
        "evaluation.html.j2",
        plots,
        evaluation=found,
        title="What other policies would have earned",
        subject=subject(found.log),
        span=span(found.log),
        log=found.log,
        sections=sections,
        best_first=[section for one in best_first(candidates(found)) for section in sections if section.result is one],
        best_pages=best_first(found.slates.policies) if found.slates else [],
        overview=overview,
        by_time=by_time,
        by_time_title=over_time_title(found.over_time) if found.over_time else "",
        summary=summary(section.result for section in sections),
        glossary=explained(_words(found)),
        checks=checks,
        tables=evaluation,
        slates=slates,
        unexplained=unexplained,
    )


SUMMARY: Mapping[Conclusion, str] = {
    "more": "would have earned more",
    "not told apart": "cannot be told apart",
    "less": "would have earned less",
    "no comparison": "without a comparison",
    "not to be relied on": "with an estimate that should not be relied on",
    "refused": "not supported by this log",
}
"""Answers for a sentence that counts them."""


def summary(policies: Iterable[PolicyResult]) -> list[str]:
    """How many policies got which answer.

    >>> from simulator.evaluate.example import evaluation
    >>> summary(candidates(evaluation()))
    ['1 with an estimate that should not be relied on']
    """
    counted = Counter(map(conclude, policies))
    return [f"{counted[one]} {words}" for one, words in SUMMARY.items() if counted[one]]


def unexplained(diagnostics: Diagnostics) -> list[str]:
    """Reasons that no finding tells.

    >>> from simulator.evaluate.example import uniform
    >>> unexplained(uniform().diagnostics)
    []
    """
    told = {finding.text for finding in diagnostics.findings}
    return [reason for reason in diagnostics.reasons if reason not in told]


def _words(found: Evaluation) -> Iterator[str]:
    """Everything in the evaluation that the glossary may know."""
    for result in candidates(found):
        yield result.estimand
        for name, estimate in result.estimates.items():
            yield from (name, estimate.interval)
        if result.difference:
            yield result.difference.interval
        if result.curve:
            yield "confidence sequence"
    if found.slates:
        yield from [name for policy in found.slates.policies for name in policy.estimates]
    if found.importance:
        yield "importance"
