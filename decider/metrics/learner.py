"""The metrics of a process that learns: which experiments; and beside another process's leader, how far it is behind.
Called by the server's registry.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from decider.types import ExperimentId

SEAL_LAG = "decider_seal_lag_seconds"
SEAL_LAG_HELP = "How long the oldest decision is due to be sealed and learned."


class LearnsCollector(Collector):
    """learned: the experiments that this process learns."""

    def __init__(self, learned: Callable[[], Collection[ExperimentId]]) -> None:
        self._learned = learned

    def describe(self) -> list[Metric]:
        """Nothing, so that registering calls nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """One family."""
        learns = GaugeMetricFamily("decider_learns", "1: this process learns the experiment.", labels=("experiment",))
        for id_ in sorted(self._learned()):
            learns.add_metric((id_,), 1.0)
        yield learns


class LagCollector(Collector):
    """lag: of a learner that does not lead, in seconds. The leader's comes from the log."""

    def __init__(self, lag: Callable[[], float]) -> None:
        self._lag = lag

    def describe(self) -> list[Metric]:
        """Nothing, so that registering calls nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """One family."""
        yield GaugeMetricFamily(SEAL_LAG, SEAL_LAG_HELP, value=self._lag())
