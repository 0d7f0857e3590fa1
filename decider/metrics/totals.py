"""The totals of a log by names and labels, read up to its end at every scrape. Called by `collector.py`.

Counting from position 0 and continuing from the last scrape are the same code, so totals survive a restart by
construction, and serving a call counts nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from decider.log.protocol import LogReader, Mark
from decider.log.totals import Totals
from decider.types import START, Position, Time

MAX_REWARD_NAMES = 50
"""Names of rewards that get a label of their own, for each experiment; the rest count as `other`."""

Labels = tuple[str, ...]


class LabelSums(dict[Labels, float]):
    """Sums by labels; a missing key reads as 0 and is not added by reading."""

    def __missing__(self, key: Labels) -> float:
        return 0.0


@dataclass(slots=True)
class LabelTotals:
    """Counts by labels; the labels are the tuple's parts in the order given."""

    decisions: Counter[Labels] = field(default_factory=Counter)  # experiment, action, reason
    inverse_propensity: LabelSums = field(default_factory=LabelSums)  # experiment, action; drawn from a pmf
    possible: Counter[Labels] = field(default_factory=Counter)  # experiment, action; its pmf was above 0
    rewards: Counter[Labels] = field(default_factory=Counter)  # experiment, name, outcome
    values: LabelSums = field(default_factory=LabelSums)  # experiment, name
    squared_values: LabelSums = field(default_factory=LabelSums)  # experiment, name
    delays: Counter[tuple[str, int]] = field(default_factory=Counter)  # experiment, index of bucket
    delay_seconds: LabelSums = field(default_factory=LabelSums)  # experiment
    sealed: Counter[Labels] = field(default_factory=Counter)  # experiment
    defaulted: Counter[Labels] = field(default_factory=Counter)  # experiment
    overridden: Counter[Labels] = field(default_factory=Counter)  # experiment
    sealed_reward: LabelSums = field(default_factory=LabelSums)  # experiment
    squared_sealed_reward: LabelSums = field(default_factory=LabelSums)  # experiment


class LogTotals:
    """Totals of a log up to a mark."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._begin()

    def _begin(self) -> None:
        self.mark = Mark(START, Time(0))
        self.totals = LabelTotals()
        self.refused: Mapping[tuple[str, str], int] = {}

    def catch_up(self) -> None:
        """Count the entries since the last call; where that fails half way, the next call counts from the start."""
        try:
            self._catch_up()
        except BaseException:
            self._begin()
            raise

    def _catch_up(self) -> None:
        mark = self._log.head().mark
        counted = self._log.totals(self.mark, mark)
        experiments = self._log.experiment_ids(counted.versions())
        self._add_decisions(counted, experiments)
        self._add_rewards(counted, experiments)
        self._add_sealed(counted, experiments)
        self.refused = self._log.refused_rewards()
        self.mark = mark

    def _add_decisions(self, counted: Totals, experiments: Mapping[Position, str]) -> None:
        totals = self.totals
        for (version, action, reason), count in counted.decisions.items():
            totals.decisions[experiments[version], action, reason] += count
        for (version, action), inverse in counted.inverse_propensity.items():
            totals.inverse_propensity[experiments[version], action] += inverse
        for (version, action), count in counted.possible.items():
            totals.possible[experiments[version], action] += count

    def _add_rewards(self, counted: Totals, experiments: Mapping[Position, str]) -> None:
        totals = self.totals
        for (version, name, joined), rewards in counted.rewards.items():
            experiment = experiments[version]
            label = self._reward_label(experiment, name)
            totals.rewards[experiment, label, "joined" if joined else "late"] += rewards.count
            totals.values[experiment, label] += rewards.value
            totals.squared_values[experiment, label] += rewards.squared
        for (version, bucket), count in counted.delays.items():
            totals.delays[experiments[version], bucket] += count
        for version, seconds in counted.delay_seconds.items():
            totals.delay_seconds[experiments[version],] += seconds

    def _reward_label(self, experiment: str, name: str) -> str:
        known = {label for owner, label in self.totals.values if owner == experiment}
        return name if name in known or len(known) < MAX_REWARD_NAMES else "other"

    def _add_sealed(self, counted: Totals, experiments: Mapping[Position, str]) -> None:
        totals = self.totals
        for version, sealed in counted.sealed.items():
            key = (experiments[version],)
            totals.sealed[key] += sealed.count
            totals.defaulted[key] += sealed.defaulted
            totals.overridden[key] += sealed.overridden
            totals.sealed_reward[key] += sealed.reward
            totals.squared_sealed_reward[key] += sealed.squared
