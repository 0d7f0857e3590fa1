"""The estimate as the log went on, with its confidence sequence. Called by `plots`."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from decider.text import between, count, figure, printable
from simulator.evaluate.result import Curve, LogSummary
from simulator.report.plots.canvas import CANDIDATE, LOGGED, Plot, count_along, finished, frame, house_style
from simulator.report.plots.forest import can_be_drawn

CURVE_POINTS = 300
SETTLED = 0.1
"""The share of the log after which the curve decides how much is in view: earlier the sequence is very wide."""
APPROXIMATE = "For dr this is approximate: its reward model is fitted on the whole log, later decisions included. "
"""Terms of a confidence sequence may depend on the past only."""


@house_style
def curve(found: Curve, name: str, log: LogSummary, stem: str) -> Plot:
    """The estimate after so many decisions, against the mean of the log."""
    drawing, axes = frame("The estimate while the log went on", name, height=2.3, left=0.85)
    _draw_sequence(axes, found, compared=log.mean_reward)
    if can_be_drawn(log.mean_reward):
        axes.axhline(log.mean_reward, color=LOGGED, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.set_xlabel("decisions")
    axes.set_ylabel("reward per decision")
    for axis in (axes.xaxis, axes.yaxis):
        count_along(axis, FuncFormatter(lambda x, _: figure(x)))
    model = APPROXIMATE if found.estimator == "dr" else ""
    return finished(
        drawing,
        file=f"{stem}-curve",
        caption=f"Line: the estimate from the decisions so far ({found.estimator}). Band: its confidence sequence, "
        "which holds at every moment at once, so one may look at any time and stop. "
        f"{model}Dashed: the mean of the log. "
        "A line that still drifts at the end says that more of the log, or a stable period, is needed.",
        alt=f"Estimate of {printable(name)} after so many decisions: {figure(found.value[-1])} "
        f"({between(found.low[-1], found.high[-1])}) after {count(found.decisions[-1])}; "
        f"the log's mean is {figure(log.mean_reward)}.",
    )


def _draw_sequence(axes: Axes, found: Curve, *, compared: float) -> None:
    chosen = np.unique(np.linspace(0, len(found.decisions) - 1, CURVE_POINTS).astype(np.int64))
    decisions = np.array(found.decisions, np.float64)[chosen]
    value, low, high = (np.array(one, np.float64)[chosen] for one in (found.value, found.low, found.high))
    settled = decisions >= SETTLED * decisions[-1]
    bottom, top = _view(np.concatenate([low[settled], high[settled], value[settled], [compared]]))
    band = np.clip(low, bottom, top), np.clip(high, bottom, top)
    axes.fill_between(decisions, *band, color=CANDIDATE, alpha=0.18, linewidth=0)
    axes.plot(decisions, np.clip(value, bottom, top), color=CANDIDATE, linewidth=1.8)
    axes.set_xlim(0, decisions[-1])
    axes.set_ylim(bottom, top)


def _view(values: NDArray[np.float64]) -> tuple[float, float]:
    """The range of those that can be drawn, and some air."""
    drawn = list(filter(can_be_drawn, values.tolist()))
    if not drawn:
        return 0.0, 1.0
    low, high = min(drawn), max(drawn)
    air = (high - low) / 20 or abs(high) / 20 or 0.5
    return low - air, high + air
