"""Columns and numbers -> importance weights, or the error that names what is wrong. Called by every estimator here.

The checks are minimum and maximum of a column (both are nan where a number is): a few passes, no temporary array. The
rows are searched only once it is known that one is bad.
"""

from __future__ import annotations

import math

import numpy as np

from decider.estimate.sample import Floats

SMALLEST = float(np.finfo(np.float64).smallest_normal)
"""A propensity below this counts as 0: the weight would be infinite."""

MOST = 1 + 1e-9
"""Largest probability: sums of floats (the pmf of a group of actions) may end slightly above 1."""

LARGEST = float(np.finfo(np.float64).max)


class BadArgument(ValueError):
    """An unusable argument: its name, and the first row that is wrong (from 0).

    >>> str(BadArgument("reward", "is nan, which is not a finite number", row=3))
    'reward[3] is nan, which is not a finite number'
    """

    def __init__(self, argument: str, problem: str, row: int | None = None) -> None:
        super().__init__(argument, problem, row)
        self.argument = argument
        self.problem = problem
        self.row = row

    def __str__(self) -> str:
        place = "" if self.row is None else f"[{self.row}]"
        return f"{self.argument}{place} {self.problem}"


class PropensityError(BadArgument):
    """A propensity outside (0, 1] or a pmf outside [0, 1]."""


def weight(*, propensity: float, pmf: float) -> float:
    """The importance weight pmf / propensity of one decision; exactly 1 where the two are the same.

    >>> weight(propensity=0.25, pmf=0.5)
    2.0
    >>> weight(propensity=0.0, pmf=0.5)
    Traceback (most recent call last):
    decider.estimate.checks.PropensityError: propensity is 0.0, which is not in (0, 1]
    """
    if not SMALLEST <= propensity <= MOST:
        raise PropensityError("propensity", f"is {propensity}, which is not in (0, 1]")
    if not 0 <= pmf <= MOST:
        raise PropensityError("pmf", f"is {pmf}, which is not in [0, 1]")
    return pmf / propensity


def weights(*, propensity: Floats, pmf: Floats) -> Floats:
    """The importance weights pmf / propensity of many decisions. propensity, pmf: (n,); raises PropensityError.

    >>> weights(propensity=np.array([0.5, 0.25]), pmf=np.array([0.5, 0.5])).tolist()
    [1.0, 2.0]
    """
    _one_per_row(propensity.size, propensity=propensity, pmf=pmf)
    if not _within(propensity, SMALLEST, MOST):
        row = _first(propensity, SMALLEST, MOST)
        raise PropensityError("propensity", f"is {propensity[row]}, which is not in (0, 1]", row)
    if not _within(pmf, 0, MOST):
        row = _first(pmf, 0, MOST)
        raise PropensityError("pmf", f"is {pmf[row]}, which is not in [0, 1]", row)
    return pmf / propensity


def finite(**numbers: float) -> None:
    """Raises BadArgument where one of the named numbers is nan or infinite."""
    for name, number in numbers.items():
        if not math.isfinite(number):
            raise BadArgument(name, f"is {number}, which is not a finite number")


def finite_columns(rows: int, **columns: Floats) -> None:
    """Raises BadArgument where a named column is not (rows,) or one of its numbers is nan or infinite.

    >>> finite_columns(2, reward=np.array([1.0, np.nan]))
    Traceback (most recent call last):
    decider.estimate.checks.BadArgument: reward[1] is nan, which is not a finite number
    """
    _one_per_row(rows, **columns)
    for name, column in columns.items():
        if not _within(column, -LARGEST, LARGEST):
            row = _first(column, -LARGEST, LARGEST)
            raise BadArgument(name, f"is {column[row]}, which is not a finite number", row)


def same(name: str, one: float, other: float) -> None:
    """Raises BadArgument where two estimators that are to be merged differ in a parameter."""
    if one != other:
        raise BadArgument(name, f"is {one} here and {other} there: these estimate different things")


def _one_per_row(rows: int, **columns: Floats) -> None:
    for name, column in columns.items():
        if column.shape != (rows,):
            raise BadArgument(name, f"has shape {column.shape} where others have {rows} rows")


def _within(column: Floats, low: float, high: float) -> bool:
    return not column.size or bool(low <= column.min() and column.max() <= high)


def _first(column: Floats, low: float, high: float) -> int:
    return int(np.argmin((column >= low) & (column <= high)))
