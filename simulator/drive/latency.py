"""Seconds of calls -> percentiles. Called by `live.py`."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np

SHOWN = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99_9": 99.9, "max": 100.0}
CURVE = tuple([round(100 * (1 - 10 ** (-step / 25)), 6) for step in range(101)])
"""Percent, from 0 to 99.99, closer and closer: what is drawn of the whole distribution."""


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Seconds that so many calls took at most; each is one that was measured. curve: at each of CURVE."""

    calls: int
    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float
    curve: tuple[float, ...] = field(default=(), repr=False)


def percentiles(seconds: array[float]) -> Percentiles | None:
    """None of no calls.

    >>> from array import array
    >>> percentiles(array("d", [3.0, 1.0, 2.0]))
    Percentiles(calls=3, p50=2.0, p90=3.0, p99=3.0, p99_9=3.0, max=3.0)
    """
    if not seconds:
        return None
    values = np.percentile(np.array(seconds), [*SHOWN.values(), *CURVE], method="inverted_cdf").tolist()
    p50, p90, p99, p99_9, longest, *curve = values
    return Percentiles(len(seconds), p50, p90, p99, p99_9, longest, tuple(curve))
