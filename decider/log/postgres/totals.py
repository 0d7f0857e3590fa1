"""Counts the totals of a log between two marks, entry by entry as they are read. Called by `reader.py`.

Slower than SQLite's counting in SQL (see decider/README.md); what is counted once is stored with the totals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from decider.experiment.definition import ExperimentVersion
from decider.experiment.strata import Stratum, measures_of_all, strata_of_all
from decider.log.count_entries import count_change, count_decision, count_ended, count_reward
from decider.log.postgres.connection import Connection, stream
from decider.log.postgres.sealed import ENDED, NOTHING_LATE, sealed_in
from decider.log.protocol import LoggedDecision, Mark, NewRewardChange
from decider.log.rows import DECISION, decision
from decider.log.totals import Totals, names_of
from decider.types import START, Position, RewardOutcome

_DECISIONS = f"""
select {DECISION.columns} from decisions where position > %(after)s and position <= %(until)s order by position
"""  # noqa: S608 - a constant
_REWARDS = """
select version, name, value, outcome, reward_time - decided as delay from (
  select j.*, j.time as reward_time, d.time as decided from joined_rewards j join decisions d on d.position = j.decision
  where j.position > %(after)s and j.position <= %(until)s) r
order by position
"""
_CHANGES = """
select version, name, value, outcome from joined_changes where position > %(after)s and position <= %(until)s
order by position
"""


class KnownGroups:
    """Strata and measures of all versions; made anew where there is a new version. versions: reads them all."""

    def __init__(self, versions: Callable[[], Sequence[ExperimentVersion]]) -> None:
        self._versions = versions
        self._last = START
        self._known: tuple[Mapping[Position, Stratum], Mapping[Position, Stratum]] = ({}, {})

    def up_to(self, last: Position) -> tuple[Mapping[Position, Stratum], Mapping[Position, Stratum]]:
        """Those of the versions up to the newest one, which is at `last`."""
        if last != self._last:
            versions = self._versions()
            self._known, self._last = (strata_of_all(versions), measures_of_all(versions)), last
        return self._known


def count_totals(
    connection: Connection,
    version_at: Callable[[Position], ExperimentVersion],
    groups: tuple[Mapping[Position, Stratum], Mapping[Position, Stratum]],
    *,
    after: Mark,
    until: Mark,
) -> Totals:
    """Everything in (after, until], in the caller's transaction. groups: strata and measures by version."""
    totals, (strata, measures) = Totals(), groups
    span = {"after": after.position, "until": until.position}
    for row in stream(connection, _DECISIONS, span, DECISION):
        version = version_at(row.version)
        logged = LoggedDecision(row.position, row.time, decision(row, version.all_active))
        count_decision(totals, logged, names_of(version), measures[row.version].first)
    for row in stream(connection, _REWARDS, span):
        outcome = RewardOutcome(row["outcome"])
        count_reward(totals, row["version"], row["name"], row["value"], outcome, row["delay"])
    for row in stream(connection, _CHANGES, span):
        change = NewRewardChange(START, "", row["value"], row["name"])
        count_change(totals, change, row["name"], row["version"], in_time=row["outcome"] != RewardOutcome.LATE)
    ended = {"after": after.time, "until": until.time, "late": NOTHING_LATE.position, "late_time": NOTHING_LATE.time}
    sql, row_type = ENDED
    for sealed in sealed_in(stream(connection, sql, ended, row_type), version_at):
        position = sealed.decision.version
        count_ended(totals, sealed, version_at(position), strata.get(position), measures[position])
    return totals
