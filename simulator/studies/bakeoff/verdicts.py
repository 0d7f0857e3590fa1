"""Results -> is our default better than a rival, worse, or not told apart? Called by `table.py` and `plot.py`.

All rivals of a cell (a world, immediate or delayed rewards, a horizon) are one family: their intervals hold together,
so that they hold for the best of them, too, which is known only afterwards. `together` corrects for the number of
cells.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from simulator.compare.paired import Comparison, paired
from simulator.studies.bakeoff.before import BEFORE
from simulator.studies.bakeoff.plan import DEFAULT, LABELS, OTHERS
from simulator.studies.bakeoff.power import smallest_told
from simulator.studies.bakeoff.results import SeedResult
from simulator.worlds.world import Floats

LEVEL = 0.95
BETTER, EVEN, WORSE = "better", "not told apart", "worse"
"""Our default, against a rival."""

UNKNOWN = "one seed"
"""There is no interval, so nothing is said."""


class Cell(NamedTuple):
    """Where policies are compared."""

    world: str
    delayed: bool
    horizon: int


Shares = Mapping[str, Mapping[int, float]]
"""Of one cell: policy -> seed -> share."""


@dataclass(frozen=True, slots=True)
class Against:
    """Our default less a rival, over the seeds that both played, with an interval that holds for all rivals at once.

    p: two-sided, for all rivals of the cell at once. error: standard error of the difference. With one seed these and
    the interval are nan.
    """

    policy: str
    ours: float
    theirs: float
    low: float
    high: float
    conclusion: str
    p: float
    error: float
    seeds: int

    @property
    def difference(self) -> float:
        """Of the mean shares."""
        return self.ours - self.theirs

    @property
    def told_from(self) -> float:
        """The smallest true difference that this interval would tell from none with 80 % probability."""
        if not self.error > 0:
            return self.error
        return smallest_told(self.error, critical=(self.high - self.low) / 2 / self.error, seeds=self.seeds)

    def told_among(self, tests: int) -> float:
        """The same, corrected for so many tests (Bonferroni, as Holm's first one is)."""
        if not self.error > 0:
            return self.error
        critical = float(student.ppf(1 - (1 - LEVEL) / (2 * tests), self.seeds - 1))
        return smallest_told(self.error, critical=critical, seeds=self.seeds)


def cells(rows: Iterable[SeedResult]) -> dict[Cell, Shares]:
    """All that was played, in the order of worlds, immediate first, horizons."""
    found: dict[Cell, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        if row.share == row.share:  # nan where nothing can be attained
            found[Cell(row.world, row.delayed, row.horizon)][row.policy][row.seed] = row.share
    return {cell: found[cell] for cell in sorted(found)}


def against_rivals(shares: Shares) -> list[Against]:
    """Of one cell, in the order of the tables.

    Slow rivals played fewer seeds. Rivals with the same seeds share a family; families share the error in proportion
    to their sizes (Bonferroni), so that all intervals still hold together with probability 0.95.
    """
    families: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for policy in OTHERS:
        common = sorted(shares.get(policy, {}).keys() & shares.get(DEFAULT, {}).keys())
        if common:
            families[tuple(common)].append(policy)
    count = sum(map(len, families.values()))
    found = [
        one
        for seeds, policies in families.items()
        for one in _family(shares, policies, seeds, part=len(policies) / count)
    ]
    order = list(LABELS)
    return sorted(found, key=lambda one: order.index(one.policy))


def _family(shares: Shares, policies: list[str], seeds: tuple[int, ...], *, part: float) -> list[Against]:
    """part: of the cell's error that these rivals may make."""
    names = [DEFAULT, *policies]
    values = np.array([[shares[name][seed] for seed in seeds] for name in names])
    means = values.mean(axis=1).tolist()
    compared = paired(values, names, reference=0, level=1 - (1 - LEVEL) * part)
    errors = _errors(values[0] - values[1:])
    return [
        Against(
            policy=one.name,
            ours=means[0],
            theirs=theirs,
            low=-one.high,
            high=-one.low,
            conclusion=_conclude(one),
            p=min(one.p_adjusted / part, 1.0) if one.p_adjusted == one.p_adjusted else math.nan,
            error=error,
            seeds=len(seeds),
        )
        for one, theirs, error in zip(compared, means[1:], errors, strict=True)
    ]


def _errors(differences: Floats) -> list[float]:
    """(rivals, seeds) -> standard errors of the means; nan with one seed."""
    seeds = differences.shape[1]
    if seeds < 2:
        return [math.nan] * len(differences)
    errors: list[float] = (differences.std(axis=1, ddof=1) / math.sqrt(seeds)).tolist()
    return errors


def _conclude(rival: Comparison) -> str:
    """What is said of the rival, said of our default."""
    if math.isnan(rival.low):
        return UNKNOWN
    return {BETTER: WORSE, WORSE: BETTER}.get(rival.conclusion, EVEN)


def best(found: Iterable[Against]) -> Against | None:
    """The rival that our default has the most trouble with."""
    return min(found, key=lambda one: one.difference, default=None)


def verdict(found: Sequence[Against]) -> str:
    """Of a cell: better than all its rivals, or worse than any of them, each told apart; the correction is for the
    rivals of that cell alone."""
    conclusions = {one.conclusion for one in found}
    for decisive in (WORSE, UNKNOWN):
        if decisive in conclusions:
            return decisive
    return conclusions.pop() if len(conclusions) == 1 else EVEN


Verdicts = Mapping[Cell, Sequence[Against]]


def together(verdicts: Verdicts) -> dict[Cell, str]:
    """What is said of each cell, so that with probability 0.95 nothing of it is wrong: Holm's correction for the number
    of cells. Cells with one seed are not asked."""
    claims = {cell: _claim(found) for cell, found in verdicts.items() if found}
    told = {cell: UNKNOWN for cell, (_, p) in claims.items() if math.isnan(p)}
    asked = sorted([cell for cell in claims if cell not in told], key=lambda cell: claims[cell][1])
    rejected = True
    for place, cell in enumerate(asked):
        conclusion, p = claims[cell]
        rejected = rejected and p * (len(asked) - place) <= 1 - LEVEL
        told[cell] = conclusion if rejected else EVEN
    return told


def _claim(found: Sequence[Against]) -> tuple[str, float]:
    """What a cell would say, with its p: that some rival is ahead, or that none is, for which all must be beaten; nan
    where one that nothing is known of has to be."""
    asked = [one for one in found if not math.isnan(one.p)]
    ahead = [one.p for one in asked if one.difference < 0]
    if ahead:
        return WORSE, min(ahead)
    return BETTER, max([one.p for one in asked]) if len(asked) == len(found) else math.nan


@dataclass(frozen=True, slots=True)
class Change:
    """The mean share over all cells of a horizon: ours, before, and the difference with its 95 % interval."""

    ours: float
    before: float
    low: float
    high: float


def changes(found: Mapping[Cell, Shares]) -> dict[int, Change]:
    """Of each horizon where the default before played all cells, too. Seeds are paired over all cells at once, since
    worlds of one seed share their luck."""
    changed = {}
    for horizon in sorted({cell.horizon for cell in found}):
        there = [shares for cell, shares in found.items() if cell.horizon == horizon]
        played = [set(shares.get(policy, {})) for shares in there for policy in (DEFAULT, BEFORE)]
        seeds = sorted(set.intersection(*played))
        if seeds:
            values = np.mean([[[one[p][seed] for seed in seeds] for p in (BEFORE, DEFAULT)] for one in there], axis=0)
            (one,) = paired(values, [BEFORE, DEFAULT], reference=0)
            before, ours = values.mean(axis=1).tolist()
            changed[horizon] = Change(ours, before, one.low, one.high)
    return changed
