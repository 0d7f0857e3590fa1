"""The `decider_` metrics of the daily archive run. Called by the server's registry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class ArchiveRuns(Protocol):
    """What is known of the runs. last_success: seconds since 1970; 0: none yet. failures: of this process's runs."""

    @property
    def last_success(self) -> float:
        """See above."""

    @property
    def failures(self) -> int:
        """See above."""


class ArchiveCollector(Collector):
    """Zeros where no archive is set."""

    def __init__(self, runs: ArchiveRuns) -> None:
        self._runs = runs

    def describe(self) -> list[Metric]:
        """Nothing, so that registering reads nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families."""
        yield GaugeMetricFamily(
            "decider_archive_last_success_time_seconds",
            "When old decisions were last moved to the archive, in seconds since 1970; 0: never yet.",
            value=self._runs.last_success,
        )
        yield CounterMetricFamily(
            "decider_archive_failures", "Daily archive runs of this process that failed.", value=self._runs.failures
        )
