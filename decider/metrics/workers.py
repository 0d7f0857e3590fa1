"""The metrics of several workers: which of them serve. Called by `server/crew.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


class WorkerState(NamedTuple):
    """Whether it serves, and how many processes of it have started."""

    up: bool
    starts: int


class WorkerFamilies:
    """See Source. states: of the workers, from the first on; none where one process does all."""

    def __init__(self, states: Callable[[], Sequence[WorkerState]]) -> None:
        self._states = states

    def collect(self) -> Iterator[Metric]:
        """All families."""
        up = GaugeMetricFamily("decider_worker_up", "1 while the worker serves, 0 while not.", labels=("worker",))
        starts = CounterMetricFamily(
            "decider_worker_starts", "Processes of the worker that have started.", labels=("worker",)
        )
        for number, state in enumerate(self._states(), 1):
            up.add_metric((str(number),), float(state.up))
            starts.add_metric((str(number),), state.starts)
        yield from (up, starts)
