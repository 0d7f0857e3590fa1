"""The `decider_` gauges of this process: its clock, models that still learn, features of the serving models.

They are not counted from the log; `collector.py` has those that are. Called by the server's registry.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from decider.learn.leader import Progress
from decider.learn.left_out import LeaveOuts, not_over
from decider.serving.current import Current
from decider.types import ExperimentId


class StateCollector(Collector):
    """offset: seconds by which the wall clock is ahead of log time. progress: versions that wait for their models.
    held: experiments whose learning the guard holds now. leave_outs: what models leave out."""

    def __init__(
        self,
        current: Current,
        *,
        offset: Callable[[], float],
        progress: Callable[[], Sequence[Progress]],
        held: Collection[ExperimentId] = (),
        leave_outs: LeaveOuts | None = None,
    ) -> None:
        self._current = current
        self._offset = offset
        self._progress = progress
        self._held = held
        self._leave_outs = leave_outs

    def describe(self) -> list[Metric]:
        """Nothing, so that registering calls nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families."""
        yield GaugeMetricFamily(
            "decider_clock_offset_seconds",
            "By how much the wall clock is ahead of log time; far from 0 it is not believed.",
            value=self._offset(),
        )
        yield self._waiting()
        yield self._learning_held()
        if self._leave_outs is not None:
            yield from self._left_out(self._leave_outs)
        yield self._features()

    def _waiting(self) -> Metric:
        family = GaugeMetricFamily(
            "decider_learning_entries",
            "Log entries that a model still has to learn before its version serves.",
            labels=("experiment",),
        )
        for one in self._progress():
            family.add_metric((one.experiment,), one.head - one.position)
        return family

    def _learning_held(self) -> Metric:
        family = GaugeMetricFamily(
            "decider_learning_held",
            "1 while nothing is learned, since rewards are missing beyond doubt; 0 otherwise.",
            labels=("experiment",),
        )
        for serving in self._current.all():
            id_ = serving.version.experiment.id
            family.add_metric((id_,), float(id_ in self._held))
        return family

    def _left_out(self, leave_outs: LeaveOuts) -> Iterator[Metric]:
        said = CounterMetricFamily(
            "decider_leave_outs",
            "Entries that leave something out of learning or take that back: rollbacks, the guard's, a person's.",
            labels=("experiment",),
        )
        open_ = GaugeMetricFamily(
            "decider_open_leave_outs",
            "Of these, the ones that are not over: nothing is learned meanwhile.",
            labels=("experiment",),
        )
        for serving in self._current.all():
            id_ = serving.version.experiment.id
            entries = leave_outs.of(id_)
            said.add_metric((id_,), len(entries))
            open_.add_metric((id_,), len(not_over(entries)))
        yield from (said, open_)

    def _features(self) -> Metric:
        family = GaugeMetricFamily(
            "decider_model_features",
            "Features that the serving model knows, and names that it has left out for want of room.",
            labels=("experiment", "state"),
        )
        for serving in self._current.all():
            vocabulary = serving.model.policy.vocabulary()
            if vocabulary is not None:
                family.add_metric((serving.version.experiment.id, "known"), vocabulary.known)
                family.add_metric((serving.version.experiment.id, "left_out"), vocabulary.left_out)
        return family
