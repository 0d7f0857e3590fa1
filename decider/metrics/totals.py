"""Everything that the log knows, counted: read from the log up to its end at every scrape.

Counting from position 0 or going on from the last scrape is the same code, so totals survive a restart by
construction, and the hot path counts nothing twice. Called by `collector.py`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from decider.experiment.definition import ExperimentVersion
from decider.log.protocol import Mark
from decider.log.sqlite.log import SqliteReader
from decider.types import START, Position, Time

DELAY_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 14400, 86400, 604800)
"""Seconds from decision to reward."""

MAX_REWARD_NAMES = 50
"""Names of rewards that get a label of their own, for each experiment; the rest count as `other`."""

_DRAWN = "('EXPLOIT', 'EXPLORE')"

_DECISIONS = """
select version, action, reason, count(*), sum(1.0 / propensity) from decisions
where position > ? and position <= ? group by version, action, reason
"""
_POSSIBLE = f"""
select version, eligible, key, count(*) from decisions, json_each(pmf)
where decisions.position > ? and decisions.position <= ? and reason in {_DRAWN} and value > 0
group by version, eligible, key
"""  # noqa: S608 - a constant
_REWARDS = """
select d.version, r.name, r.time < d.time + e.window, count(*), sum(r.value), sum(r.value * r.value)
from rewards r join decisions d on d.position = r.decision join experiments e on e.position = d.version
where r.position > ? and r.position <= ? group by 1, 2, 3 order by min(r.position)
"""
_DELAYS = f"""
select version, case {" ".join(f"when delay <= {seconds}e6 then {i}" for i, seconds in enumerate(DELAY_BUCKETS))}
  else {len(DELAY_BUCKETS)} end, count(*), sum(delay) / 1e6
from (select d.version, r.time - d.time as delay from rewards r join decisions d on d.position = r.decision
  where r.position > ? and r.position <= ?)
group by 1, 2
"""  # noqa: S608 - a constant
_SEALED = """
select count(*), coalesce(sum(rewards = 0), 0), coalesce(sum(overridden), 0), coalesce(sum(reward), 0),
  coalesce(sum(reward * reward), 0)
from sealed_decisions where version = ? and time > ? and time <= ?
"""

Labels = tuple[str, ...]


@dataclass(slots=True)
class Totals:
    """Counts by labels; the labels are the tuple's parts in the order given."""

    decisions: Counter[Labels] = field(default_factory=Counter)  # experiment, action, reason
    inverse_propensity: Counter[Labels] = field(default_factory=Counter)  # experiment, action; drawn from a pmf
    possible: Counter[Labels] = field(default_factory=Counter)  # experiment, action; its pmf was above 0
    rewards: Counter[Labels] = field(default_factory=Counter)  # name, outcome
    values: Counter[Labels] = field(default_factory=Counter)  # experiment, name
    squared_values: Counter[Labels] = field(default_factory=Counter)  # experiment, name
    delays: Counter[tuple[str, int]] = field(default_factory=Counter)  # experiment, index of bucket
    delay_seconds: Counter[Labels] = field(default_factory=Counter)  # experiment
    sealed: Counter[Labels] = field(default_factory=Counter)  # experiment
    defaulted: Counter[Labels] = field(default_factory=Counter)  # experiment
    overridden: Counter[Labels] = field(default_factory=Counter)  # experiment
    sealed_reward: Counter[Labels] = field(default_factory=Counter)  # experiment
    squared_sealed_reward: Counter[Labels] = field(default_factory=Counter)  # experiment


class LogTotals:
    """Totals of a log up to a mark."""

    def __init__(self, log: SqliteReader) -> None:
        self._log = log
        self._refused: list[tuple[str, str, int]] = []
        self.mark = Mark(START, Time(0))
        self.totals = Totals()

    def catch_up(self) -> None:
        """Count what has come since the last time; where that fails half way, begin again the next time."""
        try:
            self._catch_up()
        except BaseException:
            self.mark, self.totals = Mark(START, Time(0)), Totals()
            raise

    def _catch_up(self) -> None:
        end = self._log.end()
        span = (self.mark.position, end.position)
        versions = {v.position: v for v in self._log.versions()}
        names = {position: version.experiment.id for position, version in versions.items()}
        self._count_decisions(span, names)
        self._count_possible(span, versions)
        self._count_rewards(span, names)
        for version in versions.values():
            self._count_sealed(version, self.mark.time, end.time)
        self._refused = self._log.query("select name, outcome, count from refused_rewards")
        self.mark = end

    def refused(self) -> list[tuple[str, str, int]]:
        """Refused rewards: name, outcome, count."""
        return self._refused

    def _count_decisions(self, span: tuple[Position, Position], names: Mapping[Position, str]) -> None:
        for version, action, reason, count, inverse in self._log.query(_DECISIONS, span):
            self.totals.decisions[names[version], action, reason] += count
            if reason in _DRAWN:
                self.totals.inverse_propensity[names[version], action] += inverse

    def _count_possible(self, span: tuple[Position, Position], versions: Mapping[Position, ExperimentVersion]) -> None:
        for position, eligible, index, count in self._log.query(_POSSIBLE, span):
            version = versions[position]
            actions = json.loads(eligible) if eligible else version.all_active
            self.totals.possible[version.experiment.id, actions[index]] += count

    def _count_rewards(self, span: tuple[Position, Position], names: Mapping[Position, str]) -> None:
        totals = self.totals
        for version, name, joined, count, value, squared in self._log.query(_REWARDS, span):
            label = self._reward_label(names[version], name)
            totals.rewards[label, "joined" if joined else "late"] += count
            totals.values[names[version], label] += value
            totals.squared_values[names[version], label] += squared
        for version, bucket, count, seconds in self._log.query(_DELAYS, span):
            totals.delays[names[version], bucket] += count
            totals.delay_seconds[(names[version],)] += seconds

    def _reward_label(self, experiment: str, name: str) -> str:
        known = {label for owner, label in self.totals.values if owner == experiment}
        return name if name in known or len(known) < MAX_REWARD_NAMES else "other"

    def _count_sealed(self, version: ExperimentVersion, after: Time, until: Time) -> None:
        window = version.experiment.reward.window
        (row,) = self._log.query(_SEALED, (version.position, after - window, until - window))
        key = (version.experiment.id,)
        totals = self.totals
        counters = (
            totals.sealed,
            totals.defaulted,
            totals.overridden,
            totals.sealed_reward,
            totals.squared_sealed_reward,
        )
        for counter, amount in zip(counters, row, strict=True):
            counter[key] += amount
