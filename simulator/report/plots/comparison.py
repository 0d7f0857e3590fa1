"""Plots of a comparison: differences, curves and grids of parameters. Called by its page.

Every name in them is written as text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from decider.text import between, figure, percent, printable, shortened
from simulator.compare.paired import Comparison
from simulator.compare.result import ComparisonResult, Family, ShareCurve, Standing, Value
from simulator.report.comparison import signed_writer, writer
from simulator.report.plots.canvas import GRID, INK, LOGGED, Plot, count_along, finished, frame, house_style
from simulator.report.plots.forest import PLAIN, Look, Mark, Row, forest

REAL, NOT_REAL = PLAIN, Look(LOGGED, filled=False)
LINES: tuple[tuple[str, Literal["-", "--", "-.", ":"]], ...] = (
    ("#0072b2", "-"),
    ("#b84a00", "--"),
    ("#00664d", "-."),
    ("#7a3b8f", ":"),
    ("#5f6b7a", "-"),
    ("#8a6d00", "--"),
)
"""Told apart by colour and by dashes. Curves beyond them are left out, the worst first."""

MOST_ROWS = 40
"""Of a forest plot."""

LINE_OF_KEY = 0.2
"""Inches of a line above the data."""

WIDE_NAME, NARROW_NAME = 40, 16


def plots_of(found: ComparisonResult) -> Iterator[Plot]:
    """Those for which there are figures.

    >>> from simulator.compare.example import example_result
    >>> [plot.file for plot in plots_of(example_result())]
    ['differences-1', 'differences-2', 'curves']
    """
    for number, family in enumerate(found.families, 1):
        yield differences(family, number)
    if found.curves:
        yield curves(found)
    for number, grid in enumerate(grids(found.standings), 1):
        yield parameters(grid, found.figure, number)


@house_style
def differences(family: Family, number: int) -> Plot:
    """A forest plot of differences: the largest first, those that are not real hollow."""
    ordered = sorted(family.comparisons, key=lambda one: -one.difference)
    brief = briefly([name for one in ordered for name in (one.name, one.against)])
    rows = [Row(_pair(family, one, brief), _mark(one)) for one in ordered[:MOST_ROWS]]
    title = f"Differences of the {family.figure}"
    against = {one.against for one in ordered}
    subtitle = f"each less {against.pop()}" if len(against) == 1 else "the first less the second"
    key = {"real": REAL, "no significant difference": NOT_REAL}
    drawing = forest(
        rows,
        title=title,
        subtitle=subtitle,
        unit=f"difference of the {family.figure}",
        line=Mark(NOT_REAL, 0.0, math.nan, math.nan),
        key=key,
        written=writer(family.figure),
    )
    left = f" {len(ordered) - MOST_ROWS} smaller ones are only in the table." if len(ordered) > MOST_ROWS else ""
    written = signed_writer(family.figure)
    told = [
        f"{_pair(family, one, {})}: {written(one.difference)} ({between(one.low, one.high, written=written)})"
        for one in ordered
    ]
    return finished(
        drawing,
        file=f"differences-{number}",
        caption=f"{family.how[0].upper()}{family.how[1:]}. Where the interval holds 0, nothing is known to be better."
        f"{left}",
        alt=f"{title}, {printable(subtitle)}, with intervals. " + "; ".join(map(printable, told[:MOST_ROWS])),
    )


def _pair(family: Family, one: Comparison, brief: Mapping[str, str]) -> str:
    first, second = (brief.get(name, name) for name in (one.name, one.against))
    return first if len({every.against for every in family.comparisons}) == 1 else f"{first} - {second}"


def briefly(names: Sequence[str]) -> dict[str, str]:
    """Names without those of their parameters, where that still tells them apart.

    >>> briefly(["squarecb:gamma_scale=10,floor=0.01", "default"])
    {'squarecb:gamma_scale=10,floor=0.01': 'squarecb:10,0.01', 'default': 'default'}
    """
    brief = {name: re.sub(r"\w+=", "", name) for name in names}
    return brief if len(set(brief.values())) == len(brief) else {name: name for name in names}


def _mark(one: Comparison) -> Mark:
    return Mark(REAL if one.real else NOT_REAL, one.difference, one.low, one.high)


@house_style
def curves(found: ComparisonResult) -> Plot:
    """The share of the attainable lift so far, of the best few policies."""
    rank = [one.name for one in found.standings]
    ordered = sorted(found.curves, key=lambda one: rank.index(one.name))
    drawn = ordered[: len(LINES)]
    drawing, axes = frame(
        "Share of the attainable lift so far", "means over seeds", height=2.6, left=0.7, above=LINE_OF_KEY * len(drawn)
    )
    for one, (colour, dashes) in zip(drawn, LINES, strict=False):
        axes.plot(one.rounds, one.share, color=colour, linestyle=dashes, linewidth=1.8)
    axes.axhline(0.0, color=GRID, linewidth=1)
    axes.set_ylim(_bottom(drawn), 1.05)
    axes.set_xlabel("visits")
    count_along(axes.xaxis, FuncFormatter(lambda x, _: figure(x)))
    count_along(axes.yaxis, FuncFormatter(lambda y, _: percent(y)))
    brief = briefly([one.name for one in drawn])
    _explain(axes, [brief[one.name] for one in drawn])
    left = f" The other {len(ordered) - len(drawn)} are left out." if len(ordered) > len(drawn) else ""
    return finished(
        drawing,
        file="curves",
        caption="0 % is a uniform choice, 100 % the best action of every visit. A line that still rises says "
        f"that more visits would help.{left}",
        alt="Share of the attainable lift after all visits. "
        + "; ".join(f"{printable(one.name)}: {percent(one.share[-1])}" for one in drawn),
    )


def _explain(axes: Axes, names: Sequence[str]) -> None:
    """Which line is which, one below the other."""
    looks = [Line2D([], [], color=colour, linestyle=dashes) for colour, dashes in LINES[: len(names)]]
    labels = [shortened(name, WIDE_NAME) for name in names]
    axes.legend(looks, labels, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0, borderaxespad=0.7)


def _bottom(drawn: Sequence[ShareCurve]) -> float:
    """Low enough for what lasts; the first visits may be anywhere."""
    late = [share for one in drawn for share in one.share[len(one.share) // 10 :] if math.isfinite(share)]
    return max(-1.0, min(0.0, *late)) - 0.05


@dataclass(frozen=True, slots=True)
class Grid:
    """Policies that differ in one or two parameters only. name: what they share."""

    name: str
    axes: tuple[str, ...]
    points: Mapping[tuple[Value, ...], Standing]


def grids(standings: Sequence[Standing]) -> list[Grid]:
    """One for each algorithm of which one or two parameters vary, and one of the algorithms where theirs do not.

    >>> from simulator.compare.result import Estimate
    >>> one = [Standing("", "", {"algorithm": "bag", "bag.size": n}, Estimate(n, n, n, "")) for n in (2, 5)]
    >>> [(grid.name, grid.axes) for grid in grids(one)]
    [('bag', ('bag.size',))]
    """
    known = [one for one in standings if one.estimate is not None and len(one.parameters) > 1]
    algorithms = dict.fromkeys(str(one.parameters["algorithm"]) for one in known)
    alone = [_grid(name, [one for one in known if one.parameters["algorithm"] == name]) for name in algorithms]
    return [one for one in (*alone, *([_grid("all algorithms", known)] if len(algorithms) > 1 else [])) if one]


def _grid(name: str, standings: Sequence[Standing]) -> Grid | None:
    shared = [key for key in standings[0].parameters if all(key in one.parameters for one in standings)]
    varying = tuple([key for key in shared if len({one.parameters[key] for one in standings}) > 1])
    points = {tuple([one.parameters[key] for key in varying]): one for one in standings}
    if not 1 <= len(varying) <= 2 or len(points) < len(standings):
        return None
    return Grid(name, varying, points)


@house_style
def parameters(grid: Grid, figure_name: str, number: int) -> Plot:
    """One parameter along the bottom, the other one as lines; each point with its interval."""
    along, *other = grid.axes
    places = {value: place for place, value in enumerate(_ordered(key[0] for key in grid.points))}
    lines = _ordered(key[1:] for key in grid.points)[: len(LINES)]
    above = LINE_OF_KEY * len(lines) if other else 0.0
    drawing, axes = frame(
        f"{grid.name}: {figure_name}", f"by {' and '.join(grid.axes)}", height=2.4, left=0.8, above=above
    )
    for shift, (rest, (colour, dashes)) in enumerate(zip(lines, LINES, strict=False)):
        points = sorted((places[at[0]], one) for at, one in grid.points.items() if at[1:] == rest)
        across = [place + 0.06 * (shift - (len(lines) - 1) / 2) for place, _ in points]
        found = [one.estimate for _, one in points if one.estimate]
        axes.plot(across, [one.value for one in found], color=colour, linestyle=dashes, linewidth=1.2, marker="o")
        axes.vlines(across, [one.low for one in found], [one.high for one in found], color=colour, linewidth=1.6)
    axes.set_xticks(list(places.values()), [shortened(_written(value), NARROW_NAME) for value in places], color=INK)
    axes.set_xlim(-0.5, len(places) - 0.5)
    axes.set_xlabel(along)
    written = writer(figure_name)
    count_along(axes.yaxis, FuncFormatter(lambda y, _: written(y)))
    if other:
        _explain(axes, [f"{other[0]} {_written(rest[0])}" for rest in lines])
    best = max(grid.points.values(), key=lambda one: one.estimate.value if one.estimate else -math.inf)
    return finished(
        drawing,
        file=f"grid-{number}",
        caption="Each point is a policy, with its pointwise 95 % interval; the table of differences shows which "
        f"policies differ. Highest: {printable(best.name)}.",
        alt=f"{figure_name} by {', '.join(grid.axes)}. "
        + "; ".join(
            f"{printable(one.name)}: {written(one.estimate.value)}" for one in grid.points.values() if one.estimate
        ),
    )


def _written(value: Value) -> str:
    return figure(value) if isinstance(value, float) else str(value)


def _ordered(values: Iterator[Value] | Iterator[tuple[Value, ...]]) -> list[Any]:
    """Each once; numbers by size, texts by letters."""
    distinct = list(dict.fromkeys(values))
    try:
        return sorted(distinct)
    except TypeError:
        return distinct
