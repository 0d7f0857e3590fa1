"""The plot of a world: mean rewards of its actions by the values of the field that matters most. Called by its page."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from decider.text import figure, printable, shortened
from simulator.report.plots.canvas import INK, Plot, finished, frame, house_style
from simulator.report.world_figures import SEED, Portrait
from simulator.report.worlds import alone

ROW, LABEL_WIDTH, INCHES = 0.3, 20, 0.078
GROUP_WIDTH = 11
BEST = "#d55e00"
COLOURS = "cividis"
"""From dark to light, and the same for every kind of colour vision."""
BRIGHT = 0.55
"""From there on a cell's number is written in dark ink."""


def picture(one: Portrait) -> Plot:
    """The heat map of a world."""
    seen, world = one.picture, one.world
    subtitle = f"{world.name}; {one.left_out}" if one.left_out else world.name
    shown = [world.actions[place] for place in one.rows]
    drawing = heat(
        seen.means[one.rows], rows=shown, columns=seen.groups, title=f"Mean reward by {seen.field}", subtitle=subtitle
    )
    best = "; ".join(f"{group}: {action}" for group, action in zip(seen.groups, seen.best, strict=True))
    return finished(
        drawing,
        file=re.sub(r"[^\w.-]+", "-", world.name)[:80],
        caption=f"Rows are actions, columns what is known as {printable(seen.field)}, the field that matters most "
        f"(seed {SEED}). Framed: the best of a column. {alone(one)}",
        alt=f"Heat map of {printable(world.name)}. Best by {printable(seen.field)}: {printable(best)}.",
    )


@house_style
def heat(
    means: NDArray[np.float64], *, rows: Sequence[str], columns: Sequence[str], title: str, subtitle: str
) -> Figure:
    """The drawing. means: (rows, columns); nan where there is nothing to draw. A frame marks the best of a column."""
    left = 0.2 + INCHES * max(len(shortened(row, LABEL_WIDTH)) for row in rows)
    drawing, axes = frame(title, subtitle, height=ROW * len(rows), left=left, right=0.15)
    axes.pcolormesh(np.ma.masked_invalid(means), cmap=COLOURS, edgecolors="white", linewidth=1.5)
    axes.invert_yaxis()
    axes.set_xticks(np.arange(len(columns)) + 0.5, [shortened(one, GROUP_WIDTH) for one in columns])
    axes.set_yticks(np.arange(len(rows)) + 0.5, [shortened(one, LABEL_WIDTH) for one in rows])
    low, high = float(np.nanmin(means)), float(np.nanmax(means))
    for (row, column), mean in np.ndenumerate(means):
        level = (mean - low) / (high - low) if high > low else 1.0
        _write(axes, figure(mean), row=row, column=column, level=level)
    for column, row in enumerate(np.argmax(np.nan_to_num(means, nan=-np.inf), axis=0).tolist()):
        axes.add_patch(_framed(row, column))
    return drawing


def _write(axes: Axes, text: str, *, row: int, column: int, level: float) -> None:
    """level: of the cell's colour, in [0, 1]; nan where there is none."""
    ink = INK if math.isnan(level) or sum(colormaps[COLOURS](level)[:3]) / 3 > BRIGHT else "white"
    axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", size=8, color=ink)


def _framed(row: int, column: int) -> Rectangle:
    return Rectangle((column + 0.04, row + 0.06), 0.92, 0.88, fill=False, edgecolor=BEST, linewidth=2)
