"""The page of `simulator evaluate --report`, and its plots as files beside it. Called by the command.

The page holds everything that it shows: it opens from a disk or an attachment, needs no script and loads nothing. Every
name in it comes from a log or a command line and is written as text.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from simulator import text
from simulator.evaluate.result import Diagnostics, Difference, Evaluation, PolicyResult
from simulator.evaluate.verdicts import by_severity
from simulator.report.canvas import Plot
from simulator.report.estimates import headline_first, headlines
from simulator.report.glossary import explained
from simulator.report.plots import of_policy

HERE = Path(__file__).parent
LOGGED = "logged"
TITLE = "What other policies would have earned"


class Answer(Enum):
    """What may be said of a policy against what it is compared with."""

    MORE = "would have earned more"
    LESS = "would have earned less"
    UNCLEAR = "cannot be told apart from it"
    ALONE = "without a comparison"
    UNRELIABLE = "with an estimate that should not be relied on"
    REFUSED = "that this log cannot judge"


@dataclass(frozen=True, slots=True)
class Section:
    """One candidate as the page shows it. number: from 1, in the order of the evaluation."""

    number: int
    result: PolicyResult
    plots: tuple[Plot, ...]

    @property
    def answer(self) -> Answer:
        """What may be said of it."""
        return answer(self.result)


def write_report(evaluation: Evaluation, folder: Path) -> Path:
    """Write `index.html` and the plots into the folder, which is made if need be; the page's path.

    Files of the same names are replaced, others stay. The same evaluation gives the same bytes. Raises OSError.

    >>> from simulator.evaluate.example import evaluation, scores, uniform
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     page = write_report(evaluation(), Path(folder))
    >>> page.name
    'index.html'
    """
    sections = [
        Section(number, result, tuple(of_policy(result, evaluation.log, number)))
        for number, result in enumerate(candidates(evaluation), 1)
    ]
    overview = headlines(evaluation.log, [section.result for section in sections]) if sections else None
    plots = [*([overview] if overview else []), *(plot for section in sections for plot in section.plots)]
    return write_page(folder, plots, rendered(evaluation, sections, overview))


def write_page(folder: Path, plots: Iterable[Plot], text: str) -> Path:
    """The page and its plots as files in the folder, which is made if need be; the page's path. Raises OSError.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_page(Path(folder), [], "text").name
    'index.html'
    """
    folder.mkdir(parents=True, exist_ok=True)
    for plot in plots:
        (folder / f"{plot.file}.png").write_bytes(plot.png)
    page = folder / "index.html"
    page.write_text(text, encoding="utf-8")
    return page


def rendered(evaluation: Evaluation, sections: list[Section], overview: Plot | None) -> str:
    """The page's text.

    >>> from simulator.evaluate.example import evaluation, scores, uniform
    >>> rendered(evaluation(), [], None).split("\\n")[0]
    '<!DOCTYPE html>'
    """
    return filled(
        "page.html.j2",
        evaluation=evaluation,
        title=TITLE,
        subject=evaluation.log.name,
        log=evaluation.log,
        sections=sections,
        overview=overview,
        summary=summary(section.result for section in sections),
        glossary=explained(_words(evaluation)),
        Answer=Answer,
    )


def candidates(evaluation: Evaluation) -> list[PolicyResult]:
    """The policies that are compared. What was logged is what they are compared with, and has the log's own row.

    >>> from simulator.evaluate.example import evaluation, scores, uniform
    >>> [result.name for result in candidates(evaluation())]
    ['uniform']
    """
    return [result for result in evaluation.policies if result.name != LOGGED]


def answer(result: PolicyResult) -> Answer:
    """What may be said of a candidate: nothing where the log cannot carry it, else what its interval shows.

    >>> from simulator.evaluate.example import evaluation, scores, uniform
    >>> answer(uniform()).value
    'with an estimate that should not be relied on'
    """
    if result.refused:
        return Answer.REFUSED
    if result.diagnostics.verdict == "do not use":
        return Answer.UNRELIABLE
    if result.difference is None:
        return Answer.ALONE
    return _compared(result.difference)


def _compared(difference: Difference) -> Answer:
    if difference.low > 0:
        return Answer.MORE
    return Answer.LESS if difference.high < 0 else Answer.UNCLEAR


def summary(policies: Iterable[PolicyResult]) -> list[str]:
    """How many policies got which answer.

    >>> from simulator.evaluate.example import evaluation, scores, uniform
    >>> len(summary(evaluation().policies))
    1
    """
    counted = Counter(map(answer, policies))
    return [f"{counted[one]} {one.value}" for one in Answer if counted[one]]


def unexplained(diagnostics: Diagnostics) -> list[str]:
    """Reasons that no finding tells.

    >>> from simulator.evaluate.example import evaluation, scores, uniform
    >>> unexplained(uniform().diagnostics)
    []
    """
    told = {finding.text for finding in diagnostics.findings}
    return [reason for reason in diagnostics.reasons if reason not in told]


def _words(evaluation: Evaluation) -> Iterator[str]:
    """Everything in the evaluation that the glossary may know."""
    for result in candidates(evaluation):
        yield result.estimand
        for name, estimate in result.estimates.items():
            yield from (name, estimate.interval)
        if result.difference:
            yield result.difference.interval
        if result.curve:
            yield "confidence sequence"
    if evaluation.importance:
        yield "importance"


def filled(template: str, **values: Any) -> str:
    """A page's text: one of the templates beside this file with these values in it. Called by every page.

    >>> filled("macros.html.j2").strip()  # macros alone put nothing on a page
    ''
    """
    return _environment().get_template(template).render(**values)


def _environment() -> Environment:
    """The templates of all reports, and how their figures are written."""
    made = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        finalize=_clean,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "figure": text.figure,
        "signed": text.signed,
        "between": text.between,
        "signed_between": text.signed_between,
        "count": text.count,
        "percent": text.percent,
        "duration": text.duration,
        "words": lambda name: name.replace("_", " "),
        "data_uri": lambda svg: f"data:image/svg+xml;base64,{b64encode(svg).decode()}",
        "by_severity": by_severity,
        "unexplained": unexplained,
        "headline_first": headline_first,
    }
    made.filters |= filters
    return made


def _clean(value: Any) -> Any:
    """Plain texts pass through here on their way into the page; `Markup` is the template's own."""
    return text.printable(value) if type(value) is str else value
