"""Figures and names as people read them: the only place that rounds for terminal, page, plots and findings, so that
the same number has the same digits everywhere."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

DIGITS = 4
"""Significant digits of every figure that is neither a count nor a share."""

ROUNDING_ERROR = 1e-9
"""A difference below it is what is left of two equal sums."""

NOTHING = "-"
"""Stands for what is not a number, infinite or not known."""

_UNITS = ((259_200.0, "days", 86_400.0), (3_600.0, "h", 3_600.0), (60.0, "min", 60.0), (-math.inf, "s", 1.0))
"""From so many seconds on, a unit and its seconds."""

_STEERING = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNPRINTABLE = ("Cc", "Cn", "Cs", "Zl", "Zp")


def time_text(at: int) -> str:
    """Log time (microseconds) for people, in whole seconds. One that no calendar has: in seconds since 1970.

    >>> time_text(61_000_000), time_text(-62_135_596_800_000_000), time_text(2**62)
    ('1970-01-01T00:01:01Z', '0001-01-01T00:00:00Z', '4611686018427 s after 1970')
    """
    try:
        return datetime.fromtimestamp(at / 1_000_000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return f"{at // 1_000_000} s after 1970"


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


def rough(x: float, *, digits: int = 2, written: Callable[[float], str] = figure) -> str:
    """A number with few significant digits, for sentences: "about 1,400". written: a number in words.

    >>> rough(1386.2), rough(0.03874, digits=3), rough(-96.0, written=signed), rough(math.inf)
    ('1,400', '0.0387', '-96', '-')
    """
    return written(float(f"{x:.{digits}g}"))


def signed(x: float | None) -> str:
    """A difference: a plus where it is positive, nothing before zero.

    >>> signed(0.0012), signed(-3.0), signed(-1e-17), signed(None)
    ('+0.0012', '-3', '0', '-')
    """
    if x is None or abs(x) < ROUNDING_ERROR:
        return figure(x and 0.0)
    return f"+{figure(x)}" if 0 < x < math.inf else figure(x)


def between(low: float, high: float, *, written: Callable[[float], str] = figure) -> str:
    """An interval in words. written: a number in words.

    >>> between(0.002, 0.0071), between(-math.inf, 0.2), between(-math.inf, math.nan)
    ('0.002 to 0.0071', '- to 0.2', '-')
    """
    ends = written(low), written(high)
    return NOTHING if ends == (NOTHING, NOTHING) else " to ".join(ends)


def signed_between(low: float, high: float) -> str:
    """The interval of a difference.

    >>> signed_between(-0.002, 0.0071)
    '-0.002 to +0.0071'
    """
    return between(low, high, written=signed)


def count(n: int) -> str:
    """A whole number, exactly.

    >>> count(1234567)
    '1,234,567'
    """
    return f"{n:,}"


def percent(x: float | None) -> str:
    """A part of a whole, as percent with at most three digits.

    >>> [percent(x) for x in (0.0125, 1.0, 1 / 3, 4e-7, 4e-12, None)]
    ['1.25 %', '100 %', '33.3 %', '0.00004 %', '0 %', '-']
    """
    if x is None or not math.isfinite(x):
        return NOTHING
    return f"{Decimal(f'{100 * round(x, 9):.3g}') + 0:f} %"


def signed_percent(x: float | None) -> str:
    """A difference of shares.

    >>> signed_percent(0.0125), signed_percent(-1 / 3), signed_percent(-4e-12), signed_percent(None)
    ('+1.25 %', '-33.3 %', '0 %', '-')
    """
    return f"+{percent(x)}" if x is not None and ROUNDING_ERROR <= x < math.inf else percent(x)


def duration(seconds: float) -> str:
    """A time in words, with at most three digits.

    >>> [duration(x) for x in (0.25, 90.0, 30 * 3_600.0, 7 * 86_400.0, math.nan)]
    ['0.25 s', '1.5 min', '30 h', '7 days', '-']
    """
    if not math.isfinite(seconds):
        return NOTHING
    unit, size = next((unit, size) for least, unit, size in _UNITS if seconds >= least)
    return f"{seconds / size:.3g} {unit}" if seconds < 1_000 * size else f"{seconds / size:,.0f} {unit}"


def more_decisions(now: int, *, value: float, enough: float) -> str:
    """How much more of the same logging would bring a figure that grows with the log to `enough`.

    >>> more_decisions(10_000, value=40.0, enough=200.0)
    'about 40,000 more decisions like these'
    >>> more_decisions(10_000, value=1e-320, enough=200.0)
    'more decisions; how many cannot be said from this log'
    """
    more = now * (enough / value - 1.0) if value > 0 else math.inf
    if not math.isfinite(more):
        return "more decisions; how many cannot be said from this log"
    return f"about {rough(math.ceil(more))} more decisions like these"


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
