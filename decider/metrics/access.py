"""Whether the files of tokens and certificates can be read. Called by the registry at each scrape."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class AccessCollector(Collector):
    """problems: what is wrong with a file now, by its kind; empty where nothing is."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        self._problems = problems

    def collect(self) -> Iterator[Metric]:
        """The one family."""
        family = GaugeMetricFamily(
            "decider_access_problem",
            "1: the files of tokens or certificates cannot be read or are wrong; what they said before holds.",
            labels=("files",),
        )
        for files, problem in self._problems.items():
            family.add_metric([files], 1.0 if problem else 0.0)
        yield family
