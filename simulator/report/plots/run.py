"""Plots of runs: what each policy earned while the visits came. Called by their page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from decider.text import figure, percent, printable, shortened
from simulator.report.plots.canvas import KEY, LOGGED, Plot, count_along, explain, finished, frame, house_style
from simulator.report.run import label
from simulator.run.result import LearningCurve, Line, PolicyRuns, WorldRuns

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Apart for every kind of colour vision (Okabe & Ito 2008)."""
DASHES: tuple[tuple[int, tuple[int, ...]], ...] = ((0, (1, 2)), (0, (4, 2, 1, 2)), (0, (4, 3)))
"""Of the references, in their order."""
MOST = len(COLOURS)
"""Policies that a plot can show; the tables show all."""
COLUMNS, LINE = 2, 0.17
NAME = 30
"""Columns of text of a name in a plot's key; LINE: inches of a row of it."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One plot. of: the line of a policy's curve. written: its figures, for people. ends: of the axis, where known."""

    file: str
    title: str
    unit: str
    of: Callable[[LearningCurve], Line | None]
    written: Callable[[float], str]
    caption: str
    ends: tuple[float, float] | None = None


KINDS = (
    Kind(
        "reward",
        "Reward/visit so far",
        "reward/visit",
        lambda curve: curve.reward,
        figure,
        "The mean of all visits up to there. Where a policy's line crosses that of the best single action and stays "
        "above it, choosing by context has begun to pay.",
    ),
    Kind(
        "share",
        "Share of lift so far",
        "share of lift",
        lambda curve: curve.share,
        percent,
        "0 % is a uniform choice, 100 % the best action of every visit. Nobody reaches 100 %: what is best must be "
        "learned, and exploring costs.",
        (-0.1, 1.05),
    ),
    Kind(
        "regret",
        "Total regret so far",
        "regret",
        lambda curve: curve.total_regret,
        figure,
        "The shortfall against the best action of every visit, summed. A line that bends down is a policy that "
        "learns; one that stays straight has stopped to learn, or never did.",
    ),
    Kind(
        "right",
        "Best action",
        "share of visits",
        lambda curve: curve.right,
        percent,
        "Not so far, but since the point before: a drop says that the world has changed. The policy's own probability "
        "of a best action, so that exploring counts against it.",
        (0.0, 1.02),
    ),
)


def plots_of(found: WorldRuns) -> list[Plot]:
    """Those that have anything to show.

    >>> from simulator.run.example import example_result
    >>> [plot.file for plot in plots_of(example_result())]
    ['reward', 'share', 'regret', 'right']
    """
    return [plot(kind, found) for kind in KINDS if any(_drawable(kind, one) for one in found.policies)]


def _drawable(kind: Kind, policy: PolicyRuns) -> bool:
    line = kind.of(policy.curve)
    return line is not None and any(map(math.isfinite, line.mean))


@house_style
def plot(kind: Kind, found: WorldRuns) -> Plot:
    """One figure of every policy while the visits came."""
    drawn = [one for one in _shown(found.policies) if _drawable(kind, one)]
    lines = math.ceil(len(drawn) / COLUMNS)
    drawing, axes = frame(kind.title, _subtitle(found), height=2.5, left=0.85, above=KEY + LINE * (lines - 1))
    key = {shortened(label(one), NAME): _draw(axes, kind, one, found.policies) for one in drawn}
    explain(axes, key, columns=COLUMNS)
    axes.set_xlim(0, found.rounds)
    axes.set_xlabel("visits")
    axes.set_ylabel(kind.unit)
    for axis, written in ((axes.xaxis, figure), (axes.yaxis, kind.written)):
        count_along(axis, FuncFormatter(lambda x, _, written=written: written(float(x))))
    if kind.ends:
        axes.set_ylim(*kind.ends)
    left_out = len(found.policies) - len(_shown(found.policies))
    others = f" {left_out} other policies are in the tables only." if left_out else ""
    return finished(
        drawing,
        file=kind.file,
        caption=f"{kind.caption}{' Bands: 95 % intervals over seeds.' if len(found.seeds) > 1 else ''}{others}",
        alt=f"{kind.title}: {'; '.join([_last(kind, one) for one in drawn])} after {found.rounds:,} visits.",
    )


def _subtitle(found: WorldRuns) -> str:
    seeds = len(found.seeds)
    return f"{found.world}, {f'mean of {seeds} seeds' if seeds > 1 else 'one seed'}"


def _shown(policies: Sequence[PolicyRuns]) -> list[PolicyRuns]:
    asked = [one for one in policies if not one.reference]
    return [one for one in policies if one.reference or one in asked[:MOST]]


def _draw(axes: Axes, kind: Kind, policy: PolicyRuns, policies: Sequence[PolicyRuns]) -> Line2D:
    same = [one for one in policies if one.reference == policy.reference]
    place = same.index(policy)
    line = kind.of(policy.curve)
    assert line is not None
    rounds = np.array(policy.curve.rounds)
    if policy.reference:
        (drawn,) = axes.plot(rounds, line.mean, color=LOGGED, linewidth=1.3, linestyle=DASHES[place % len(DASHES)])
        return drawn
    colour = COLOURS[place % len(COLOURS)]
    if line.low and line.high:
        low, high = np.array(line.low), np.array(line.high)
        if kind.ends:
            low, high = np.clip(low, *kind.ends), np.clip(high, *kind.ends)
        axes.fill_between(rounds, low, high, color=colour, alpha=0.16, linewidth=0)
    (drawn,) = axes.plot(rounds, line.mean, color=colour, linewidth=1.8)
    return drawn


def _last(kind: Kind, policy: PolicyRuns) -> str:
    line = kind.of(policy.curve)
    return f"{printable(label(policy))} {kind.written(line.mean[-1])}" if line else ""
