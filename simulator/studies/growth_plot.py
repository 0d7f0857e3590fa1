"""What grows, as a picture: a column for each thing that grows, a row for each figure. Called by `growth.py`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from decider.text import figure as written
from simulator.report.plots.canvas import CANDIDATE, MUTED, house_style

Point = tuple[str, int, Mapping[str, float]]
"""(what grows, how many, figures by name)."""

FIGURES: Mapping[str, tuple[str, float]] = {
    "memory": ("memory, MB", 1e-6),
    "descriptors": ("descriptors", 1),
    "start_up": ("start-up, s", 1),
    "step": ("20 decisions/s, cpu ms/s", 1),
    "first_scrape_cpu": ("first scrape, cpu s", 1),
    "busy_scrape_cpu": ("scrape after traffic, cpu ms", 1e3),
    "log": ("log, bytes/decision", 1),
}
"""Name -> (title, factor)."""


@house_style
def drawing(points: Sequence[Point]) -> bytes:
    """SVG. All axes begin at 0, so that flat looks flat; each row has one scale."""
    axes_of = list(dict.fromkeys(axis for axis, _, _ in points))
    figure = Figure(figsize=(2.3 * len(axes_of) + 0.6, 1.5 * len(FIGURES) + 0.6), facecolor="white")
    panels = figure.subplots(len(FIGURES), len(axes_of), sharey="row", squeeze=False)
    for row, (name, (title, factor)) in zip(panels, FIGURES.items(), strict=True):
        for axes, axis in zip(row, axes_of, strict=True):
            _draw(axes, [(value, factor * of[name]) for grows, value, of in points if grows == axis])
        row[0].set_title(title, loc="left", size=9, color=MUTED)
        row[0].set_ylim(bottom=0)
    for axes, axis in zip(panels[-1], axes_of, strict=True):
        axes.set_xlabel(axis)
    figure.tight_layout()
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def _draw(axes: Axes, points: Sequence[tuple[int, float]]) -> None:
    across, up = zip(*points, strict=True)
    axes.plot(across, up, color=CANDIDATE, marker="o", markersize=4, linewidth=1.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(across))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: written(x)))
    axes.tick_params(length=0, labelsize=7.5)
    axes.grid(visible=True)
