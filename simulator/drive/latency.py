"""Seconds of calls -> percentiles. Called by `live.py`."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np

SHOWN = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99_9": 99.9, "max": 100.0}


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Seconds that so many calls took at most; each is one that was measured."""

    calls: int
    p50: float
    p90: float
    p99: float
    p99_9: float
    max: float


def percentiles(seconds: array[float]) -> Percentiles | None:
    """None of no calls.

    >>> from array import array
    >>> percentiles(array("d", [3.0, 1.0, 2.0]))
    Percentiles(calls=3, p50=2.0, p90=3.0, p99=3.0, p99_9=3.0, max=3.0)
    """
    if not seconds:
        return None
    values = np.percentile(np.array(seconds), list(SHOWN.values()), method="inverted_cdf").tolist()
    return Percentiles(len(seconds), *values)
