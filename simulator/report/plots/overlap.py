"""How far a candidate is from what was logged: the weights of the decisions, and the shift of each action.

Called by `plots`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from decider.text import cells, count, figure, percent, printable, shortened
from simulator.evaluate.result import ActionShare, Histogram
from simulator.report.plots.canvas import (
    CANDIDATE,
    INK,
    KEY,
    LOGGED,
    Plot,
    count_along,
    explain,
    finished,
    frame,
    house_style,
)
from simulator.report.plots.forest import CELL, LABEL_WIDTH, can_be_drawn

LARGEST_SHIFTS = 20
MOST_LABELS = 8
"""Actions that the alternative text tells."""
ROW, AIR = 0.235, 0.08
DOT: dict[str, Any] = {"markersize": 6, "markeredgewidth": 1.5, "clip_on": False}
HEAVY = 10.0
"""From this weight on, the alternative text counts the decisions."""
LEAST = 1e-9
"""The axis of probabilities is at least as long."""
NEAR = 0.06
"""Of the width: closer to the first edge no weight is written."""


@house_style
def weights(found: Histogram, name: str, stem: str) -> Plot:
    """How many decisions count how much; both scales are logarithmic."""
    drawing, axes = frame("How much each decision counts", name, height=2.1, left=0.85)
    _draw_bins(axes, found)
    _write_weights(axes, found.edges)
    one = _place(found.edges, 1.0)
    if one is not None:
        axes.axvline(one, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=3)
    heavy = sum(n for edge, n in zip(found.edges, found.counts, strict=False) if edge >= HEAVY)
    return finished(
        drawing,
        file=f"{stem}-weights",
        caption="A decision with weight 10 stands for ten. Few decisions far to the right carry the estimate, and make "
        "it uncertain. Dashed: weight 1, where the policy is as likely to act so as the log was.",
        alt=f"Histogram of the weights of {count(sum(found.counts))} decisions of {printable(name)}, logarithmic; "
        f"{count(heavy)} of them are in bins from {figure(HEAVY)} on, the last bin ends at {figure(found.edges[-1])}.",
    )


def _draw_bins(axes: Axes, found: Histogram) -> None:
    """Every bin is one wide, whatever its edges: so one that begins at 0 has its place on a logarithmic scale."""
    bins = np.arange(len(found.counts))
    axes.bar(bins + 0.5, found.counts, width=0.92, color=CANDIDATE, log=True, zorder=2)
    axes.set_xlim(0, len(bins))
    axes.set_ylim(0.7, max(10.0, 2.0 * max(found.counts)))
    axes.set_xlabel("weight: probability under the policy / logged propensity")
    axes.set_ylabel("decisions")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: figure(y)))
    axes.minorticks_off()
    axes.grid(visible=True, axis="y")


@house_style
def actions(found: Sequence[ActionShare], name: str, stem: str) -> Plot:
    """The largest changes of the actions' probabilities, from the log to the candidate."""
    shown = shown_actions(found)
    labels = [shortened(one.action, LABEL_WIDTH) for one in shown]
    height = AIR + ROW * len(shown)
    left = 0.2 + CELL * max(map(cells, labels), default=0)
    drawing, axes = frame(_counted(len(shown), len(found)), name, height=height, left=left, above=KEY)
    rows = [AIR + ROW * (index + 0.5) for index in range(len(shown))]
    axes.set_ylim(height, 0)
    axes.set_yticks(rows, labels)
    _draw_shifts(axes, shown, rows)
    left_out = len(found) - len(shown)
    return finished(
        drawing,
        file=f"{stem}-actions",
        caption="How often each action is chosen, in the log and by the policy, over the same decisions."
        + (f" {count(left_out)} other actions change less and are left out." if left_out else ""),
        alt=f"Mean probability of actions, logged and under {printable(name)}, largest change first: "
        + "; ".join(map(_shift, shown[:MOST_LABELS]))
        + ("; and others." if len(found) > MOST_LABELS else "."),
    )


def _shift(one: ActionShare) -> str:
    return f"{printable(one.action)} {percent(one.logged)} to {percent(one.candidate)}"


def _draw_shifts(axes: Axes, shown: Sequence[ActionShare], rows: Sequence[float]) -> None:
    logged, candidate = [one.logged for one in shown], [one.candidate for one in shown]
    axes.hlines(rows, logged, candidate, color=CANDIDATE, linewidth=2.2, alpha=0.45)
    (before,) = axes.plot(logged, rows, "o", color=LOGGED, markerfacecolor="white", **DOT)
    (after,) = axes.plot(candidate, rows, "o", color=CANDIDATE, **DOT)
    axes.set_xlim(0, max([*logged, *candidate, LEAST]) * 1.05)
    axes.set_xlabel("mean probability")
    count_along(axes.xaxis, FuncFormatter(lambda x, _: percent(x)))
    explain(axes, {"as logged": before, "candidate": after})


def shown_actions(actions: Sequence[ActionShare]) -> list[ActionShare]:
    """Those whose probability changes most, the largest change first.

    >>> [one.action for one in shown_actions([ActionShare("a", 0.5, 0.4), ActionShare("b", 0.5, 0.6000001)])]
    ['b', 'a']
    """
    known = [one for one in actions if can_be_drawn(one.candidate - one.logged)]
    return sorted(known, key=lambda one: (-abs(one.candidate - one.logged), one.action))[:LARGEST_SHIFTS]


def _counted(shown: int, all_of_them: int) -> str:
    if shown == all_of_them:
        return "What the policy would choose instead"
    return f"What it would choose instead: {shown} of {all_of_them} actions"


def _write_weights(axes: Axes, edges: Sequence[float]) -> None:
    """Powers of ten, and the first edge, which may be 0; none so near to it that they would touch."""
    powers = [10.0**power for power in range(-9, 10) if (_place(edges, 10.0**power) or 0.0) >= NEAR * len(edges)]
    placed = {weight: place for weight in (edges[0], *powers) if (place := _place(edges, weight)) is not None}
    axes.set_xticks(list(placed.values()), [figure(weight) for weight in placed])


def _place(edges: Sequence[float], x: float) -> float | None:
    """Where a weight lies when every bin is one wide; None outside."""
    for index, (low, high) in enumerate(pairwise(edges)):
        if low <= x < high and math.isfinite(high):
            within = math.log(x / low) / math.log(high / low) if low > 0 else (x - low) / (high - low)
            return index + within
    return None
