"""Plots of estimates with their intervals: of all candidates, of one by every estimator, and by segment.

Called by `plots`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter

from decider.text import between, count, figure, printable, rough, signed
from simulator.evaluate.result import Estimate, LogSummary, PolicyResult, Segment
from simulator.report.evaluation import HOLDOUT, TOO_FEW, heading, headline_first
from simulator.report.plots.canvas import Plot, finished, house_style
from simulator.report.plots.forest import AS_LOGGED, NOT_UNBIASED, PLAIN, Mark, Row, forest

UNIT = "reward per decision, with 95 % interval"
MOST_SEGMENTS, MOST_OF_A_FIELD, FEWEST_OF_A_FIELD = 40, 10, 3
MOST_LABELS = 8
"""Rows that a plot's alternative text tells; the rest stands in the page's tables."""


@house_style
def headlines(log: LogSummary, policies: Iterable[PolicyResult]) -> Plot:
    """Every candidate's headline estimate against the mean of the log."""
    logged = _logged(log)
    control = [Row(HOLDOUT, _as_logged(log.holdout.estimate))] if log.holdout else []
    rows = [Row("logged", logged), *control, *map(_headline, policies)]
    drawing = forest(
        rows,
        title="What each policy would have earned",
        subtitle=heading(log),
        unit=UNIT,
        line=logged,
        key={},
    )
    return finished(
        drawing,
        file="estimates",
        caption="The headline estimate of every policy. Grey: what the log earned, with its interval. "
        "Where an interval reaches into the grey, look at the difference before concluding anything.",
        alt="Estimates with 95 % intervals. " + _labels(rows),
    )


@house_style
def estimators(result: PolicyResult, log: LogSummary, stem: str) -> Plot:
    """One candidate by every estimator."""
    logged = _logged(log)
    rows = [Row("logged", logged), *(Row(name, _mark(one)) for name, one in headline_first(result))]
    biased = not all(one.unbiased for one in result.estimates.values())
    drawing = forest(
        rows,
        title="The same question, by every estimator",
        subtitle=result.name,
        unit=UNIT,
        line=logged,
        key={"unbiased on paper": PLAIN, "biased": NOT_UNBIASED} if biased else {},
    )
    return finished(
        drawing,
        file=f"{stem}-estimators",
        caption="Estimators that agree make the answer stronger. Hollow and dashed: biased even on a perfect log, "
        "for the reason in the table."
        if biased
        else "Estimators that agree make the answer stronger.",
        alt=f"Estimates of {printable(result.name)} by estimator, with 95 % intervals. " + _labels(rows),
    )


@house_style
def segments(found: Sequence[Segment], name: str, stem: str) -> Plot:
    """The difference to what was logged in each value of each field of the context."""
    shown = shown_segments(found)
    rows: list[Row] = []
    for field, members in groupby(shown, attrgetter("field")):
        rows += [Row(field), *map(_segment, members)]
    drawing = forest(
        rows,
        title="Who would have earned more, and who less",
        subtitle=name,
        unit="difference to what was logged there",
        line=Mark(AS_LOGGED, 0.0, math.nan, math.nan),
        key={},
        written=_difference,
    )
    left_out = len(found) - len(shown)
    return finished(
        drawing,
        file=f"{stem}-segments",
        caption="By field of the context, the largest segments first. The 95 % intervals hold for all segments at "
        "once: one that leaves out 0 is a real difference."
        + (f" {count(left_out)} smaller segments are only in the table." if left_out else ""),
        alt=f"Differences of {printable(name)} to what was logged, by segment, with simultaneous 95 % intervals. "
        + _labels((row for row in rows if not row.is_heading), _difference),
    )


def shown_segments(segments: Sequence[Segment]) -> list[Segment]:
    """The largest of each field, fewer of each where there are many fields; the fields stay in their order.

    >>> def one(field, value, n): return Segment(field, value, n, 1.0, Estimate(0, 0, 0, ""), None)
    >>> [s.value for s in shown_segments([one("device", "tablet", 5), one("device", "phone", 70)])]
    ['phone', 'tablet']
    """
    fields = dict.fromkeys(one.field for one in segments)
    most = min(MOST_OF_A_FIELD, max(FEWEST_OF_A_FIELD, MOST_SEGMENTS // max(1, len(fields))))
    largest = sorted(segments, key=lambda one: -one.decisions)
    return [one for name in fields for one in [s for s in largest if s.field == name][:most]]


def _logged(log: LogSummary) -> Mark:
    return Mark(AS_LOGGED, log.mean_reward, log.mean_reward_low, log.mean_reward_high)


def _as_logged(one: Estimate) -> Mark:
    return Mark(AS_LOGGED, one.value, one.low, one.high)


def _mark(estimate: Estimate) -> Mark:
    look = PLAIN if estimate.unbiased else NOT_UNBIASED
    return Mark(look, estimate.value, estimate.low, estimate.high)


def _headline(result: PolicyResult) -> Row:
    if result.refused:
        return Row(result.name, note="refused: the log cannot answer this")
    estimate = result.estimates.get(result.headline)
    return Row(result.name, _mark(estimate)) if estimate else Row(result.name, note="no estimate")


def _segment(one: Segment) -> Row:
    return Row(one.value, _mark(one.difference)) if one.difference else Row(one.value, note=TOO_FEW)


def _difference(x: float) -> str:
    return rough(x, digits=3, written=signed)


def _labels(rows: Iterable[Row], written: Callable[[float], str] = figure) -> str:
    """What a reader who sees nothing needs."""
    labels = [f"{printable(row.label)}: {_caption(row, written)}" for row in rows]
    more = len(labels) - MOST_LABELS
    return "; ".join(labels[:MOST_LABELS]) + (f"; and {more} more." if more > 0 else ".")


def _caption(row: Row, written: Callable[[float], str]) -> str:
    if not row.mark:
        return row.note
    return f"{written(row.mark.value)} ({between(row.mark.low, row.mark.high, written=written)})"
