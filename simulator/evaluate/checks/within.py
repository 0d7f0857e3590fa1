"""Does a field go with the action among decisions of equal reward? Called by `checks/leaks.py`.

A field made of the outcome alone goes with the action only through the reward, so the association is gone within it;
a field that the draws depended on goes with the action whatever the reward.
"""

from __future__ import annotations

import numpy as np
from scipy.special import chdtrc

from decider.estimate.sample import Floats, Longs
from simulator.evaluate.checks.balance import Cells
from simulator.logs.columns import Columns

STRATA = 4
"""Of the reward, by its quantiles; rewards that are equal are in one."""


ENOUGH = 3
"""Counts a cell, on average."""


def association_within(columns: Columns, cells: Cells) -> float:
    """The p-value of: level and action are independent within every stratum of the reward (chi-square, summed up).

    >>> from simulator.evaluate.checks.balance import cells_of
    >>> from simulator.logs.example import example
    >>> association_within(example(), cells_of(example())[0])
    1.0
    """
    levels, actions = cells.drawn.shape
    stratum = _strata(columns.reward)
    at = (stratum * levels + cells.levels.codes(columns.fields[cells.field])) * actions + columns.action
    counts = np.bincount(at, minlength=(int(stratum.max(initial=0)) + 1) * levels * actions)
    tables = counts.reshape(-1, levels, actions).astype(np.float64)
    found = [_chi_square(table) for table in tables]
    freedom = sum(degrees for _, degrees in found)
    return float(chdtrc(freedom, sum(statistic for statistic, _ in found))) if freedom else 1.0


def _strata(reward: Floats) -> Longs:
    edges = np.unique(np.quantile(reward, np.linspace(0, 1, STRATA + 1)[1:-1])) if len(reward) else np.zeros(0)
    return np.searchsorted(edges, reward).astype(np.int64)


def _chi_square(table: Floats) -> tuple[float, int]:
    """Pearson's statistic of a table, and its degrees of freedom; rare rows and columns are put together."""
    table = _joined(_joined(table).T).T
    total, rows, columns = table.sum(), table.sum(axis=1), table.sum(axis=0)
    if min(table.shape) < 2:
        return 0.0, 0
    expected = np.outer(rows, columns) / total
    return float(((table - expected) ** 2 / expected).sum()), (len(rows) - 1) * (len(columns) - 1)


def _joined(table: Floats) -> Floats:
    """Rows with too few counts for a chi-square as one row; empty ones are none."""
    sums = table.sum(axis=1)
    rare = sums < ENOUGH * table.shape[1]
    rows = np.vstack([table[~rare], table[rare].sum(axis=0, keepdims=True)])
    return np.asarray(rows[rows.sum(axis=1) > 0])
