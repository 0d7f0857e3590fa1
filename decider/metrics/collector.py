"""The `decider_` metrics that come from the log: every name, help text and label in one place."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from decider.experiment.definition import ExperimentVersion
from decider.learn.left_out import LeaveOuts, knows_until
from decider.log.protocol import LogReader, Mark
from decider.log.totals import ALL, DELAY_BUCKETS, Labels, LabelTotals
from decider.metrics.alarms import alarm_metrics
from decider.metrics.learner import SEAL_LAG, SEAL_LAG_HELP
from decider.metrics.lift import exploration_metrics, lift_metrics
from decider.metrics.missing_rewards import Watches, sums_by_name
from decider.metrics.shared_totals import SharedTotals
from decider.serving.current import Current
from decider.types import ExperimentId, Position, Time

MICROSECONDS = 1e6

LOOK_EVERY = 10.0
"""Seconds between two looks at rewards without a scrape."""

KEEP_ENDED = 86_400.0
"""Seconds of log time after the last window of an experiment that has ended: so long the metrics still tell of it."""


class LogCollector(Collector):
    """Reads the log up to its end at every scrape. lag: seconds of log time that are sealed and not learned. forget:
    called with every experiment that is left out, since it ended long ago. leave_outs: what models leave out."""

    def __init__(
        self,
        log: LogReader,
        totals: SharedTotals,
        current: Current,
        *,
        clock: Callable[[], Time],
        lag: Callable[[], float] = lambda: 0.0,
        forget: Callable[[ExperimentId], object] = lambda _: None,
        leave_outs: LeaveOuts | None = None,
    ) -> None:
        self._log = log
        self._totals = totals
        self._current = current
        self._clock = clock
        self._learning_lag = lag
        self._forget = forget
        self._leave_outs = leave_outs or LeaveOuts(log)
        self._rewards = Watches()
        self._next_look = time.monotonic() + LOOK_EVERY

    def describe(self) -> list[Metric]:
        """Nothing, so that registering does not read the log."""
        return []

    @property
    def missing_rewards(self) -> Mapping[Labels, float]:
        """The evidence that rewards have stopped, as of the last look, by experiment, name and group."""
        return self._rewards.found

    def look_at_rewards(self) -> None:
        """So that it is known also where nobody scrapes. The leader calls it often. Raises LogError."""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_EVERY
            with self._totals.read() as counted:
                self._rewards.look_at_names(counted.totals)

    def collect(self) -> Iterator[Metric]:
        """All families."""
        ended = self._current.ended.copy()
        with self._totals.read() as counted:
            past = _past(counted.totals, ended, self._clock())
            totals = counted.totals.without(past)
            serving = [one.version for one in self._current.all()]
            from_totals = [*_counters(totals, serving), _rewards(totals, counted.refused), _delays(totals)]
            from_totals += [*_shares(totals, ended), *lift_metrics(totals.lift)]
            from_totals += [*alarm_metrics(totals, self._log.version_at, serving)]
            from_totals += [*self._rewards.look(totals)]
            from_totals += exploration_metrics(totals.exploration)
            end = counted.mark
        for id_ in past:
            self._forget(id_)
        return iter([*from_totals, *self._gauges(end), *self._sizes()])

    def _gauges(self, end: Mark) -> Iterator[Metric]:
        now = self._clock()
        models = [(s.version, s.model.position) for s in self._current.all()]
        positions = {(version.experiment.id,): position for version, position in models}
        ages = {
            (version.experiment.id,): (now - (self._knows_until(version, position) or version.time)) / MICROSECONDS
            for version, position in models
        }
        holdouts = {(s.version.experiment.id,): s.version.experiment.control_share for s in self._current.all()}
        yield _gauge("decider_holdout_ratio", "Share of units in the holdout, as declared.", ("experiment",), holdouts)
        windows = {
            (s.version.experiment.id,): s.version.experiment.reward.window / MICROSECONDS for s in self._current.all()
        }
        yield _gauge("decider_window_seconds", "How long a decision waits for rewards.", ("experiment",), windows)
        yield _gauge(
            "decider_experiment_info", "What serves: 1.", ("experiment", "version", "state", "learning", "policy"),
            {_info_labels(s.version): 1.0 for s in self._current.all()},
        )  # fmt: skip
        yield _gauge("decider_model_position", "Log position that the model has learned.", ("experiment",), positions)
        yield _gauge("decider_model_age_seconds", "Age of the newest that it knows.", ("experiment",), ages)
        yield _gauge(
            SEAL_LAG,
            SEAL_LAG_HELP,
            (),
            {(): self._lag(now, end)},
        )
        yield _gauge("decider_log_position", "Entries in the log.", (), {(): end.position})

    def _knows_until(self, version: ExperimentVersion, position: Position) -> Time:
        id_ = version.experiment.id
        return knows_until(self._log, id_, position, self._leave_outs.of(id_))

    def _sizes(self) -> Iterator[Metric]:
        sizes = self._log.sizes()
        files = {("database",): sizes.database, ("wal",): sizes.wal, ("models",): sizes.models}
        yield _gauge("decider_log_bytes", "Bytes of the log's files, and of the models in it.", ("file",), files)
        if sizes.free is not None:
            yield _gauge("decider_disk_free_bytes", "Bytes free on the log's disk.", (), {(): sizes.free})

    def _lag(self, now: Time, end: Mark) -> float:
        """The longer of two: a decision is due and no entry has sealed it; it is sealed and not learned."""
        first = self._log.next_deadline(after=end.time)
        due = 0.0 if first is None else (now - first) / MICROSECONDS
        return max(0.0, due, self._learning_lag())


def _info_labels(version: ExperimentVersion) -> tuple[str, ...]:
    """One series at a time: a dashboard marks where it changes."""
    experiment = version.experiment
    serves = "active" if experiment.fallback is None else "baseline"
    state = "paused" if experiment.paused else serves
    return (experiment.id, str(version.number), state, str(experiment.learning), experiment.policy.algorithm)


def _past(totals: LabelTotals, ended: Mapping[ExperimentId, Time], now: Time) -> set[ExperimentId]:
    """Ended experiments of which nothing new is to be told."""
    open_ = totals.open_decisions()  # an earlier version's window may have been longer
    return {id_ for id_, over in ended.items() if now - over > KEEP_ENDED * MICROSECONDS and not open_[id_,]}


def _counters(totals: LabelTotals, serving: Sequence[ExperimentVersion]) -> Iterator[Metric]:
    action, name, group = ("experiment", "action"), ("experiment", "name"), ("experiment", "group")
    yield _counter("decider_decisions", "Decisions.", ("experiment", "action", "reason"), totals.decisions)
    yield _counter(
        "decider_inverse_propensity", "Sum of 1/propensity over draws of the action.", action,
        totals.inverse_propensity,
    )  # fmt: skip
    never = {(one.experiment.id, id_): 0 for one in serving for id_ in one.all_active}
    yield _counter("decider_possible", "Draws from a pmf that could give the action.", action, never | totals.possible)
    yield _counter("decider_reward_value", "Sum of the rewards' values, as sent.", name, totals.values)
    yield _counter("decider_reward_squared_value", "Sum of the rewards' squared values.", name, totals.squared_values)
    yield _counter("decider_sealed", "Decisions whose declared window is over.", group, totals.sealed)
    yield _counter("decider_sealed_default", "Of these, without any reward.", group, totals.defaulted)
    rewarded = {key: count for key, count in sums_by_name(totals).items() if key[1] != ALL}
    yield _counter(
        "decider_sealed_rewarded", "Of these, with a reward of the name in time.", ("experiment", "name", "group"),
        rewarded,
    )  # fmt: skip
    by_name = ("experiment", "name", "group")
    yield _counter(
        "decider_sealed_value", "Sum of their rewards of the name, unweighted.", by_name, totals.sealed_values
    )
    yield _counter(
        "decider_sealed_squared_value", "Sum of the squares of what each has of the name.", by_name,
        totals.squared_sealed_values,
    )  # fmt: skip
    yield _counter("decider_sealed_overridden", "Of these, where another action was shown.", group, totals.overridden)
    yield _counter(
        "decider_sealed_activated", "Of these, with a word in time that it was shown.", group, totals.activated
    )
    yield _counter(
        "decider_sealed_not_activated", "Decisions left out: their experiment counts only activated ones.", group,
        totals.not_activated,
    )  # fmt: skip
    yield _counter("decider_sealed_reward", "Sum of their final rewards.", group, totals.sealed_reward)
    yield _counter(
        "decider_sealed_squared_reward", "Sum of their squared final rewards.", group,
        totals.squared_sealed_reward,
    )  # fmt: skip


def _rewards(totals: LabelTotals, refused: Mapping[tuple[str, str], int]) -> Metric:
    # The log keeps only name and number of refused rewards, so their label `experiment` is empty.
    others = {("", name, outcome): count for (name, outcome), count in refused.items()}
    labels = ("experiment", "name", "outcome")
    return _counter("decider_rewards", "Rewards sent, by what became of them.", labels, totals.rewards | others)


def _delays(totals: LabelTotals) -> Metric:
    family = HistogramMetricFamily(
        "decider_reward_delay_seconds", "Seconds from decision to reward.", labels=("experiment",)
    )
    bounds = [*map(str, map(float, DELAY_BUCKETS)), "+Inf"]
    for (experiment,), microseconds in totals.delay.items():
        counts = [totals.delays[experiment, str(index)] for index in range(len(bounds))]
        buckets = list(zip(bounds, accumulate(counts), strict=True))
        family.add_metric((experiment,), buckets, microseconds / MICROSECONDS)
    return family


def _shares(totals: LabelTotals, ended: Collection[str]) -> Iterator[Metric]:
    unsealed = {key: count for key, count in totals.open_decisions().items() if key[0] not in ended}
    yield _gauge("decider_open_decisions", "Decisions whose declared window is not over.", ("experiment",), unsealed)
    weights = {
        key: float(totals.inverse_propensity[key]) / count
        for key, count in totals.possible.items()
        if count and key[0] not in ended
    }
    yield _gauge(
        "decider_weight_mean", "Mean of 1{action drawn}/propensity; 1 on average, but far from it by chance alone.",
        ("experiment", "action"), weights,
    )  # fmt: skip


def _counter(name: str, text: str, labels: tuple[str, ...], values: Any) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, float(value))
    return family


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Any) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family
