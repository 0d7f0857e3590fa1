"""A picture of the bake-off: a row per world, our default's share beside the rivals'. Called by `__main__.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from simulator.report.plots.canvas import (
    BIASED,
    CANDIDATE,
    KEY,
    LOGGED,
    Plot,
    count_along,
    explain,
    finished,
    frame,
    house_style,
)
from simulator.studies.bakeoff.before import BEFORE
from simulator.studies.bakeoff.results import SeedResult
from simulator.studies.bakeoff.verdicts import WORSE, Against, Cell, against_rivals, best, cells

ROW, HEADING, LEFT = 0.25, 0.34, 1.6
LOWEST = -0.1
"""What is worse than that is drawn at the edge, as an arrow."""

_OURS = {"color": CANDIDATE, "marker": "o", "markersize": 6.5}
_BEFORE = {"color": CANDIDATE, "marker": "o", "markersize": 4.5, "markerfacecolor": "white"}
_RIVAL = {"color": LOGGED, "marker": "|", "markersize": 7, "markeredgewidth": 1.2}
_AHEAD = {"color": BIASED, "marker": "D", "markersize": 5.5, "markerfacecolor": "white", "markeredgewidth": 1.5}


@house_style
def shares(rows: Sequence[SeedResult], horizon: int) -> Plot:
    """Of one horizon. A rival that is significantly better than our default has a mark of its own.

    >>> shares([SeedResult("storefront", False, "default", 1, 4_000, 0.5, 1.0)], 4_000).file
    'shares'
    """
    found = {cell: of for cell, of in cells(rows).items() if cell.horizon == horizon}
    groups = {delayed: [cell for cell in found if cell.delayed == delayed] for delayed in (False, True)}
    height = sum(HEADING + ROW * len(group) for group in groups.values() if group)
    subtitle = f"share of the attainable lift earned in {horizon:,} rounds"
    figure, axes = frame("Our default and other libraries' bandits", subtitle, height=height, left=LEFT, above=KEY)
    axes.set_xlim(LOWEST, 1.02)
    axes.set_ylim(height, 0)
    axes.set_yticks([])
    axes.set_xlabel("0: an even choice, 1: always the best; mean over seeds")
    count_along(axes.xaxis, FuncFormatter(lambda x, _: f"{x:g}"))
    y = 0.0
    for delayed, group in groups.items():
        if group:
            _named(axes, f"{'delayed' if delayed else 'immediate'} rewards", y + HEADING / 2, weight="bold")
            y += HEADING
        for cell in group:
            _draw_world(axes, cell, against_rivals(found[cell]), _mean(found[cell].get(BEFORE)), y + ROW / 2)
            y += ROW
    before = {"before": _BEFORE} if any(BEFORE in of for of in found.values()) else {}
    looks = {"our default": _OURS, **before, "a rival": _RIVAL, "one really ahead": _AHEAD}
    explain(axes, {meaning: Line2D([], [], linestyle="none", **look) for meaning, look in looks.items()})  # type: ignore[arg-type]
    return finished(figure, file="shares", caption=subtitle, alt=alt(found_best(rows, horizon)))


def found_best(rows: Sequence[SeedResult], horizon: int) -> dict[Cell, Against]:
    """The best rival of each cell of that horizon."""
    each = {cell: best(against_rivals(of)) for cell, of in cells(rows).items() if cell.horizon == horizon}
    return {cell: one for cell, one in each.items() if one}


def alt(found: dict[Cell, Against]) -> str:
    """What the picture says, for who does not see it.

    >>> alt({})
    'Our default is ahead of the best rival in 0 of 0 rows.'
    """
    ahead = sum(one.difference > 0 for one in found.values())
    return f"Our default is ahead of the best rival in {ahead} of {len(found)} rows."


def _named(axes: Axes, text: str, y: float, *, weight: str = "normal") -> None:
    axes.text(-0.03, y, text, transform=axes.get_yaxis_transform(), ha="right", va="center", weight=weight)


def _draw_world(axes: Axes, cell: Cell, found: Sequence[Against], before: float | None, y: float) -> None:
    _named(axes, cell.world, y)
    for one in found:
        _draw(axes, one.theirs, y, _AHEAD if one.conclusion == WORSE else _RIVAL)
    if before is not None:
        _draw(axes, before, y, _BEFORE)
    if found:
        _draw(axes, found[0].ours, y, _OURS)


def _mean(shares: Mapping[int, float] | None) -> float | None:
    return fmean(shares.values()) if shares else None


def _draw(axes: Axes, share: float, y: float, look: dict[str, object]) -> None:
    inside = share >= LOWEST
    shown = look if inside else look | {"marker": "<"}
    axes.plot([max(share, LOWEST)], [y], linestyle="none", clip_on=False, **shown)  # type: ignore[arg-type]
