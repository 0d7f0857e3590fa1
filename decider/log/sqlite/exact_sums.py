"""Exact sums of floats in SQL: see ExactSum. Called by `totals.py`.

SQL's `sum` of floats rounds at every row, so its result depends on where the counting was interrupted. Sums of whole
numbers do not round. So a float is cut into four whole numbers, each of which is added up:

    value = whole + first * 2**-31 + second * 2**-62 + third * 2**-96

A value that they do not represent (2**32 and more, or finer than 2**-96) makes a group of its own.
"""

from __future__ import annotations

from typing import Any

from decider.log.exact_sum import ExactSum

_LIMIT = f"{2.0**32}"
"""2**31 values below it can be added in 63 bits."""

_EXPONENTS = {"whole": 0, "first": -31, "second": -62, "third": -96}


def sum_columns(value: str, name: str) -> str:
    """Columns to be read by `exact_sum`; group by `{name}_odd`, too.

    value: SQL for a float or null; a short one, since it is written out many times.
    """
    small = f"iif(abs({value}) < {_LIMIT}, {value}, 0.0)"
    whole = f"cast({small} as integer)"
    # Nothing rounds here: powers of two only move the point, and what is taken away are leading digits.
    fraction = f"(({small} - {whole}) * {2.0**62!r})"
    upper = f"cast({fraction} as integer)"
    rest = f"(({fraction} - {upper}) * {2.0**34!r})"
    third = f"cast({rest} as integer)"
    return ", ".join(
        [
            f"sum({whole}) as {name}_whole",
            f"sum({upper} >> 31) as {name}_first",
            f"sum({upper} & {2**31 - 1}) as {name}_second",
            f"sum({third}) as {name}_third",
            f"case when abs({value}) < {_LIMIT} and {rest} = {third} then null else {value} end as {name}_odd",
        ]
    )


def exact_sum(row: Any, name: str) -> ExactSum:
    """The sum in a row with the columns of `sum_columns` and `count`. A sum over no value is 0."""
    odd = row[f"{name}_odd"]
    if odd is not None:
        return ExactSum.of(odd, row["count"])
    digits = [ExactSum.of_scaled(row[f"{name}_{digit}"] or 0, exponent) for digit, exponent in _EXPONENTS.items()]
    return ExactSum(sum(digit.units for digit in digits))
