"""The tables of entries: their columns, the key that may refuse a row, and entries as rows.

Called by `writer.py`, `migrations.py` and `check.py`; nothing else writes these columns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from decider.experiment.definition import Experiment, ExperimentVersion
from decider.experiment.schema import definition_text
from decider.log.chain import EntryRow, digest, link, real
from decider.log.protocol import (
    Entry,
    Head,
    NewActivation,
    NewBuild,
    NewLeaveOut,
    NewLink,
    NewModel,
    NewRecall,
    NewReward,
    NewRewardChange,
    NewSeal,
    NewUnitReward,
    NewVersion,
    NewVersionNote,
    NewWithheld,
    Serves,
    Tick,
)
from decider.types import Decision, Position, Time

MOST_AT_ONCE = 200
"""Entries that one statement writes."""


class EntryTable:
    """A table with a row for each entry of one kind; `kind` and `columns` are what the chain covers.

    A column that is added changes the digest of every old row: its migration has to chain the log anew, as the upgrade
    of a log from before the chain does (`migrations.py`), or `verify` calls all old rows changed.

    unique: the columns or expressions of the key by which a row that was written before is refused; any other clash is
    an error.
    """

    def __init__(self, kind: str, name: str, columns: str, *, unique: str = "") -> None:
        self.kind = kind
        self.name = name
        self.columns = tuple(columns.split())
        self.unique = unique

    def _place_of(self, column: str) -> str:
        return "(select id from signatures where signature = ?)" if column == "signature" else "?"

    @cached_property
    def insert(self) -> str:
        """The statement for one row: position, time, then the columns."""
        return self.insert_many(1)

    @lru_cache  # noqa: B019 - the tables are constants
    def insert_many(self, count: int) -> str:
        """The statement for so many rows."""
        refused = f" on conflict ({self.unique}) do nothing" if self.unique else ""
        return f"{self._insert} {', '.join([self._row] * count)}{refused}"

    @cached_property
    def insert_new(self) -> str:
        """The statement for one row that no other may refuse: any clash is an error."""
        return f"{self._insert} {self._row}"

    @property
    def _insert(self) -> str:
        return f"insert into {self.name} ({', '.join(['position', 'time', *self.columns])}) values"

    @property
    def _row(self) -> str:
        return f"({', '.join(['?', '?', *map(self._place_of, self.columns)])})"

    @cached_property
    def select(self) -> str:
        """Position, time, then the columns, of rows beyond a position and up to another, in order."""
        columns = ", ".join(
            "(select s.signature from signatures s where s.id = e.signature)" if name == "signature" else name
            for name in ("position", "time", *self.columns)
        )
        return f"select {columns} from {self.name} e where position > ? and position <= ? order by position"  # noqa: S608


EXPERIMENTS = EntryTable(
    "experiment",
    "experiments",
    "experiment number definition window default_reward minimum_reward maximum_reward aggregation waits",
    unique="experiment, number",
)
VERSION_NOTES = EntryTable("version_note", "version_notes", "version author source note", unique="version")
DECISIONS = EntryTable(
    "decision",
    "decisions",
    "version decision_id unit_id segment device channel location intent_stage features eligible action_features pmf "
    "action propensity reason model build",
    unique="decision_id",
)
REWARDS = EntryTable(
    "reward",
    "rewards",
    "decision name value weight reward_id occurred_at",
    unique="decision, reward_id",
)
REWARD_CHANGES = EntryTable(
    "reward_change",
    "reward_changes",
    "decision reward value occurred_at",
    unique="reward, ifnull(value, 'retracted'), ifnull(occurred_at, 'now')",
)
SEALS = EntryTable("seal", "seals", "decision version", unique="decision")
UNIT_REWARDS = EntryTable(
    "unit_reward",
    "unit_rewards",
    "unit_id experiment name value reward_id occurred_at last",
    unique="unit_id, reward_id",
)
LINKS = EntryTable("link", "links", "unit_id same_as", unique="unit_id, same_as")
LEAVE_OUTS = EntryTable(
    "leave_out",
    "leave_outs",
    "experiment sealed_after sealed_until replaces author reason",
    unique="replaces",
)
ACTIVATIONS = EntryTable("activation", "activations", "decision action", unique="decision")
RECALLS = EntryTable("recall", "recalls", "decision seen_after seen_until seen_time", unique="decision")
WITHHELD = EntryTable("withheld", "withheld", "decision rules", unique="decision")
SERVES = EntryTable("serves", "serves", "version", unique="version")
PUBLISHED_MODELS = EntryTable(
    "model", "published", "experiment signature model learned", unique="experiment, signature, model"
)
BUILDS = EntryTable("build", "builds", "build")
TICKS = EntryTable("tick", "ticks", "")

INTERN_SIGNATURE = "insert into signatures (signature) values (?) on conflict (signature) do nothing"
"""Before a row of PUBLISHED_MODELS, which then looks up the signature's id."""

ENTRY_TABLES = (
    EXPERIMENTS,
    VERSION_NOTES,
    DECISIONS,
    REWARDS,
    REWARD_CHANGES,
    SEALS,
    UNIT_REWARDS,
    LINKS,
    LEAVE_OUTS,
    ACTIVATIONS,
    RECALLS,
    WITHHELD,
    SERVES,
    PUBLISHED_MODELS,
    BUILDS,
    TICKS,
)


json_text = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
"""One text for one value. (`json.dumps` would make an encoder for each.)"""


def decision_row(decision: Decision, version: ExperimentVersion, build: Position | None) -> EntryRow:
    """The row of a decision; an eligible set that is all active actions is left out."""
    context = decision.context
    all_active = decision.eligible == version.all_active
    return (
        decision.version,
        decision.decision_id,
        decision.unit_id,
        context.segment or None,
        context.device or None,
        context.channel or None,
        context.location or None,
        context.intent_stage or None,
        json_text(context.features) if context.features else None,
        None if all_active else json_text(decision.eligible),
        json_text(decision.action_features) if decision.action_features else None,
        str([*decision.pmf]).replace(" ", ""),  # a quarter less than joining the numbers
        decision.action,
        decision.propensity + 0.0,
        decision.reason,
        decision.model,
        build,
    )


class DecisionRows:
    """The rows of new decisions. version_at: see LogReader. build: position of the NewBuild that they name."""

    def __init__(self, version_at: Callable[[Position], ExperimentVersion]) -> None:
        self._version_at = version_at
        self._last: ExperimentVersion | None = None
        self.build: Position | None = None

    def version_of(self, decision: Any) -> ExperimentVersion:
        """The version that a decision names."""
        version = self._last  # of the decision before: in most commits they have one version
        if version is None or version.position != decision.version:
            version = self._last = self._version_at(decision.version)
        return version

    def row_of(self, decision: Any) -> EntryRow:
        """The row of a decision."""
        return decision_row(decision, self.version_of(decision), self.build)


def version_row(experiment: Experiment, number: int, *, waits: bool) -> EntryRow:
    """The row of an experiment version."""
    reward = experiment.reward
    return (
        experiment.id,
        number,
        definition_text(experiment),
        reward.window,
        real(reward.default),
        real(reward.minimum),
        real(reward.maximum),
        reward.aggregation,
        int(waits),
    )


PlainEntry = (
    NewReward
    | NewSeal
    | NewLink
    | NewLeaveOut
    | NewActivation
    | NewWithheld
    | NewRecall
    | NewVersion
    | NewVersionNote
    | Serves
    | NewModel
    | NewBuild
    | Tick
)
"""Every entry but a decision, whose row needs its version, a change of a reward, whose row needs the reward, a reward
by unit, whose row needs what is credited, and those that are only counted."""


def table_and_row(entry: PlainEntry) -> tuple[EntryTable, EntryRow]:
    """Where an entry is written, and its columns there."""
    match entry:
        case NewReward():
            value, weight = real(entry.value), real(entry.weight)
            return REWARDS, (entry.decision, entry.name, value, weight, entry.reward_id, entry.occurred_at)
        case NewSeal():
            return SEALS, (entry.decision, entry.version)
        case NewLink():
            return LINKS, (entry.unit, entry.same_as)
        case NewLeaveOut():
            return LEAVE_OUTS, (entry.experiment, entry.after, _end_column(entry), entry.replaces, "", "")
        case NewActivation():
            return ACTIVATIONS, (entry.decision, entry.action)
        case NewRecall():
            return RECALLS, (entry.decision, *entry.seen)
        case NewWithheld():
            return WITHHELD, (entry.decision, json_text(dict(entry.rules)))
        case NewVersion():
            return EXPERIMENTS, version_row(entry.experiment, entry.number, waits=entry.waits)
        case NewVersionNote():
            return VERSION_NOTES, (entry.version, *entry.origin)
        case Serves():
            return SERVES, (entry.version,)
        case NewModel():
            name = entry.name
            return PUBLISHED_MODELS, (name.experiment, name.signature, name.position, entry.learned)
        case NewBuild():
            return BUILDS, build_row(entry.build)
        case Tick():
            return TICKS, ()


MADE = 2**62
"""Microseconds. Taken from the end of what is left out where that is of when decisions were made: such an end lies so
far before 1970 that no other one is there."""


def _end_column(entry: NewLeaveOut) -> Time | None:
    return entry.until if entry.made_until is None else Time(entry.made_until - MADE)


def change_row(change: NewRewardChange, reward: Position) -> EntryRow:
    """The row of a change of the reward at a position."""
    value = None if change.value is None else real(change.value)
    return (change.decision, reward, value, change.occurred_at)


def unit_reward_row(reward: NewUnitReward, last: Position) -> EntryRow:
    """The row of a reward by unit. last: of the entries that belong to it."""
    row = (reward.unit, reward.experiment, reward.name, real(reward.value))
    return (*row, reward.reward_id, reward.occurred_at, last)


def build_row(build: Mapping[str, Any]) -> EntryRow:
    """The row of a build."""
    return (json_text(build),)


def parts(entries: list[Entry]) -> Iterator[list[Entry]]:
    """In pieces of at most MOST_AT_ONCE."""
    for first in range(0, len(entries), MOST_AT_ONCE):
        yield entries[first : first + MOST_AT_ONCE]


def head_after(head: Head, at: Time, kinds: Sequence[str], rows: Sequence[EntryRow]) -> Head:
    """The end of the log behind a commit of these rows."""
    first = Position(head.position + 1)
    linked = link(head.chain, first, at, digest(kinds, rows))
    return Head(Position(head.position + len(rows)), at, linked)


def overtaken(version: str) -> str:
    """The query whether a version serves no more that has served: the rules of `serving/lineup.py`. version: the
    database's placeholder for its position."""
    return f"""
select 1 from experiments old join experiments new on new.experiment = old.experiment and new.number > old.number
where old.position = {version} and (new.waits = 0 or exists (
  select 1 from serves where serves.version = new.position and not exists (
    select 1 from experiments newer
    where newer.experiment = new.experiment and newer.number > new.number and newer.position < serves.position
  )
)) limit 1
"""  # noqa: S608 - a placeholder
