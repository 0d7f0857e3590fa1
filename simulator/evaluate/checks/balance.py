"""Is the context balanced between the drawn actions, as the propensities say? Called by `checks/draw.py`, `leaks.py`.

What is known before a draw cannot depend on it. So among the decisions with one value of a field, each action is drawn
as often as its propensities say. Where it is not, either the propensities ignore this field, or the field was made
after the draw: of the action that was shown, or of what came of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.special import chdtrc, gammaincc

from decider.estimate.sample import Floats, Longs
from decider.estimate.sample_ratio import freedman
from decider.text import figure
from simulator.evaluate.reward_model import Levels, levels_of
from simulator.logs.columns import Category, Columns, Field

MOST_LEVELS = 100
"""Values of a field that are looked at on their own, texts and numbers; the others together."""

MOST_BINS = 20
"""Of a number with more different values."""

ENOUGH_DRAWS = 5.0
"""Expected draws of a cell that counts on its own in the sum over all cells (Cochran, Biometrics 1954)."""

MOST_CELLS = 500_000
"""Decisions x actions that are looked at; what is wrong by 5 % in a twentieth of the decisions shows in as many."""


@dataclass(frozen=True, slots=True)
class Cells:
    """One field against the draws. All (levels, actions); see `Levels`.

    drawn: how often the action was drawn there; expected: how often it should have been, from the logged pmfs, or
    without them from its share of all draws. ratio: with pmfs drawn / expected, without them the mean of
    1{a}/propensity: 1 where the propensities are right. chance: the p-value of the ratio. rows: (levels,) decisions.
    whole: (actions,) p-values of all levels together. total: that of all cells together: many small deviations, none of
    which stands out; effect: their root mean square, relative to what was expected.
    """

    field: str
    levels: Levels
    drawn: Floats
    expected: Floats
    ratio: Floats
    chance: Floats
    whole: Floats
    total: float
    effect: float
    rows: Longs

    @property
    def least(self) -> float:
        """The smallest p-value, corrected for the number of cells (Bonferroni)."""
        return min(1.0, float(self.chance.min(initial=1.0)) * self.chance.size)


def cells_of(columns: Columns) -> list[Cells]:
    """Every field of the context. Decisions without randomisation say nothing and are left out.

    >>> from simulator.logs.example import example
    >>> [cells.field for cells in cells_of(example())]
    ['segment', 'device', 'age']
    """
    columns = some_decisions(columns, MOST_CELLS)
    levels = [fine_levels(name, field) for name, field in columns.fields.items()]
    if columns.pmf is None:
        return [_from_weights(columns, one) for one in levels]
    return _from_pmfs(columns, levels)


def fine_levels(name: str, field: Field) -> Levels:
    """Each value of its own, as far as there are not too many; numbers with more of them in bins.

    >>> from simulator.logs.columns import Number
    >>> fine_levels("floor", Number(np.array([1.0, 2.0, 7.0]))).codes(Number(np.array([2.0, 7.0]))).tolist()
    [1, 2]
    """
    if isinstance(field, Category):
        return levels_of(name, field, MOST_LEVELS)
    values = np.unique(field.values[~np.isnan(field.values)])
    if len(values) > MOST_LEVELS:
        edges = np.unique(np.quantile(field.values[~np.isnan(field.values)], np.linspace(0, 1, MOST_BINS + 1)[1:-1]))
    else:
        edges = values[:-1]
    return Levels(name, np.zeros(0, np.int32), edges, len(edges) + 2)


def some_decisions(columns: Columns, most: int) -> Columns:
    """The decisions that were randomised; of a long log some, drawn at random: decisions x actions are at most `most`.

    >>> from simulator.logs.example import example
    >>> len(some_decisions(example(), 2))
    1
    """
    random = np.flatnonzero(columns.propensity < 1.0)
    size = min(len(random), max(1, most // max(1, len(columns.actions))))
    if size == len(columns):
        return columns
    chosen = np.random.default_rng(len(random)).choice(random, size, replace=False, shuffle=False)
    return columns.take(np.sort(chosen))  # no stride: a log may have a period


def _from_pmfs(columns: Columns, levels: Sequence[Levels]) -> list[Cells]:
    """Counts against what the pmfs foretell: a draw adds 1 - p or takes p away, so its variance is known."""
    actions = len(columns.actions)
    expected, variance = ([np.zeros((one.count, actions)) for one in levels] for _ in range(2))
    for _, block in columns.blocks():
        pmf = block.dense_pmf()
        spread = pmf * (1.0 - pmf)
        for one, sums, squares in zip(levels, expected, variance, strict=True):
            codes = one.codes(block.fields[one.name])
            sums += _sums_by(codes, pmf, one.count)
            squares += _sums_by(codes, spread, one.count)
    found = []
    for one, sums, squares in zip(levels, expected, variance, strict=True):
        drawn, rows = _draws(columns, one)
        ratio = np.divide(drawn, sums, out=np.ones_like(sums), where=sums > 0)
        chance = freedman(drawn - sums, variance=squares, largest=np.ones_like(sums))
        whole = freedman((drawn - sums).sum(axis=0), variance=squares.sum(axis=0), largest=np.ones(sums.shape[1]))
        total, effect = _pearson(drawn, sums)
        found.append(Cells(one.name, one, drawn, sums, ratio, chance, whole, total, effect, rows))
    return found


def _sums_by(codes: Longs, values: Floats, count: int) -> Floats:
    """(count, actions): sums of the (n, actions) values by code."""
    order = np.argsort(codes, kind="stable")
    present = np.bincount(codes, minlength=count)
    starts = np.cumsum(present) - present
    sums = np.zeros((count, values.shape[1]))
    sums[present > 0] = np.add.reduceat(values[order], starts[present > 0], axis=0)
    return sums


def _draws(columns: Columns, one: Levels) -> tuple[Floats, Longs]:
    """(levels, actions) draws, and (levels,) decisions."""
    actions = len(columns.actions)
    codes = one.codes(columns.fields[one.name])
    drawn = np.bincount(codes * actions + columns.action, minlength=one.count * actions).reshape(one.count, actions)
    return drawn.astype(np.float64), drawn.sum(axis=1)


def _from_weights(columns: Columns, one: Levels) -> Cells:
    """The mean of 1{a}/propensity, which is 1, or less where `a` could not always be drawn: only more is an alarm."""
    actions = len(columns.actions)
    drawn, rows = _draws(columns, one)
    codes = one.codes(columns.fields[one.name])
    at, weights = codes * actions + columns.action, 1.0 / columns.propensity
    shape, size = (one.count, actions), one.count * actions
    weight = np.bincount(at, weights=weights, minlength=size).reshape(shape)
    spread = np.bincount(at, weights=weights * (weights - 1.0), minlength=size).reshape(shape)
    largest = np.zeros(size)
    np.maximum.at(largest, at, weights)
    heaviest = largest.reshape(shape)
    chances = _chances(columns, codes, one.count)
    ratio = np.divide(weight, chances, out=np.ones(shape), where=chances > 0)
    excess, variance = weight - chances, spread / np.clip(ratio, 1e-9, 1.0)
    chance = np.where(excess > 0, freedman(excess, variance=variance, largest=heaviest), 1.0)
    sums = excess.sum(axis=0)
    whole = freedman(np.maximum(sums, 0.0), variance=variance.sum(axis=0), largest=heaviest.max(axis=0))
    share = np.divide(drawn.sum(axis=0), max(1.0, float(drawn.sum())))
    expected = chances * share
    total, effect = _one_sided(excess, variance, expected, chances)
    return Cells(one.name, one, drawn, expected, ratio, chance, whole, total, effect, rows)


def _pearson(drawn: Floats, expected: Floats) -> tuple[float, float]:
    """The p-value of Pearson's statistic, and the mean effect. Rare cells of a level count together.

    Where pmfs differ between the decisions of a cell, counts vary less than multinomial ones, so it is an upper bound.
    """
    some = expected >= ENOUGH_DRAWS
    rest_drawn, rest = (np.where(some, 0.0, one).sum(axis=1) for one in (drawn, expected))
    statistic = float((((drawn - expected) ** 2)[some] / expected[some]).sum())
    often = rest >= ENOUGH_DRAWS
    statistic += float(((rest_drawn - rest) ** 2 / np.where(often, rest, 1.0))[often].sum())
    freedom = int(np.maximum(some.sum(axis=1) + often - 1, 0).sum())
    beyond = max(0.0, statistic - freedom) / max(1.0, float(expected.sum()))
    return (float(chdtrc(freedom, statistic)) if freedom else 1.0), sqrt(beyond)


def _one_sided(excess: Floats, variance: Floats, expected: Floats, chances: Floats) -> tuple[float, float]:
    """The same of mean weights, of those above 1 alone: below 1 they may be, where an action was not eligible.

    The sum of the squares of the positive ones of n normal deviates has the mean n / 2 and the variance 5 n / 4; a
    gamma distribution with these takes the place of the mixture of chi-squares (Silvapulle & Sen, 2005, section 3.4).
    """
    some = (expected >= ENOUGH_DRAWS) & (variance > 0)
    squares = np.maximum(excess[some], 0.0) ** 2
    count, statistic = int(some.sum()), float((squares / variance[some]).sum())
    by_chance = min(1.0, 0.5 * count / statistic) if statistic else 1.0
    both_sides = 2 * float((squares / chances[some]).sum()) * (1 - by_chance)
    effect = sqrt(both_sides / max(1.0, float(chances[some].sum())))
    return (float(gammaincc(0.2 * count, statistic / 2.5)) if count else 1.0), effect


def _chances(columns: Columns, codes: Longs, count: int) -> Floats:
    """(levels, actions): decisions in which the action was eligible."""
    sets = len(columns.sets)
    by_set = np.bincount(codes * sets + columns.eligible, minlength=count * sets).reshape(count, sets)
    return np.asarray(by_set @ columns.member.astype(np.float64))


def name_of_level(field: Field, levels: Levels, level: int) -> str:
    """A level in words.

    >>> field = Category.of(["web", "app", ""])
    >>> [name_of_level(field, levels_of("device", field, 20), level) for level in (0, 2)]
    ["'web'", 'not given']
    """
    if level == levels.count - 1:
        return "not given" if isinstance(field, Category) and len(field.values) < levels.count else "rare or not given"
    if isinstance(field, Category):
        return repr(field.values[int(np.flatnonzero(levels.level[:-1] == level)[0])])
    edges = levels.edges
    if level == 0:
        return f"up to {figure(float(edges[0]))}" if len(edges) else "any"
    if level == len(edges):
        return f"above {figure(float(edges[-1]))}"
    return f"above {figure(float(edges[level - 1]))}, up to {figure(float(edges[level]))}"
