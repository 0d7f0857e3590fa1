"""What `PLAN.md` aims at, and how far the results are from it. Called by `table.py`.

Written down before the first run with the seeds that judge: none of it may be changed by what came out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, isnan
from statistics import median

from simulator.run.task import HORIZONS
from simulator.studies.bakeoff.plan import MADE_FOR_IT
from simulator.studies.bakeoff.verdicts import (
    BETTER,
    UNKNOWN,
    WORSE,
    Cell,
    Change,
    Shares,
    Verdicts,
    best,
    changes,
    together,
)

BETTER_PART, BETTER_AT = 3, HORIZONS[:2]
"""A cell in so many is to be better, at these horizons."""

GAIN = 0.02
"""Of the mean share, over the default before."""

NOTHING = "-"


def aims(found: Mapping[Cell, Shares], verdicts: Verdicts) -> list[list[str]]:
    """A row an aim, a column a horizon: what was found, and what is missing."""
    horizons = sorted({cell.horizon for cell in found})
    everywhere = changes(found)
    old = changes({cell: shares for cell, shares in found.items() if cell.world not in MADE_FOR_IT})
    told = {cell: conclusion for cell, conclusion in together(verdicts).items() if conclusion != UNKNOWN}
    at = {horizon: [one for cell, one in told.items() if cell.horizon == horizon] for horizon in horizons}
    return [
        ["worse than a rival: none", *[_losses(at[horizon]) for horizon in horizons]],
        ["better than all rivals: a third", *[_wins(at[horizon], horizon) for horizon in horizons]],
        [f"mean share over the default before: +{GAIN}", *[_gain(everywhere.get(horizon)) for horizon in horizons]],
        [f"the same without {' and '.join(MADE_FOR_IT)}", *[_gain(old.get(horizon)) for horizon in horizons]],
        ["told with 80 % probability: median of cells", *[_told_from(verdicts, horizon) for horizon in horizons]],
        ["the same, each cell by itself", *[_told_alone(verdicts, horizon) for horizon in horizons]],
    ]


def _losses(told: Sequence[str]) -> str:
    if not told:
        return NOTHING
    lost = told.count(WORSE)
    return f"**{lost} of {len(told)}**" if lost else f"reached: 0 of {len(told)}"


def _wins(told: Sequence[str], horizon: int) -> str:
    """Where nothing is aimed at, just the count."""
    if not told:
        return NOTHING
    won, wanted = told.count(BETTER), ceil(len(told) / BETTER_PART)
    if horizon not in BETTER_AT:
        return f"{won} of {len(told)} (no aim)"
    return f"reached: {won} of {len(told)}" if won >= wanted else f"**{won} of {len(told)}, {wanted - won} missing**"


def _gain(change: Change | None) -> str:
    if change is None:
        return NOTHING
    gained = change.ours - change.before
    found = f"{gained:+.3f}" + ("" if isnan(change.low) else f" ({change.low:+.3f} to {change.high:+.3f})")
    return f"reached: {found}" if gained >= GAIN else f"**{found}, {GAIN - gained:.3f} missing**"


def _told_from(verdicts: Verdicts, horizon: int) -> str:
    """Of the cells' hardest rivals, with the correction for all cells."""
    cells = len(verdicts)
    there = [(best(found), len(found)) for cell, found in verdicts.items() if cell.horizon == horizon]
    return _median([hardest.told_among(cells * rivals) for hardest, rivals in there if hardest])


def _told_alone(verdicts: Verdicts, horizon: int) -> str:
    return _median([least_told(cell, verdicts) for cell in verdicts if cell.horizon == horizon])


def _median(found: Sequence[float]) -> str:
    known = [one for one in found if not isnan(one)]
    return f"{median(known):.3f}" if known else NOTHING


def least_told(cell: Cell, verdicts: Verdicts) -> float:
    """The smallest true difference to the hardest rival of a cell that its test, corrected for the rivals of that cell,
    would tell with 80 % probability."""
    return hardest.told_from if (hardest := best(verdicts[cell])) else float("nan")
