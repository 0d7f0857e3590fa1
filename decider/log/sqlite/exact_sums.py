"""Exact sums of floats in SQL: see ExactSum. Called by `totals.py`.

SQL's `sum` of floats rounds at every row, so its result depends on where the counting was interrupted. Sums of whole
numbers do not round. So a float is cut into three whole numbers, each of which is added up:

    value = upper * 2 + lower * 2**-31 + rest * 2**-65

A value that they do not represent (2**32 and more, or finer than 2**-65) makes a group of its own.
"""

from __future__ import annotations

from typing import Any

from decider.log.exact_sum import DIGITS, ExactSum

_EXPONENTS = dict(zip(("upper", "lower", "rest"), DIGITS, strict=True))


def sum_columns(value: str, name: str) -> str:
    """Columns to be read by `exact_sum`; group by `{name}_odd`, too.

    value: SQL for a float or null; a short one, since it is written out many times.
    """
    # For values below 2**32 nothing rounds here: powers of two only move the point, and what is taken away are leading
    # digits. For larger ones the numbers mean nothing, but are still so small that 2**29 of them can be added.
    scaled = f"({value} * {2.0**31})"
    whole = f"cast({scaled} as integer)"
    rest = f"(({scaled} - {whole}) * {2.0**34})"
    return ", ".join(
        [
            f"sum({whole} >> 32) as {name}_upper",
            f"sum({whole} & {2**32 - 1}) as {name}_lower",
            f"sum(cast({rest} as integer) % {2**34}) as {name}_rest",
            f"case when abs({value}) < {2.0**32} and {rest} = cast({rest} as integer) then null else {value} end "
            f"as {name}_odd",
        ]
    )


def exact_sum(row: Any, name: str) -> ExactSum:
    """The sum in a row with the columns of `sum_columns` and `count`. A sum over no value is 0."""
    odd = row[f"{name}_odd"]
    if odd is not None:
        return ExactSum.of(odd, row["count"])
    digits = [ExactSum.of_scaled(row[f"{name}_{digit}"] or 0, exponent) for digit, exponent in _EXPONENTS.items()]
    return ExactSum(sum(digit.units for digit in digits))
