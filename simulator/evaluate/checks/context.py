"""Do the logged propensities fit the context of each draw? One finding. Called by `checks/draw.py`.

Propensities that are right on the whole may ignore the context: 1/n, or each action's overall share, while the draws
depend on the segment. The sums over all decisions do not show it; those of one segment do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from decider.text import figure, percent
from simulator.evaluate.checks.balance import Cells, cells_of, name_of_level
from simulator.evaluate.checks.direction import ANY_FIELD, Preference, preferences
from simulator.evaluate.result import Finding, Verdict
from simulator.evaluate.reward_model import levels_of
from simulator.evaluate.verdicts import BALANCE, MATERIAL, ORDER, alarm
from simulator.logs.columns import Category, Columns, Field, Number

NAME = BALANCE

CAUTION, WRONG = 0.01, 2e-4
"""Chance of a caution, and of "do not use", for a right log, over all its fields: this check looks at many places of
every log. What it is for has a chance of 1e-8 and less."""

FAMILIES = 3
"""Of tests: single cells, all cells of a field, and the direction of the outcome."""

LARGE = 0.2
"""Deviation of all cells together that forbids a log. In a real uniform log of 34 items (Open Bandit, men) the draws
deviate by 14 % over the days, and its estimates are sound all the same."""

MOST_FIELDS, COARSE = 8, 10
"""Fields that are looked at two by two, and levels of each."""

NEEDED = (
    "A column that was not known before the draw is no context: --column ignore=NAME. Otherwise log the probability "
    "with which the action was drawn in this context."
)


@dataclass(frozen=True, slots=True)
class _Doubt:
    """Something that the propensities do not explain. chance: corrected for all that was looked at."""

    verdict: Verdict
    chance: float
    text: str
    value: float


def context_balance(columns: Columns) -> Finding | None:
    """Whether the draws fit the propensities for every value of the context. None without context or randomisation.

    >>> from simulator.logs.example import example
    >>> context_balance(example()).verdict
    'fine'
    """
    if not columns.fields or not (columns.propensity < 1.0).any():
        return None
    cells = cells_of(columns)
    together = cells_of(replace(columns, fields=two_together(columns)))
    doubts = [*_cells(columns, cells), *_totals([*cells, *together]), *_preferred(columns)]
    if not doubts:
        text = "Each action was drawn as often as its propensities say, for every value of the context."
        return Finding(NAME, "fine", text, 1.0)
    worst = min(doubts, key=lambda one: (-ORDER.index(one.verdict), one.chance))
    text = f"{worst.text} (by chance: {figure(worst.chance)} at most): the propensities do not fit the context."
    return Finding(NAME, worst.verdict, text, worst.value, NEEDED)


def _verdict(chance: float, *, material: bool) -> Verdict:
    if chance < CAUTION:
        return alarm(significant=True, material=material and chance < WRONG)
    return "fine"


def _cells(columns: Columns, found: Sequence[Cells]) -> list[_Doubt]:
    """The worst cell of every field that has one."""
    tests = FAMILIES * sum(cells.chance.size for cells in found)
    return [doubt for cells in found if (doubt := _cell(columns, cells, tests)) is not None]


def _cell(columns: Columns, cells: Cells, tests: int) -> _Doubt | None:
    chance = np.minimum(1.0, cells.chance * tests)
    off = (chance < WRONG) & (np.abs(cells.ratio - 1.0) > MATERIAL)
    share = float(cells.rows[off.any(axis=1)].sum()) / max(1, int(cells.rows.sum()))
    level, action = np.unravel_index(int(chance.argmin()), chance.shape)
    verdict = _verdict(float(chance[level, action]), material=share > MATERIAL)
    if verdict == "fine":
        return None
    ratio = float(cells.ratio[level, action])
    value = name_of_level(columns.fields[cells.field], cells.levels, int(level))
    text = (
        f"Where {cells.field} is {value}, {columns.actions[int(action)]!r} was drawn {figure(ratio)} times as often "
        "as its propensities say"
    )
    return _Doubt(verdict, float(chance[level, action]), text, ratio)


def _totals(found: Sequence[Cells]) -> list[_Doubt]:
    """Fields, two fields together, and the time: all their cells at once, where none stands out."""
    doubts = []
    for cells in found:
        chance = min(1.0, cells.total * FAMILIES * len(found))
        verdict = _verdict(chance, material=cells.effect > LARGE)
        if verdict != "fine":
            text = f"Over the values of {cells.field}, actions were drawn {percent(cells.effect)} more or less often "
            doubts.append(_Doubt(verdict, chance, text + "than their propensities say", cells.effect))
    return doubts


def two_together(columns: Columns) -> dict[str, Field]:
    """Every pair of the fields with the fewest values, as one field, and the time.

    >>> from simulator.logs.example import example
    >>> list(two_together(example()))
    ['segment and device', 'segment and age', 'device and age', 'the time']
    """
    coarse = [levels_of(name, field, COARSE) for name, field in columns.fields.items()]
    few = sorted(coarse, key=lambda levels: levels.count)[:MOST_FIELDS]
    pairs: dict[str, Field] = {}
    for one, other in combinations(few, 2):
        codes = one.codes(columns.fields[one.name]) * other.count + other.codes(columns.fields[other.name])
        values, code = np.unique(codes, return_inverse=True)
        names = tuple(map(str, values.tolist()))
        pairs[f"{one.name} and {other.name}"] = Category(code.astype(np.int32), names)
    timed = bool((columns.time != columns.time[:1]).any())
    return pairs | ({"the time": Number(columns.time.astype(np.float64))} if timed else {})


def _preferred(columns: Columns) -> list[_Doubt]:
    """Fields whose high-reward values come with good actions too often; and good actions drawn too often at all."""
    found = preferences(columns)
    tests, spread = FAMILIES * len(found), float(columns.reward.std())
    sure = columns.pmf is not None  # else an action that was not eligible where it does badly looks preferred elsewhere
    doubts = []
    for name, one in found.items():
        chance = min(1.0, one.chance * tests)
        material = one.share > MATERIAL if name else abs(one.gain) > MATERIAL * spread
        verdict = _verdict(chance, material=material and sure)
        if verdict != "fine":
            doubts.append(_Doubt(verdict, chance, _words(name, one), one.gain))
    return doubts


def _words(name: str, one: Preference) -> str:
    more = "more" if one.gain > 0 else "less"
    if name == ANY_FIELD:
        return f"Actions that do well in a context were drawn {more} often there than their propensities say"
    return f"Actions that do well were drawn {more} often, where {name} goes with high rewards, than propensities say"
