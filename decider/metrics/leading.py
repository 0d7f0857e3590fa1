"""Whether a process leads its log. Called by the registry at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class LeadsCollector(Collector):
    """leads: whether it does, without asking anybody."""

    def __init__(self, leads: Callable[[], bool]) -> None:
        self._leads = leads

    def collect(self) -> Iterator[Metric]:
        """The family."""
        family = GaugeMetricFamily("decider_leads", "1 while this server seals, learns and publishes, 0 while not.")
        family.add_metric((), float(self._leads()))
        yield family
