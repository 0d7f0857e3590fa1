"""What is noted of the server every few seconds, and whether it was flat. Called by `__main__.py` and `plot.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from simulator.studies.load import quantile
from simulator.studies.served import (
    Served,
    count_descriptors,
    count_threads,
    file_bytes,
    resident_bytes,
    scrape,
)
from simulator.studies.soak.traffic import LOADED, Window

MS = 1000.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One interval. at: seconds since the start, at its end. cpu: processors that the server kept busy. Latencies: ms
    since a call was due. learning: entries that a version still has to learn before it serves. None: /metrics did
    not answer, or does not have it."""

    at: float
    rate: float
    p50: float
    p99: float
    longest: float
    rss: int
    cpu: float
    descriptors: int
    threads: int
    log: int
    wal: int
    scrape: float | None
    model_age: float | None
    seal_lag: float | None
    learning: float | None


def take_sample(server: Served, db: Path, window: Window, *, at: float, cpu: float) -> Sample:
    """Of the interval that has just ended. cpu: processor seconds of the server in it."""
    taken, latencies = window.ended - window.started, sorted(window.latencies)
    figures = _scraped(server)
    return Sample(
        at=at,
        rate=window.decided / taken,
        p50=MS * quantile(latencies, 0.5),
        p99=MS * quantile(latencies, 0.99),
        longest=MS * quantile(latencies, 1.0),
        rss=resident_bytes(server.pid),
        cpu=cpu / taken,
        descriptors=count_descriptors(server.pid),
        threads=count_threads(server.pid),
        log=file_bytes(db),
        wal=file_bytes(db, "-wal"),
        **figures,
    )


def _scraped(server: Served) -> dict[str, float | None]:
    try:
        found = scrape(server.http)
    except OSError:  # no answer: a gap in the plot
        return dict.fromkeys(("scrape", "model_age", "seal_lag", "learning"))
    return {
        "scrape": found.seconds,
        "model_age": found.value("decider_model_age_seconds", LOADED),
        "seal_lag": found.value("decider_seal_lag_seconds"),
        "learning": found.value("decider_learning_entries", LOADED),
    }


@dataclass(frozen=True, slots=True)
class Trend:
    """first, last: means over the first and the last third. slope: of a line through all samples, from the first one to
    the last, as a share of the mean: 0 is flat."""

    first: float
    last: float
    slope: float

    @property
    def ratio(self) -> float:
        """The last third over the first: 1 is flat."""
        return self.last / self.first if self.first else float("nan")


def trend(samples: Sequence[Sample], of: Callable[[Sample], float]) -> Trend:
    """Of one figure; NaN with fewer than three samples.

    >>> from types import SimpleNamespace as S
    >>> trend([S(at=3600.0 * n, rss=100.0) for n in range(6)], lambda one: one.rss)
    Trend(first=100.0, last=100.0, slope=0.0)
    """
    if len(samples) < 3:
        return Trend(float("nan"), float("nan"), float("nan"))
    times, values = np.array([one.at for one in samples]), np.array([of(one) for one in samples])
    third = len(samples) // 3
    slope = np.polyfit(times - times.mean(), values, 1)[0] * (times[-1] - times[0]) / values.mean()
    return Trend(fmean(values[:third]), fmean(values[-third:]), round(float(slope), 6))
