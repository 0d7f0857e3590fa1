"""How every plot of a report looks, and how it becomes a file. Called by `plots`.

A drawing is made once and kept twice: as SVG for the page (sharp on paper and on a phone, and the reader's browser has
a glyph for every name) and as PNG for slides and chats. Sizes are in inches; nothing depends on the machine's settings.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from decider.text import shortened

INK, MUTED, GRID = "#1f2933", "#5f6b7a", "#e3e7ec"
CANDIDATE, LOGGED, BIASED = "#0072b2", "#5f6b7a", "#b84a00"
"""Blue, grey and vermillion: apart for every kind of colour vision (Okabe & Ito 2008); shapes differ as well."""

WIDTH = 5.0
TOP, BOTTOM, RIGHT = 0.64, 0.55, 0.38
KEY = 0.28
"""Between the titles and the data, where the looks are explained."""
PIXELS_PER_INCH = 96
DPI = 200
TITLE_WIDTH = 58
"""Columns of text that fit over a plot."""

_SETTINGS: dict[str, Any] = {
    "axes.edgecolor": MUTED,
    "axes.grid": False,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Noto Sans CJK SC", "Arial Unicode MS"],
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.labelcolor": MUTED,
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.color": INK,
    "ytick.labelsize": 8.5,
}
house_style = style.context(["default", _SETTINGS])
"""Decorates whatever draws. Names are no formulas: a `$` is a `$`."""

_NO_TRACE: Mapping[str, None] = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@dataclass(frozen=True, slots=True)
class Plot:
    """file: its name without an ending. alt: what it says, for who does not see it. width, height: in CSS pixels."""

    file: str
    caption: str
    alt: str
    svg: bytes
    png: bytes
    width: int
    height: int


def frame(
    title: str, subtitle: str, *, height: float, left: float, right: float = RIGHT, above: float = 0.0
) -> tuple[Figure, Axes]:
    """A figure with its two lines of title, and one axes.

    height: inches of data. left, right, above: room for labels and for a key.
    """
    whole = TOP + above + height + BOTTOM
    figure = Figure(figsize=(WIDTH, whole), facecolor="white")
    axes = figure.add_axes((left / WIDTH, BOTTOM / whole, (WIDTH - left - right) / WIDTH, height / whole))
    axes.tick_params(length=0, pad=5)
    start = 0.1 / WIDTH
    figure.text(start, 1 - 0.1 / whole, title, size=10.5, weight="bold", va="top")
    figure.text(start, 1 - 0.33 / whole, shortened(subtitle, TITLE_WIDTH), size=8.5, color=MUTED, va="top")
    return figure, axes


def explain(axes: Axes, key: Mapping[str, Line2D], *, columns: int | None = None) -> None:
    """What the looks mean, in the room above the data; by default side by side."""
    axes.legend(
        key.values(),
        key.keys(),
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=columns or len(key),
        borderpad=0,
        borderaxespad=0.7,
        handletextpad=0.3,
        handlelength=1.4,
    )


def count_along(axis: Axis, written: FuncFormatter, parts: int = 5) -> None:
    """Round numbers at the ticks, and lines to follow."""
    axis.set_major_locator(MaxNLocator(parts))
    axis.set_major_formatter(written)
    axis.grid(visible=True)


def finished(figure: Figure, *, file: str, caption: str, alt: str) -> Plot:
    """The drawing as SVG and as PNG; the same drawing gives the same bytes."""
    width, height = figure.get_size_inches()
    return Plot(
        file=file,
        caption=caption,
        alt=alt,
        svg=_saved(figure, format="svg", metadata=_NO_TRACE),
        png=_saved(figure, format="png", metadata={"Software": None}, dpi=DPI),
        width=round(width * PIXELS_PER_INCH),
        height=round(height * PIXELS_PER_INCH),
    )


def _saved(figure: Figure, **how: Any) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():  # a name in a script that matplotlib's font lacks: boxes in the PNG, right in SVG
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(file, **how)
    return file.getvalue()
