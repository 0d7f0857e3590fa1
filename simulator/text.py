"""Figures and names as people read them. Called by the page and the plots, so that both say the same."""

from __future__ import annotations

import math
import re
import unicodedata
from decimal import Decimal

DIGITS = 4
"""Significant digits of every figure that is not a count."""

NOTHING = "-"
"""Stands for what is not a number, infinite or not known."""

_STEERING = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNPRINTABLE = ("Cc", "Cn", "Cs", "Zl", "Zp")


def figure(x: float | None) -> str:
    """A number with four significant digits, written out unless it is very small or very large.

    >>> [figure(x) for x in (0.00455288, 123.0, 1639.50, 12_345_678, 0.0, -2e-7, float("inf"), None)]
    ['0.004553', '123', '1,640', '12,350,000', '0', '-0.0000002', '-', '-']
    >>> figure(5e-324), figure(1.5e300)
    ('4.941e-324', '1.5e+300')
    """
    if x is None or not math.isfinite(x):
        return NOTHING
    rounded = f"{x:.{DIGITS}g}"
    return f"{Decimal(rounded) + 0:,f}" if x == 0 or 1e-9 < abs(x) < 1e15 else rounded


def signed(x: float | None) -> str:
    """A difference: what is more has a plus.

    >>> signed(0.0012), signed(-3.0), signed(0.0), signed(None)
    ('+0.0012', '-3', '0', '-')
    """
    return f"+{figure(x)}" if x is not None and 0 < x < math.inf else figure(x)


def between(low: float, high: float) -> str:
    """An interval in words.

    >>> between(0.002, 0.0071), between(-math.inf, 0.2), between(-math.inf, math.nan)
    ('0.002 to 0.0071', '- to 0.2', '-')
    """
    return _joined(figure(low), figure(high))


def signed_between(low: float, high: float) -> str:
    """The interval of a difference.

    >>> signed_between(-0.002, 0.0071)
    '-0.002 to +0.0071'
    """
    return _joined(signed(low), signed(high))


def _joined(low: str, high: str) -> str:
    return NOTHING if low == high == NOTHING else f"{low} to {high}"


def count(n: int) -> str:
    """A whole number, exactly.

    >>> count(1234567)
    '1,234,567'
    """
    return f"{n:,}"


def share(x: float | None) -> str:
    """A part of a whole, as percent with at most three digits.

    >>> share(0.0125), share(1.0), share(1 / 3), share(4e-7), share(4e-12), share(None)
    ('1.25 %', '100 %', '33.3 %', '0.00004 %', '0 %', '-')
    """
    if x is None or not math.isfinite(x):
        return NOTHING
    return f"{Decimal(f'{100 * round(x, 9):.3g}') + 0:f} %"


def duration(hours: float) -> str:
    """Hours, or days where there are many.

    >>> duration(0.5), duration(30), duration(168), duration(float("nan"))
    ('30 minutes', '30 hours', '7 days', '-')
    """
    if not math.isfinite(hours):
        return NOTHING
    if hours < 1:
        return f"{hours * 60:.3g} minutes"
    return f"{hours:.3g} hours" if hours < 72 else f"{hours / 24:.3g} days"


def printable(text: str) -> str:
    """A name that came with a log, without what a page or an SVG could not hold or what would turn its direction.

    >>> printable("a\\x00b\\ud800\\u202ec\\nd é 日本 \U0001f457")
    'a\ufffdb\ufffd\ufffdc d é 日本 \U0001f457'
    """
    spaced = re.sub(r"\s+", " ", text)
    return "".join(
        "\ufffd" if char in _STEERING or unicodedata.category(char) in _UNPRINTABLE else char for char in spaced
    )


def cells(text: str) -> int:
    """Width in columns of a terminal: wide characters take two.

    >>> cells("abc"), cells("日本")
    (3, 4)
    """
    return sum(map(_cells, text))


def _cells(char: str) -> int:
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def shortened(text: str, width: int) -> str:
    """At most `width` columns: the middle goes, since names often differ at their ends.

    >>> shortened("banner-summer-2024-variant-a", 16), shortened("short", 16)
    ('banner-su…iant-a', 'short')
    """
    text = printable(text)
    if cells(text) <= width:
        return text
    tail = _fitting(text[::-1], (width - 1) * 2 // 5)[::-1]
    return f"{_fitting(text, width - 1 - cells(tail))}…{tail}"


def _fitting(text: str, width: int) -> str:
    """The longest beginning that is not wider."""
    used = 0
    for index, char in enumerate(text):
        used += _cells(char)
        if used > width:
            return text[:index]
    return text
