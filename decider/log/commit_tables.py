"""What a database does inside the open transaction of a commit: the part of writing that knows tables.

Called by `entry_writer.py`, which knows what an entry means; `sqlite/` and `postgres/` implement it. Nobody else writes
while the transaction is open, so that what is read holds at the position that is written next.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from decider.experiment.attribution import OpenDecision, SameId
from decider.experiment.definition import ExperimentVersion
from decider.experiment.limits import Counts
from decider.log.chain import EntryRow
from decider.log.exposures import Exposure, ShownDecision
from decider.log.protocol import DirectReward, EarlyActivation, Mark, UnitRewardRef
from decider.log.tables import EntryTable
from decider.types import ActionId, DecisionId, ExperimentId, Position, RewardOutcome, Time


class CreditedReward(NamedTuple):
    """A reward that belongs to a reward by unit."""

    decision: Position
    position: Position
    name: str
    weight: float


class Inserted(NamedTuple):
    """What became of rows. refused: the indexes of those that the table's key refused. early: what was shown, by
    decision id, for decisions among them whose activation came first."""

    refused: Collection[int]
    early: Mapping[str, ActionId | None]


Place = tuple[Position, ActionId]
"""Of a decision, with the action drawn."""


class CommitTables(Protocol):
    """See above. persons: all units of one person."""

    def insert(self, table: EntryTable, rows: Sequence[EntryRow], last: Mark) -> Inserted:
        """Write rows behind the last entry, at its time; those that the key refuses leave no gap. Any other clash is an
        error of the database."""

    def fail(self, text: str) -> Exception:
        """An error of the database: nothing of the commit may stand."""

    def cut(self) -> Position:
        """The last entry that lies in an archive; 0 where none does."""

    def version_and_time(self, decision: Position) -> tuple[Position, Time]:
        """Of a decision that is there."""

    def has_any(self, ids: Sequence[DecisionId]) -> bool:
        """Whether one of these decisions is there."""

    def find_reward(self, decision: Position, reward_id: str) -> Position | None:
        """The reward of a decision with this id."""

    def count_refused(self, names: Sequence[str], outcome: RewardOutcome) -> None:
        """Count refused rewards by their names."""

    def early_places(self, activations: Sequence[EarlyActivation]) -> Mapping[str, Place]:
        """Those of the decisions that are there after all."""

    def remember_early(self, activation: EarlyActivation, at: Time) -> bool:
        """Whether it is the first one for its decision. Those that are too old or too many are dropped."""

    def units_of(self, unit: str) -> Sequence[str]:
        """All units of the person that a unit is."""

    def find_unit_reward(self, unit: str, persons: Sequence[str], reward_id: str) -> UnitRewardRef | None:
        """The reward with this id by a unit, or by another one of its person's."""

    def open_decisions(
        self, persons: Sequence[str], experiment: ExperimentId | None, at: Time
    ) -> Sequence[OpenDecision]:
        """The newest decisions of these units that a reward by unit may be credited to at a time."""

    def same_id(
        self, persons: Sequence[str], experiment: ExperimentId | None, at: Time, reward_id: str
    ) -> Sequence[SameId]:
        """The rewards with this id of these units' newest decisions, whose windows would be open at a time."""

    def by_decision(
        self, persons: Sequence[str], experiment: ExperimentId | None, at: Time, reward_id: str
    ) -> Sequence[DirectReward]:
        """The rewards with this id that named one of these units' newest decisions, whose windows would be open."""

    def credited_in_experiment(self, decision: Position, reward_id: str, name: str) -> tuple[Position, str] | None:
        """The reward by unit, and its name, that the experiment of a decision has under this id."""

    def credited_rewards(self, unit_reward: Position) -> Sequence[CreditedReward]:
        """What belongs to a reward by unit."""

    def join_persons(self, unit: str, same_as: str, person: Position) -> bool:
        """Make them one person, where they are not and it does not get too many units; whether that was done."""

    def kept_decision(self, experiment: ExperimentId, unit: str, at: Time) -> Position | None:
        """The position of the decision that a unit keeps at a time."""

    def assign(self, experiment: ExperimentId, unit: str, *, until: Time, decision: Position) -> None:
        """The unit keeps this decision from now on."""

    def end_assignment(self, decision: Position) -> None:
        """Delete the one to this decision, if its unit still keeps it."""

    def limit_counts(self, version: ExperimentVersion, unit: str, at: Time) -> Counts:
        """What counts for a decision at a time, which is written next."""

    def put_exposure(self, one: Exposure | None) -> None:
        """Count an exposure; None: there is none."""

    def take_out_exposure(self, decision: Position) -> None:
        """Count a decision no more."""

    def shown_decision(self, decision: Position) -> ShownDecision | None:
        """The part of the decision there that limits need; None where no limit counts, or a final reward has closed
        it."""
