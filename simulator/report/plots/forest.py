"""A plot of rows, each a name with one or two values and their intervals, around a line to compare with.

Called by `plots` for headlines, estimators and segments. What is not a number is not drawn; an interval that is much
wider than most is cut with an arrow, so that the others stay readable, or written down where both ends would be cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from decider.text import between, cells, figure, shortened
from simulator.report.plots.canvas import BIASED, CANDIDATE, GRID, INK, KEY, LOGGED, MUTED, count_along, explain, frame

ROW, HEADING = 0.28, 0.32
LABEL_WIDTH, CELL = 22, 0.078
"""Columns that a label may take, and the inches of one."""
VALUES = 0.8
"""Inches for the values in words, at the right."""
LARGEST = 1e100
REACH = 2.5
"""How many median half-widths beyond the values an interval is drawn."""


@dataclass(frozen=True, slots=True)
class Look:
    """Told apart by shape as well as by colour."""

    colour: str
    filled: bool = True
    dashed: bool = False


PLAIN, AS_LOGGED, NOT_UNBIASED = Look(CANDIDATE), Look(LOGGED, filled=False), Look(BIASED, filled=False, dashed=True)


@dataclass(frozen=True, slots=True)
class Mark:
    """A value and its interval, any of them perhaps nan or infinite."""

    look: Look
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """A name and what was found for it. note: what to say where there is nothing to draw. Without both: a heading."""

    label: str
    mark: Mark | None = None
    note: str = ""

    @property
    def is_heading(self) -> bool:
        """Whether it only opens a group of rows."""
        return not self.mark and not self.note


def forest(
    rows: Sequence[Row],
    *,
    title: str,
    subtitle: str,
    unit: str,
    line: Mark | None,
    key: Mapping[str, Look],
    written: Callable[[float], str] = figure,
) -> Figure:
    """The drawing. line: a value that every row is compared with. key: what the looks mean; may be empty.

    written: a value in words.
    """
    left = 0.2 + CELL * max(cells(shortened(row.label, LABEL_WIDTH)) for row in rows)
    height = sum(map(_height, rows))
    drawing, axes = frame(title, subtitle, height=height, left=left, right=VALUES, above=KEY if key else 0.0)
    marks = [row.mark for row in rows if row.mark]
    low, high = window([*marks, line] if line else marks)
    axes.set_xlim(low, high)
    axes.set_ylim(height, 0)
    axes.set_yticks([])
    axes.set_xlabel(unit)
    count_along(axes.xaxis, FuncFormatter(lambda x, _: written(x)))
    if line:
        _compare_with(axes, line)
    y = 0.0
    for row in rows:
        _draw_row(axes, row, top=y, written=written)
        y += _height(row)
    if key:
        explain(axes, {meaning: Line2D([], [], **_dot(look)) for meaning, look in key.items()})
    return drawing


def window(marks: Iterable[Mark]) -> tuple[float, float]:
    """From where to where to draw: all values, and of their intervals what is not far out.

    >>> usual = Mark(PLAIN, 2.0, 1.0, 3.0)
    >>> [round(x, 2) for x in window([usual, usual, Mark(PLAIN, 2.0, -100.0, math.inf)])]
    [-0.75, 4.75]
    >>> [round(x, 2) for x in window([usual])]
    [0.9, 3.1]
    >>> window([Mark(PLAIN, math.nan, math.nan, math.nan)])
    (0.0, 1.0)
    """
    drawn = [mark for mark in marks if can_be_drawn(mark.value)]
    if not drawn:
        return 0.0, 1.0
    lowest, highest = min(mark.value for mark in drawn), max(mark.value for mark in drawn)
    halves = [abs(mark.high - mark.low) / 2 for mark in drawn if can_be_drawn(mark.high - mark.low)]
    reach = REACH * median(halves) if halves else (highest - lowest or abs(highest)) / 2
    bounds = [bound for mark in drawn for bound in (mark.low, mark.value, mark.high) if not math.isnan(bound)]
    low, high = max(lowest - reach, min(bounds)), min(highest + reach, max(bounds))
    margin = (high - low) / 20 or abs(high) / 20 or 0.5
    return low - margin, high + margin


def can_be_drawn(x: float) -> bool:
    """Whether a number has a place on an axis.

    >>> can_be_drawn(123.0), can_be_drawn(float("nan")), can_be_drawn(-1e300)
    (True, False, False)
    """
    return abs(x) < LARGEST


def _height(row: Row) -> float:
    return HEADING if row.is_heading else ROW


def _compare_with(axes: Axes, line: Mark) -> None:
    if can_be_drawn(line.value):
        axes.axvline(line.value, color=line.look.colour, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    if can_be_drawn(line.high - line.low):
        axes.axvspan(line.low, line.high, color=GRID, alpha=0.6, linewidth=0, zorder=0)


def _draw_row(axes: Axes, row: Row, *, top: float, written: Callable[[float], str]) -> None:
    middle = top + _height(row) / 2
    place = axes.get_yaxis_transform()
    weight = "bold" if row.is_heading else "normal"
    axes.text(
        -0.035, middle, shortened(row.label, LABEL_WIDTH), transform=place, ha="right", va="center", weight=weight
    )
    if row.note:
        _write_instead(axes, row.note, middle)
    if row.mark:
        _draw_mark(axes, row.mark, middle, written)
        axes.text(1.04, middle, written(row.mark.value), transform=place, va="center", size=8.5, color=INK)


def _write_instead(axes: Axes, text: str, y: float) -> None:
    """Where there is nothing to draw."""
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    axes.text(0.02, y, text, transform=axes.get_yaxis_transform(), va="center", color=MUTED, size=8.5, bbox=paper)


def _draw_mark(axes: Axes, mark: Mark, y: float, written: Callable[[float], str]) -> None:
    if not can_be_drawn(mark.value):
        return
    left, right = axes.get_xlim()
    if mark.low <= left and mark.high >= right:  # a line without ends would say nothing
        _write_instead(axes, f"{_ends(mark, written)} (too wide to draw)", y)
        return
    if not math.isnan(mark.low) and not math.isnan(mark.high):
        _draw_interval(axes, mark, y)
    axes.plot([mark.value], [y], **_dot(mark.look))


def _ends(mark: Mark, written: Callable[[float], str]) -> str:
    return (
        "any value" if math.isinf(mark.low) and math.isinf(mark.high) else between(mark.low, mark.high, written=written)
    )


def _draw_interval(axes: Axes, mark: Mark, y: float) -> None:
    left, right = axes.get_xlim()
    ends = [max(mark.low, left), min(mark.high, right)]
    colour = mark.look.colour
    axes.plot(ends, [y, y], color=colour, linewidth=2, linestyle="--" if mark.look.dashed else "-")
    for end, cut, arrow in ((left, mark.low <= left, "<"), (right, mark.high >= right, ">")):
        if cut:
            axes.plot([end], [y], marker=arrow, color=colour, markersize=6, clip_on=False)


def _dot(look: Look) -> dict[str, Any]:
    """How a value is drawn."""
    face = look.colour if look.filled else "white"
    return {
        "color": look.colour,
        "linestyle": "none",
        "marker": "o",
        "markersize": 6.5,
        "markerfacecolor": face,
        "markeredgewidth": 1.6,
    }
