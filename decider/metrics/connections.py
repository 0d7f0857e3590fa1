"""How many connections the listeners of gRPC have. Called by the registry at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class ConnectionsCollector(Collector):
    """count: open now, by listener; empty where nobody knows. limits: the most at once."""

    def __init__(self, count: Callable[[], Mapping[str, int]], limits: Mapping[str, int]) -> None:
        self._count, self._limits = count, limits

    def collect(self) -> Iterator[Metric]:
        """Both families."""
        said = "Connections to a listener that are open, silent ones included (Linux only)."
        yield _family("decider_connections", said, self._count())
        yield _family("decider_connections_limit", "Connections to it that are possible at once.", self._limits)


def _family(name: str, text: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=("listener",))
    for listener, value in values.items():
        family.add_metric([listener], value)
    return family
