"""The log's protocol: one total order of entries, with any number of writers and readers.

Implementations: `sqlite/` (one file), `postgres/` (many machines) and `memory.py` (tests, small simulations); one
conformance suite runs on all. An append takes position and time from one row, `head`, in its own transaction, and
returns after the commit. Uniqueness (a decision id; a reward id for a decision; a change of a reward; one activation; a
version's number) holds by a unique key that the statement names, never by check-then-act. Opened by `open.py`: nobody
outside this room names an implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from decider.errors import LogError
from decider.experiment.aggregate import NamedReward
from decider.experiment.attribution import OpenDecision
from decider.experiment.definition import Experiment, ExperimentVersion
from decider.experiment.limits import Counts
from decider.experiment.origin import UNKNOWN, Origin
from decider.experiment.unit_history import HistoryDefinition, PastDecision, Seen
from decider.log.exposures import FollowUp, ShownDecision
from decider.log.forgotten import Removal
from decider.log.totals import Totals
from decider.policy.saved import SavedModel
from decider.text import time_text
from decider.types import (
    ANY_NAME,
    ActionId,
    Decision,
    DecisionId,
    ExperimentId,
    Position,
    Reached,
    Reason,
    RewardOutcome,
    Time,
    same_name,
)


class Head(NamedTuple):
    """The end of the log: its last position and time, and the checksum over everything up to there (`chain.py`)."""

    position: Position
    time: Time
    chain: bytes

    @property
    def mark(self) -> Mark:
        """Position and time alone."""
        return Mark(self.position, self.time)


class Mark(NamedTuple):
    """A position in the log and its time."""

    position: Position
    time: Time


class DecisionRef(NamedTuple):
    """The part of a logged decision that rewards and activations need. version: position of its version."""

    position: Position
    time: Time
    version: Position
    action: ActionId


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A version of an experiment; `number` counts from 1.

    waits: its policy has to learn first; the version before it serves until a `Serves` entry names this one.
    origin: written as an entry of its own just behind it, in the same transaction, unless nothing is known.
    """

    experiment: Experiment
    number: int
    waits: bool = False
    origin: Origin = UNKNOWN


@dataclass(frozen=True, slots=True)
class NewVersionNote:
    """Who made what stands at a position (a version, or what is left out), whence it came, and why. The log writes it
    just behind that, in the same transaction."""

    version: Position
    origin: Origin


@dataclass(frozen=True, slots=True)
class Serves:
    """From here on the version at that position serves: it has waited, and its model has caught up."""

    version: Position


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model's full name: its experiment, the log position up to which it has learned, and the signature of what made
    it (parameters, encoder, version of the learning code)."""

    experiment: ExperimentId
    position: Position
    signature: str


@dataclass(frozen=True, slots=True)
class Base:
    """A model from which learning and replay go on where the entries before lie in an archive.

    time: of the position in its name. checksum: see SavedModel; nothing is stored for position 0.
    """

    name: ModelName
    time: Time
    checksum: str


@dataclass(frozen=True, slots=True)
class NewModel:
    """A model is published: from here on it may serve. learned: decisions, by the process that published it."""

    name: ModelName
    learned: int


@dataclass(frozen=True, slots=True)
class NewBuild:
    """The build that writes from here on: versions of everything that decides. Decisions name its position."""

    build: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NewSlate:
    """Decisions of one slate: entries one after the other, or none of them where one of their ids is in the log, or one
    would be refused by itself."""

    decisions: tuple[Decision | UnitDecision, ...]


@dataclass(frozen=True, slots=True)
class UnitDecision:
    """A decision that depends on what the log has of its unit before it, and what is written with it.

    Refused, and nothing of it is written, where that is no longer so in the commit: whoever lost reads the log again,
    and answers with what is there or decides anew.

    keep: microseconds for which the unit keeps it; 0: it does not. Refused where the unit keeps another one of the
    experiment at that time. replaces: position of one that it may give up, since its action can no longer be served.
    reached: the limits that were used up. Refused where others are; None: they are not looked at, but it counts for
    them. withheld: what rules took out of the actions that the call allows; written as an entry of its own.
    seen: from what the unit's history was read, if it was; written as an entry of its own.
    """

    decision: Decision
    keep: int = 0
    replaces: Position | None = None
    reached: Reached | None = None
    withheld: Mapping[ActionId, str] = field(default_factory=dict)
    seen: Seen | None = None


@dataclass(frozen=True, slots=True)
class NewWithheld:
    """What rules took out of the actions that the call of a decision allowed: by action, the rule, as the field of the
    experiment is called that holds it."""

    decision: Position
    rules: Mapping[ActionId, str]


@dataclass(frozen=True, slots=True)
class NewReward:
    """A reward for the decision at a position; `weight` is that of its name in the decision's experiment version.

    final: nothing that comes behind it counts any more. The log writes a seal behind the reward, in the same
    transaction.
    """

    decision: Position
    name: str
    value: float
    weight: float = 1.0
    reward_id: str | None = None
    occurred_at: Time | None = None
    final: bool = False


@dataclass(frozen=True, slots=True)
class NewRewardChange:
    """What counts from here on of the reward that was sent for a decision under an id: `value`; None: nothing of it.

    name, weight: of that reward. Where it has not come yet the log writes it first, with the changed value (0 of a
    retraction), in the same transaction: the one that comes later is then a duplicate, so that the order in which the
    two come does not matter. Where its experiment has that reward by unit, each decision that was credited is changed.
    A change is known by its content: reward, value and occurred_at. final: as of a reward.
    """

    decision: Position
    reward_id: str
    value: float | None
    name: str
    weight: float = 1.0
    occurred_at: Time | None = None
    final: bool = False

    def missing_reward(self) -> NewReward:
        """What is written where the reward has not come yet."""
        value = 0.0 if self.value is None else self.value
        return NewReward(self.decision, self.name, value, self.weight, self.reward_id, self.occurred_at)


class RewardRef(NamedTuple):
    """The part of a logged reward that its changes need."""

    position: Position
    name: str
    weight: float


@dataclass(frozen=True, slots=True)
class NewSeal:
    """A decision's window is over before its time: the log writes it just behind a final reward, in the same
    transaction. What lies before it counts.

    version: of the decision. The window ends one microsecond after the seal: so it ends behind everything that was
    learned before.
    """

    decision: Position
    version: Position


@dataclass(frozen=True, slots=True)
class NewActivation:
    """The decision's action was shown; or `action` in its place."""

    decision: Position
    action: ActionId | None = None


@dataclass(frozen=True, slots=True)
class NewRecall:
    """From what the history of the unit was read with which a decision was made: the one at that position. The log
    writes it with the decision."""

    decision: Position
    seen: Seen


@dataclass(frozen=True, slots=True)
class NewUnitReward:
    """A reward that names a unit and no decision. In the same transaction the log credits it to decisions of the person
    that the unit is, as `experiment/attribution.py` says: with ordinary rewards just behind this entry.

    experiment: for this one alone; None: for all. final: every credited decision is sealed. A reward id counts once for
    a person. Where a decision of the person has a reward with that id and name, the experiment has it already; and one
    that names a decision is refused where its experiment has it by unit. So the order does not matter.
    """

    unit: str
    name: str
    value: float
    reward_id: str | None = None
    occurred_at: Time | None = None
    experiment: ExperimentId | None = None
    final: bool = False

    def credit(self, decision: Position, weight: float) -> NewReward:
        """The reward of a decision that it is credited to."""
        return NewReward(decision, self.name, self.value, weight, self.reward_id, self.occurred_at, self.final)


@dataclass(frozen=True, slots=True)
class NewUnitRewardChange:
    """What counts from here on of a reward by unit, in every decision that it was credited to; None: nothing of it.

    No entry of its own: one change of each credited reward, and of each with that id and name that named a decision of
    the person. Where the reward has not come yet the log writes it first, and credits it, with the changed value.
    """

    unit: str
    reward_id: str
    value: float | None
    name: str
    occurred_at: Time | None = None
    experiment: ExperimentId | None = None
    final: bool = False

    def missing_reward(self) -> NewUnitReward:
        """What is written where the reward has not come yet."""
        value = 0.0 if self.value is None else self.value
        return NewUnitReward(self.unit, self.name, value, self.reward_id, self.occurred_at, self.experiment)

    def of_credited(self, decision: Position, name: str, weight: float) -> NewRewardChange:
        """The change of a reward that was credited to a decision, under its name and weight."""
        return NewRewardChange(decision, self.reward_id, self.value, name, weight, self.occurred_at, self.final)


@dataclass(frozen=True, slots=True)
class NewLink:
    """Two units are one person from here on, with all other units of both.

    Refused where they are already, or where the person would have more than MOST_UNITS.
    """

    unit: str
    same_as: str


MOST_ROWS = 1_000
"""Entries that a commit should write, about: other writers wait for it. Whoever has more appends them in pieces."""

MOST_UNITS = 20
"""Of one person."""

MOST_OPEN = 1_000
"""Open decisions of a person that a reward by unit can reach: the newest ones."""


@dataclass(frozen=True, slots=True)
class NewLeaveOut:
    """From this entry on, no model of an experiment learns from decisions that were sealed in (after, until], or, where
    made_until is given, were sealed after `after` and made by then: their windows differ, and a last word ends one.

    until, made_until: both None while nobody knows the end; at most one is given. replaces: the position of an earlier
    one, which this one takes back; it may leave out nothing itself (until = after). origin: as of a version.
    """

    experiment: ExperimentId
    after: Time
    until: Time | None
    replaces: Position | None = None
    origin: Origin = UNKNOWN
    made_until: Time | None = None

    @property
    def is_over(self) -> bool:
        """Whether its end is known."""
        return self.until is not None or self.made_until is not None

    def __str__(self) -> str:
        """In one line, without who made it.

        >>> print(NewLeaveOut(ExperimentId("shop"), Time(0), None))
        leaves out what is sealed from the first decision on, and it is not over
        """
        if self.until == self.after:
            return f"learns again what the entry at {self.replaces} left out" if self.replaces else "leaves out nothing"
        begin = f"after {time_text(self.after)}" if self.after else "from the first decision on"
        return f"leaves out what is sealed {begin}, {self._end}"

    @property
    def _end(self) -> str:
        if self.made_until is not None:
            return f"made up to {time_text(self.made_until)}"
        return "and it is not over" if self.until is None else f"up to {time_text(self.until)}"


@dataclass(frozen=True, slots=True)
class LeaveOut:
    """One of a log, with its position and time."""

    position: Position
    time: Time
    entry: NewLeaveOut


class UnitRewardRef(NamedTuple):
    """A reward by unit. last: of the entries that belong to it, which lie just behind it. experiment: the only one that
    it was for; None: any."""

    position: Position
    name: str
    last: Position
    experiment: ExperimentId | None


class DirectReward(NamedTuple):
    """A reward that named a decision, and has an id. reward: its position."""

    decision_id: DecisionId
    place: DecisionRef
    reward: Position
    name: str
    value: float
    weight: float

    def is_changed_by(self, change: NewUnitRewardChange) -> bool:
        """Whether a change that names the unit means it, too."""
        return same_name(self.name, change.name) and can_change(self.name, self.weight, change.value)


def can_change(name: str, weight: float, value: float | None) -> bool:
    """Whether a reward can be worth that; not where it was taken back before it came, and nobody knows its weight."""
    return value is None or name != ANY_NAME or weight != 0


class CreditedDecision(NamedTuple):
    """A decision that a reward by unit was credited to. worth: value x weight, as it was sent."""

    decision_id: DecisionId
    place: DecisionRef
    worth: float


END = Position(2**63 - 1)
"""Behind every entry."""

EARLY_MICROSECONDS = 600_000_000
"""Of log time, for which an activation without a decision is remembered."""

MOST_EARLY = 100_000
"""Activations without a decision that are remembered: the newest ones."""


@dataclass(frozen=True, slots=True)
class EarlyActivation:
    """An activation of a decision that is perhaps still to come; `action` as sent.

    `append` returns the mark of an activation where the decision is there. Else it remembers this one, which is no
    entry, and returns a Mark with position 0: the commit that writes the decision writes the activation as well. None:
    there was an activation before.
    """

    decision_id: DecisionId
    action: ActionId | None = None


class Caller(NamedTuple):
    """Who waits for an answer: until `deadline`, on the monotonic clock, and as long as it is there. Who has given up
    never waits again."""

    deadline: float
    is_there: Callable[[], bool]


class Awaited(NamedTuple):
    """Decisions that are written only if their caller still waits when the commit begins, and if no version has taken
    the place of theirs before it: `append` returns None for them else. Nobody can have seen them.

    So no decision of another version stands behind a pause, or behind an entry from which a version serves, whichever
    process wrote that.
    """

    decision: NewDecision
    caller: Caller


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed, and that alone changes the model."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A reward whose decision does not exist: counted, but no entry (`append` returns None for it)."""

    name: str


@dataclass(frozen=True, slots=True)
class RefusedReward:
    """A reward that its experiment refuses: counted, but no entry (`append` returns None for it).

    outcome: OUT_OF_RANGE or UNDECLARED.
    """

    name: str
    outcome: RewardOutcome


def units_of(slate: NewSlate) -> list[UnitDecision]:
    """Its decisions with what they depend on."""
    return [one if isinstance(one, UnitDecision) else UnitDecision(one) for one in slate.decisions]


NewDecision = Decision | NewSlate | UnitDecision


Entry = (
    NewDecision
    | Awaited
    | NewReward
    | NewRewardChange
    | NewSeal
    | NewUnitReward
    | NewUnitRewardChange
    | NewLink
    | NewLeaveOut
    | NewActivation
    | NewWithheld
    | NewRecall
    | EarlyActivation
    | NewVersion
    | NewVersionNote
    | Serves
    | NewModel
    | NewBuild
    | Tick
    | Orphan
    | RefusedReward
)


@dataclass(frozen=True, slots=True)
class LoggedDecision:
    """A decision with its position and time. build: position of its writer's NewBuild; 0 where there is none."""

    position: Position
    time: Time
    decision: Decision
    build: Position = Position(0)


class DecisionLine(NamedTuple):
    """What a list says of a decision."""

    decision_id: DecisionId
    time: Time
    action: ActionId
    reason: Reason


@dataclass(frozen=True, slots=True)
class LoggedReward:
    """A reward with its decision's id and its outcome; `value` as sent, `in_force` as the last change in time has it,
    None: taken back."""

    position: Position
    time: Time
    decision_id: DecisionId
    name: str
    value: float
    weight: float
    reward_id: str | None
    outcome: RewardOutcome
    in_force: float | None


@dataclass(frozen=True, slots=True)
class SealedDecision:
    """A decision whose window is over, with everything that arrived in it.

    time: when it was made. rewards: value x weight of those in force, in the order of arrival. overridden: another
    action was shown; shown: which. activated: it was said in time that something was shown. named: the same rewards
    with their names and without weights; of `sealed_with_late` only.
    """

    position: Position
    time: Time
    deadline: Time
    decision: Decision
    rewards: tuple[float, ...]
    overridden: bool
    activated: bool = False
    shown: ActionId | None = None
    named: tuple[NamedReward, ...] = ()


class NamedModel(NamedTuple):
    """Decisions of a version and a build, with the smallest position that they name as their model's."""

    version: Position
    build: Position
    model: Position


class VersionName(NamedTuple):
    """A version of an experiment: who needs its definition reads it with `version_at`."""

    position: Position
    experiment: ExperimentId


class TotalsCheckpoint(NamedTuple):
    """Totals stored in a log, to count on from there.

    mark: entries are counted up to its position, seals up to its time. chain: the log's at that position. content: of
    LabelTotals.
    """

    mark: Mark
    chain: bytes
    content: str


class LogSizes(NamedTuple):
    """Bytes: of the log's file, of its write-ahead log, of the models stored in it; free on its disk, None: unknown."""

    database: int
    wal: int
    models: int
    free: int | None


class ClosedDecision(NamedTuple):
    """A decision that a final reward has sealed before window_end, when its declared window was over. rewarded: some
    reward is in force."""

    window_end: Time
    position: Position
    unit_id: str
    reason: Reason
    rewarded: bool


@dataclass(frozen=True, slots=True)
class ServingChanges:
    """The entries after a position that change what serves, each kind in order of position.

    models: only the newest of each experiment and signature.
    """

    head: Position
    versions: Sequence[tuple[VersionName, bool]]
    """(version, whether it waits)."""
    serves: Sequence[tuple[Position, Position]]
    """(position of the entry, position of the version)."""
    models: Sequence[tuple[Position, ModelName]]
    """(position of the entry, name)."""
    leave_outs: Sequence[tuple[Position, ExperimentId]] = ()
    """(position of the entry, experiment)."""


class ArrowBatches(NamedTuple):
    """See `LogReader.arrow`. Iterators of pyarrow.RecordBatch; Any, so that pyarrow is not needed elsewhere."""

    decisions: Iterator[Any]
    rewards: Iterator[Any]


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of a log that is not what was acknowledged. first, last: positions of the entries; both 0 for damage
    outside of entries."""

    first: Position
    last: Position
    text: str

    def __str__(self) -> str:
        where = f"positions {self.first} to {self.last}: " if self.last else ""
        return f"{where}{self.text}"


OnProgress = Callable[[Position], None]
"""Called now and then with the position reached."""


class ModelReader(Protocol):
    """Stored models. Not every published model is stored: replay can make each of them again."""

    def newest(self, experiment: ExperimentId, signature: str) -> tuple[Position, SavedModel] | None:
        """The newest stored model of a signature."""

    def load(self, name: ModelName) -> SavedModel | None:
        """One stored model; None if it is not stored (any more)."""

    def stored_positions(self, experiment: ExperimentId, signature: str) -> Sequence[Position]:
        """The positions of the stored models of a signature; rising."""

    def published_positions(self, experiment: ExperimentId, signature: str) -> Sequence[Position]:
        """The positions of every model ever published for a signature, stored or not; rising."""

    def last_published_position(self, experiment: ExperimentId, signature: str) -> Position:
        """The last of these; 0 where there is none."""

    def signatures(self, experiment: ExperimentId) -> Sequence[str]:
        """Of every model ever published for an experiment."""

    def base(self, experiment: ExperimentId, signature: str) -> Base | None:
        """The model from which a signature's learning goes on behind the cut; None: it begins with nothing."""

    def load_base(self, base: Base) -> SavedModel:
        """Its data. Raises LogCorrupt where it is damaged."""


class ModelStore(ModelReader, Protocol):
    """Stores models in pieces, so that a commit never waits for more than one piece."""

    def store(self, name: ModelName, saved: SavedModel, *, keep_bytes: int, keep: Collection[str] = ()) -> int:
        """Store a model, then delete the oldest until the experiment's models have at most `keep_bytes`; a log on disk
        keeps a few hundred at most. The newest of this signature and of each in `keep` are never deleted. Returns the
        bytes that the model takes in the log. Raises LogError."""


class LogReader(Protocol):
    """The part of a log that only reads."""

    @property
    def name(self) -> str:
        """The log's name in messages: its path."""

    @property
    def models(self) -> ModelReader:
        """Its stored models."""

    def head(self) -> Head:
        """The end; (0, 0, b"") of an empty log."""

    def time_at(self, position: Position) -> Time:
        """The time of an entry; 0 for position 0. Of an archived entry only where a model is named by it."""

    def cut(self) -> Mark:
        """The last entry that lies in an archive; (0, 0) where nothing does. The log holds what comes behind it."""

    def check_archive(self, experiment: ExperimentId, *, after: Time, late: Mark | None = None) -> None:
        """Before what was sealed of an experiment after a time is learned; late: as `sealed_with_late` gives it. Raises
        ArchiveMissing, ArchiveDamaged where that needs a part of the archive that is not there, or not whole."""

    def versions(self) -> Sequence[ExperimentVersion]:
        """Every applied version, in order of position: for offline use, since a log may have thousands."""

    def version_at(self, position: Position) -> ExperimentVersion:
        """The version applied there; the same object as long as somebody keeps it. Raises KeyError if there is none."""

    def newest_versions(self, experiment: ExperimentId, *, most: int) -> Sequence[Position]:
        """The positions of an experiment's newest versions, the newest first; at most so many."""

    def origins(self, versions: Collection[Position]) -> Mapping[Position, Origin]:
        """Who made the versions at these positions, whence, and why; those of which nothing is known are left out."""

    def experiment_ids(self, positions: Collection[Position]) -> Mapping[Position, ExperimentId]:
        """The experiments of the versions at these positions."""

    def action_kinds(self, experiment: ExperimentId) -> Mapping[ActionId, str]:
        """The kind of every action that an experiment ever had; of several the last."""

    def follow(self, after: Position) -> ServingChanges:
        """The entries after a position that change what serves."""

    def leave_outs(self, experiment: ExperimentId) -> Sequence[LeaveOut]:
        """What the models of an experiment leave out, in order of position; also what was taken back."""

    def builds(self) -> Mapping[Position, Mapping[str, Any]]:
        """The builds that wrote, by position."""

    def removals(self) -> Sequence[Removal]:
        """What `decider forget` has removed. Raises LogCorrupt where an entry that says so is damaged."""

    def find(self, decision_id: DecisionId) -> LoggedDecision | None:
        """The decision with this id."""

    def assigned(self, experiment: ExperimentId, unit: str, *, at: Time) -> LoggedDecision | None:
        """The decision that a unit keeps at a time; None where it keeps none, or that is no longer in the log."""

    def unit_history(
        self, experiment: ExperimentId, unit: str, history: HistoryDefinition, *, at: Time
    ) -> tuple[Seen, Sequence[PastDecision]]:
        """What the log knows of a unit in an experiment, at a time that is perhaps behind the log's end; and which
        entries that is. See `history_features`. Cost does not grow with the number of the unit's decisions.

        It begins with the first decision that has a NewRecall.
        """

    def unit_history_at(
        self, experiment: ExperimentId, unit: str, history: HistoryDefinition, seen: Seen
    ) -> Sequence[PastDecision]:
        """The same as it was. Entries that are archived or forgotten since then are missing."""

    def recall(self, decision: Position) -> Seen | None:
        """From what the history was read with which a decision was made; None where it was made without one."""

    def limit_counts(self, version: ExperimentVersion, unit: str, *, at: Time) -> Counts:
        """What counts for the limits of a version, for a unit at a time."""

    def withheld(self, decision: Position) -> Mapping[ActionId, str]:
        """What rules took out for the decision there: see NewWithheld."""

    def shown_decisions(self) -> Iterator[tuple[ShownDecision, FollowUp | None]]:
        """The decisions of all versions with limits, in order of position, with what followed."""

    def locate(self, decision_id: DecisionId) -> DecisionRef | None:
        """The part of the decision with this id that rewards need; cheaper than `find`."""

    def locate_all(self, ids: Sequence[DecisionId]) -> list[DecisionRef | None]:
        """`locate` of each, in one query."""

    def find_reward(self, decision: Position, reward_id: str) -> RewardRef | None:
        """The reward with this id of a decision."""

    def units_of(self, unit: str) -> Sequence[str]:
        """All units of the person that a unit is, sorted; itself where it was never linked."""

    def persons(self) -> Mapping[str, str]:
        """Every unit that is linked, with the name of its person: the first of the person's units, sorted.

        As all links of the log say it, whenever they were made. Parts of an archive know the links in them.
        """

    def find_unit_reward(self, unit: str, reward_id: str) -> UnitRewardRef | None:
        """The reward by unit with this id, of any unit of the person; the newest one."""

    def by_decision(self, unit: str, reward_id: str, experiment: ExperimentId | None) -> Sequence[DirectReward]:
        """The rewards with this id that named a decision of the person, as far as `open_decisions` looks; final ones,
        too."""

    def open_decisions(self, unit: str, experiment: ExperimentId | None) -> Sequence[OpenDecision]:
        """The person's decisions, of one experiment or of all, that a reward by unit could reach now; newest MOST_OPEN.
        Each by the rule of its own version."""

    def credits(self, unit_reward: Position) -> Sequence[CreditedDecision]:
        """The decisions that a reward by unit was credited to, as far as the log has them; by position."""

    def seals(self, decisions: Collection[Position], *, until: Position = END) -> Mapping[Position, Position]:
        """The seals up to a position of those of these decisions that a final reward has closed. Costs nothing right
        after an append up to there, where the log has none."""

    def closed_decisions(self, version: Position, *, after: Time, until: Time) -> Sequence[ClosedDecision]:
        """The decisions of a version that a final reward has closed, and whose declared window ended in (after, until],
        in their order; but for those that had to be activated and were not."""

    def decisions(self, version: Position) -> Iterator[LoggedDecision]:
        """All decisions of one experiment version, by model and then by position."""

    def newest_decisions(self, version: Position, *, most: int) -> Sequence[DecisionLine]:
        """The newest decisions of a version, the newest first; at most so many, and no other is read."""

    def decisions_between(self, first: str, last: str) -> Iterator[LoggedDecision]:
        """Those with first <= decision id < last, in order of position."""

    def rewards_between(self, first: str, last: str) -> Iterator[LoggedReward]:
        """The rewards of those decisions, in order of position."""

    def named_models(self, after: Position) -> Sequence[NamedModel]:
        """The models that the decisions behind a position name."""

    def versions_with_decisions(self) -> Sequence[Position]:
        """The versions that decisions name, by position, rising; also those that are missing in a damaged log."""

    def count_decisions(self, experiment: ExperimentId | None = None) -> int:
        """How many decisions the log holds, of one experiment or of all."""

    def count_decided(self, experiment: ExperimentId, *, after: Mark, until: Mark) -> int:
        """How many decisions those versions of an experiment that learn have among the entries in (after, until],
        archived or not; `sealed_decisions` gives them sooner or later. Cost grows with their number alone.

        A mark's time is that of its position. Reads the archive where `sealed_decisions` would, for decisions sealed
        after `after`; raises as it.
        """

    def count_learned(self, experiment: ExperimentId) -> int:
        """How many sealed decisions of an experiment the log holds from which a policy learns."""

    def sealed_decisions(self, experiment: ExperimentId, *, after: Time, until: Time) -> Iterator[SealedDecision]:
        """The decisions of all versions of an experiment whose window ended in (after, until], in the order of
        (deadline, position). Memory does not grow with their number, nor connections with the number of versions."""

    def sealed_with_late(
        self, experiment: ExperimentId, *, after: Time, until: Time, late: Mark
    ) -> Iterator[SealedDecision]:
        """The same decisions; but where the window ended up to the time of `late`, every reward and change of one up to
        its position counts, whether it came in the window or later. `named` is filled. Activations stay as they were.
        Of archived decisions it reads the archive."""

    def next_deadline(self, *, after: Time, experiment: ExperimentId | None = None) -> Time | None:
        """The first window's end beyond `after`, of one experiment or of any; None where no window is open.

        The usual end of a window that a final reward has closed before stays one: nothing is sealed there.
        """

    def first_deadlines(self, *, after: Time) -> Mapping[ExperimentId, Time]:
        """The first window's end beyond `after` of every experiment that has one."""

    def totals(self, after: Mark, until: Mark) -> Totals:
        """The totals of (after, until]: entries by position, seals by time.

        Raises EntriesArchived where entries behind `after` may be gone: count from `totals_checkpoint` on.
        """

    def totals_checkpoint(self, until: Mark | None = None) -> TotalsCheckpoint | None:
        """The newest stored totals, beyond neither position nor time of `until`. Those that do not fit the log are left
        out, with a line in the server's output."""

    def known_place(self, until: Position) -> Head:
        """The last place up to a position whose chain is written down."""

    def sizes(self) -> LogSizes:
        """What the log takes; cheap, however long it is."""

    def refused_rewards(self) -> Mapping[tuple[str, str], int]:
        """Refused rewards, counted by (name, outcome)."""

    def arrow(self, experiment: ExperimentId, head: Head) -> ArrowBatches:
        """An experiment up to `head` as Arrow record batches, to read whole logs fast. Needs pyarrow.

        decisions, in order of position:
            int64 position, time, version, model, deadline (microseconds), sealed (1 or 0: deadline <= head.time),
            overridden, activated (1 or 0); float64 propensity; string unit_id, action, reason, segment, device,
            channel, location, intent_stage, features (JSON object), eligible (JSON list), action_features (JSON
            object), pmf (its millionths with commas between), slot (the decision's id where it can be one of a slate's
            slots). Empty strings: not given; of `eligible`: all active ones.
        rewards, in order of (position of the decision, position of the reward):
            int64 decision (its position), time, joined (1 or 0: in time), retracted (1 or 0: taken back in time);
            float64 value (what is in force of it, x weight), unweighted (the same without weight); string name.
        Raises LogError, also while the batches are read.
        """

    def chain_start(self) -> Mark | None:
        """For a log from before the chain: up to which position the chain was computed afterwards, and when."""

    def check(self, on_progress: OnProgress) -> Sequence[Damage]:
        """Compare the whole log with the chain and with itself. No damage: nothing was changed, removed or added since
        it was acknowledged."""

    def close(self) -> None:
        """Close the log; nobody may be reading."""


Append = Callable[[Sequence[Entry]], list[Mark | None]]
"""See `EventLog.append`."""

LocateAll = Callable[[Sequence[DecisionId]], list[DecisionRef | None]]
"""See `LogReader.locate_all`."""


class Lease(Protocol):
    """The right to seal, learn and publish: one process of a log has it. It ends with the process or `release`."""

    @property
    def held(self) -> bool:
        """Whether this process still has it."""

    @property
    def replaced(self) -> bool:
        """Whether another process has led since: then this one has to begin anew."""

    def release(self) -> None:
        """Let another process lead."""


class Share(Protocol):
    """The experiments that this process learns. No two processes learn one at a time, and what a process has lost
    without knowing it is fenced: the log refuses its models. It ends with the process or `release`.

    A log on one machine is not divided: whoever has its lease learns all. Learners of another learning code than the
    leader's learn nothing: nobody could serve their models beside its own.
    """

    @property
    def is_whole(self) -> bool:
        """Whether at the last look all that have not ended had a learner with this learning code."""

    def own(
        self, experiments: Collection[ExperimentId], ended: Collection[ExperimentId] = ()
    ) -> Collection[ExperimentId]:
        """Look, and return which of these this process learns now. What was returned before and is not now has no
        models to publish any more. Called often, from one thread. Raises LogError.

        experiments: all that are learned. ended: that have something left to learn, as far as this process knows; they
        are nobody's part, and whoever looks first takes them.
        """

    def release(self) -> None:
        """Let others learn them."""


class LeaderNews(NamedTuple):
    """What a leader has said last. address: where it is. age: in seconds, by the clock of the log."""

    address: str
    content: str
    age: float


class Hosts(Protocol):
    """What the processes of a log on several hosts share beside its entries. All of it is about now, and may be lost at
    any moment. Raises LogError throughout."""

    def is_led(self) -> bool:
        """Whether this process has to wait: another one leads, or this one has no right to."""

    def share_model(self, name: ModelName, saved: SavedModel) -> None:
        """Let others load a model that is not stored yet; its owner's older ones go. Called by the leader."""

    def drop_models(self, experiment: ExperimentId, signature: str) -> None:
        """The owner has none any more. Called by the leader."""

    def say(self, address: str, content: str) -> None:
        """Say it to all hosts, in place of what was said before. Called by the leader."""

    def news(self) -> LeaderNews | None:
        """What the leader has said last; None: no leader has ever learned what serves."""

    def waits(self) -> bool:
        """Whether this process waits for the log's database, which takes long to answer. That ends by itself."""

    def time(self) -> Time:
        """What the clock of the log's database says: the one clock that all hosts can ask."""


class EventLog(LogReader, Protocol):
    """A log open for writing, beside other writers."""

    @property
    def models(self) -> ModelStore:
        """Its stored models."""

    @property
    def hosts(self) -> Hosts | None:
        """What processes on several hosts share; None: all processes of this log are on one machine."""

    @property
    def trouble(self) -> LogError | None:
        """Why the last write failed, if it did; or that the log is damaged or gone."""

    def append(self, entries: Sequence[Entry]) -> list[Mark | None]:
        """Write entries in order, in one transaction, and return after its commit.

        A Mark for each, of a slate its first one, of a change of a reward by unit the first one of what it wrote; None
        for what the unique key of its kind refused (written before), for a link that is refused, for an Orphan, a
        RefusedReward, and an Awaited whose caller has given up or whose version was overtaken. See also
        EarlyActivation.
        Raises LogError: then nothing of these entries is acknowledged. Any other clash is a LogError too.
        """

    def name_build(self, build: Mapping[str, Any]) -> Position:
        """Append a NewBuild; the decisions of this writer name it from here on. Raises LogError."""

    def lease(self) -> Lease:
        """Become the leader. Raises LogLocked while another process is."""

    def share(self) -> Share:
        """Begin to learn, beside others. This log's models, what serves once it has learned, and what its guard leaves
        out are written from here on only for experiments of the share. One at a time; another ends it."""

    def store_totals(self, checkpoint: TotalsCheckpoint) -> None:
        """Store totals in place of older ones; called by the leader. Raises LogError."""

    def maintain(self) -> None:
        """Housekeeping between commits; called by the leader."""

    @property
    def warnings(self) -> Sequence[str]:
        """What a person should look at, although the log works."""


@dataclass(frozen=True, slots=True)
class NewPart:
    """A part of the archive that is to count. until: where the log will be cut. bases: to go on from behind the cut.
    remember: microseconds of log time for which a retry gets an archived decision."""

    first: Position
    until: Head
    path: str
    digest: str
    bases: Sequence[Base]
    remember: int


class CuttableLog(EventLog, Protocol):
    """A log out of which an archive run takes entries, beside its writers."""

    def archiving(self) -> AbstractContextManager[None]:
        """The right to do so. Raises LogLocked while another run has it."""

    def choose_cut(self, before: Time) -> Head | None:
        """The last end of a commit up to which every decision was made before a time and has its window over.

        None where no decision lies between the cut of today and that one.
        """

    def last_cut(self) -> Head:
        """Where the next part begins: behind the last one."""

    def count(self, after: Position, until: Position) -> tuple[int, int]:
        """Decisions and rewards among the entries in (after, until]."""

    def count_archived(self, until: Position) -> Mapping[ExperimentId, int]:
        """Decisions up to a position, by experiment; those in the archive too."""

    def settled_model(self, experiment: ExperimentId, signature: str, at_most: Position | None) -> Mark:
        """The newest model published, up to that position, that every process has known for a while; (0, 0) where
        there is none."""

    def store_base(self, name: ModelName, saved: SavedModel) -> None:
        """Store a base's data. It counts once `cut_off` has named it."""

    def cut_off(self, part: NewPart) -> None:
        """From here on the part counts, in one transaction. Raises LogError where another run was quicker."""

    def finish_cut(self, on_progress: OnProgress) -> None:
        """Give the last part its place, and delete what lies in the archive: also what a killed run has left."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What `forget` did. pseudonym: of the unit; None: each decision has its own. cleared: whether the write-ahead log
    could be emptied. parts: folders of the archive that were written anew. left: what is wrong with the parts that
    could not be searched. linked: units that were one person with it; they stay."""

    decisions: int
    pseudonym: str | None
    cleared: bool
    parts: Sequence[str]
    left: Sequence[str]
    linked: Sequence[str] = ()


class ForgettingLog(EventLog, Protocol):
    """A log out of which, and out of whose archive, units can be removed, beside its writers."""

    def forget(self, unit: str, *, pseudonym: bool, context: bool, rebuild: bool) -> Forgotten:
        """Put random ids in place of those of the unit, its decisions and their rewards.

        pseudonym: all decisions keep one made-up unit. context: features and context fields go, too. rebuild: write the
        file anew, so that nothing is left in its unused places. Raises LogError; then run it again, it goes on.
        """
