"""Results -> is our default better than a rival, worse, or not told apart? Called by `table.py` and `plot.py`.

All rivals of a cell (a world, immediate or delayed rewards, a horizon) are one family: their intervals hold together,
so that they hold for the best of them, too, which is known only afterwards.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from simulator.compare.paired import Comparison, paired
from simulator.studies.bakeoff.plan import DEFAULT, LABELS, OTHERS
from simulator.studies.bakeoff.results import SeedResult

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
    """Our default less a rival, over the seeds that both played, with an interval that holds for all rivals at once."""

    policy: str
    ours: float
    theirs: float
    low: float
    high: float
    conclusion: str

    @property
    def difference(self) -> float:
        """Of the mean shares."""
        return self.ours - self.theirs


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
        for one in _family(shares, policies, seeds, level=1 - (1 - LEVEL) * len(policies) / count)
    ]
    order = list(LABELS)
    return sorted(found, key=lambda one: order.index(one.policy))


def _family(shares: Shares, policies: list[str], seeds: tuple[int, ...], *, level: float) -> list[Against]:
    names = [DEFAULT, *policies]
    values = np.array([[shares[name][seed] for seed in seeds] for name in names])
    means = values.mean(axis=1).tolist()
    compared = paired(values, names, reference=0, level=level)
    return [
        Against(one.name, means[0], theirs, -one.high, -one.low, _conclude(one))
        for one, theirs in zip(compared, means[1:], strict=True)
    ]


def _conclude(rival: Comparison) -> str:
    """What is said of the rival, said of our default."""
    if math.isnan(rival.low):
        return UNKNOWN
    return {BETTER: WORSE, WORSE: BETTER}.get(rival.conclusion, EVEN)


def best(found: Iterable[Against]) -> Against | None:
    """The rival that our default has the most trouble with."""
    return min(found, key=lambda one: one.difference, default=None)
