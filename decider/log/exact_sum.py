"""A sum of floats without rounding: it does not depend on the order, nor on where it was interrupted.

So counting from the start and going on from a checkpoint give the same bits. Called by the totals of every log.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

_SMALLEST = 1074
"""2**-1074 is the smallest float: every float is a whole multiple of it."""

_BEYOND = 1 << (_SMALLEST + 1024)
"""The first multiple that no float reaches; it stands for infinity."""


@dataclass(frozen=True, slots=True)
class ExactSum:
    """units: multiples of 2**-1074.

    >>> total = ExactSum.of(1e16) + ExactSum.of(1.0, count=3) + ExactSum.of(-1e16)
    >>> float(total)
    3.0
    >>> ExactSum.from_pair(total.pair()) == total
    True
    """

    units: int = 0

    @classmethod
    def of(cls, value: float, count: int = 1) -> Self:
        """A float, so many times. Not for NaN."""
        if math.isinf(value):
            return cls(int(math.copysign(_BEYOND, value)))
        numerator, denominator = value.as_integer_ratio()
        return cls(count * numerator * (1 << _SMALLEST) // denominator)

    @classmethod
    def of_scaled(cls, number: int, exponent: int) -> Self:
        """number * 2**exponent, for exponents from -1074.

        >>> float(ExactSum.of_scaled(3, -1))
        1.5
        """
        return cls(number << (exponent + _SMALLEST))

    def __add__(self, other: ExactSum) -> ExactSum:
        return ExactSum(self.units + other.units)

    def __float__(self) -> float:
        """The nearest float; infinity beyond the largest."""
        try:
            return self.units / (1 << _SMALLEST)  # the division of whole numbers rounds correctly
        except OverflowError:
            return math.inf if self.units > 0 else -math.inf

    def pair(self) -> tuple[int, int]:
        """The shortest (number, exponent), to be stored as text.

        >>> ExactSum.of(0.75).pair()
        (3, -2)
        """
        if not self.units:
            return 0, 0
        zeros = (self.units & -self.units).bit_length() - 1
        return self.units >> zeros, zeros - _SMALLEST

    @classmethod
    def from_pair(cls, pair: tuple[int, int]) -> Self:
        """The opposite of `pair`."""
        return cls.of_scaled(*pair)


ZERO = ExactSum()

DIGITS = (1, -31, -65)
"""Exponents of the three whole numbers into which a float is cut."""


def digits_of(value: float) -> tuple[int, int, int] | None:
    """A float as upper * 2 + lower * 2**-31 + rest * 2**-65, as SQL cuts it (`sqlite/exact_sums.py`); None: it cannot.

    >>> digits_of(3.5), digits_of(2.0**40)
    ((1, 3221225472, 0), None)
    """
    if abs(value) >= 2.0**32:
        return None
    scaled = value * 2.0**31
    whole = int(scaled)
    rest = (scaled - whole) * 2.0**34
    return (whole >> 32, whole & (2**32 - 1), int(rest)) if rest == int(rest) else None
