"""The one reader and writer of durations as people write them: "10m", "1h30m", "7d". Imports nothing of ours.

Called for experiment files (`experiment/shape.py`) and for the ages of `decider archive` and `--archive-after`.
"""

from __future__ import annotations

import re
from itertools import pairwise

MICROSECONDS = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000}
"""Of each unit; the longest comes first."""

LONGEST = 36_500 * MICROSECONDS["d"]
"""Microseconds: times beyond could not be stored."""

EXAMPLES = '"10m", "1h30m", "7d", "600s" or "500ms"'

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])", re.ASCII)
_UNITS = [*MICROSECONDS]


def microseconds_of(text: str) -> int | None:
    """Of a duration; None where it is none, or more than 36500d.

    >>> [microseconds_of(text) for text in ("10m", "1h30m", "1.5h", "90s", "500ms", " 7d ")]
    [600000000, 5400000000, 5400000000, 90000000, 500000, 604800000000]
    >>> [microseconds_of(text) for text in ("10", "m", "-5s", "30m1h", "1h1h", "soon", "9" * 400 + "d", "36501d")]
    [None, None, None, None, None, None, None, None]
    """
    text = text.strip()
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    # From the longest unit to the shortest, each once: "30m1h" is a slip more often than a wish.
    places = [_UNITS.index(unit) for _, unit in parts]
    if any(one >= next_ for one, next_ in pairwise(places)):
        return None
    total = sum(float(number) * MICROSECONDS[unit] for number, unit in parts)
    return round(total) if total <= LONGEST else None


def duration_text(microseconds: int) -> str:
    """The shortest text that `microseconds_of` reads as this duration, which is not below 0.

    >>> [duration_text(n) for n in (600_000_000, 5_400_000_000, 604_800_000_000, 1_500_000, 1, 0)]
    ['10m', '1h30m', '7d', '1s500ms', '0.001ms', '0s']
    """
    parts = []
    for unit, size in MICROSECONDS.items():
        if unit == "ms":
            break
        count, microseconds = divmod(microseconds, size)
        parts.append(f"{count}{unit}" if count else "")
    if microseconds:
        parts.append(f"{microseconds / MICROSECONDS['ms']:.10g}ms")
    return "".join(parts) or "0s"
