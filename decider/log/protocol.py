"""What a log is: one total order of entries, appended to by any number of writers, read by everybody.

Implementations: `sqlite/` (the real one) and `memory.py` (tests, small simulations); one conformance suite runs on
all. Order and time are dealt inside the append's transaction, from one row: `head`. `append` returns after the commit.
Uniqueness (a decision id; a reward id for a decision; one activation; a version's number) holds by a unique key that
the statement names, never by check-then-act. Opened by `open.py`: nobody outside this room names an implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from decider.errors import LogError
from decider.experiment.definition import Experiment, ExperimentVersion
from decider.log.totals import Totals
from decider.policy.saved import SavedModel
from decider.types import ActionId, Decision, DecisionId, ExperimentId, Position, RewardOutcome, Time


class Head(NamedTuple):
    """The end of the log: its last position and time, and the checksum over everything up to there (`chain.py`)."""

    position: Position
    time: Time
    chain: bytes

    @property
    def mark(self) -> Mark:
        """The place alone."""
        return Mark(self.position, self.time)


class Mark(NamedTuple):
    """A place in the log and its time."""

    position: Position
    time: Time


class DecisionRef(NamedTuple):
    """Where a decision is, as much as rewards and activations need to know. version: position of its version."""

    position: Position
    time: Time
    version: Position
    action: ActionId


@dataclass(frozen=True, slots=True)
class NewVersion:
    """An experiment to apply; `number` counts its versions from 1.

    waits: its policy has to learn first; what served before goes on until a `Serves` entry names this version.
    """

    experiment: Experiment
    number: int
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Serves:
    """From here on the version at that position serves: it waited, and its model has caught up."""

    version: Position


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model's whole name: what it is of, the log position that it has learned up to, and what made it
    (parameters, encoder, version of the learning code)."""

    experiment: ExperimentId
    position: Position
    signature: str


@dataclass(frozen=True, slots=True)
class NewModel:
    """A model is published: from here on it may serve. learned: decisions, by the process that published it."""

    name: ModelName
    learned: int


@dataclass(frozen=True, slots=True)
class NewBuild:
    """Who writes: versions of everything that decides, as names and values. Decisions name their build's position."""

    build: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NewReward:
    """A reward for the decision at a position; `weight` is that of its name in the decision's experiment version."""

    decision: Position
    name: str
    value: float
    weight: float = 1.0
    reward_id: str | None = None
    occurred_at: Time | None = None


@dataclass(frozen=True, slots=True)
class NewActivation:
    """The decision's action was shown; or `action` in its place."""

    decision: Position
    action: ActionId | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed, and that alone changes the model."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A reward whose decision does not exist: counted, not an entry (`append` answers None)."""

    name: str


Entry = Decision | NewReward | NewActivation | NewVersion | Serves | NewModel | NewBuild | Tick | Orphan


@dataclass(frozen=True, slots=True)
class LoggedDecision:
    """A decision with its place. build: position of the entry that says who wrote it; 0 where nobody said."""

    position: Position
    time: Time
    decision: Decision
    build: Position = Position(0)


@dataclass(frozen=True, slots=True)
class LoggedReward:
    """A reward with its decision's id and what became of it; `value` as sent."""

    position: Position
    time: Time
    decision_id: DecisionId
    name: str
    value: float
    weight: float
    reward_id: str | None
    outcome: RewardOutcome


@dataclass(frozen=True, slots=True)
class SealedDecision:
    """A decision whose window is over, with everything that arrived in it.

    rewards: value x weight, in the order of arrival. overridden: another action was shown.
    """

    position: Position
    deadline: Time
    decision: Decision
    rewards: tuple[float, ...]
    overridden: bool


@dataclass(frozen=True, slots=True)
class ServingChanges:
    """What has come after a position that changes what serves; each in order of position.

    models: of each experiment and signature only the newest one.
    """

    head: Position
    versions: Sequence[tuple[ExperimentVersion, bool]]
    """With whether it waits."""
    serves: Sequence[tuple[Position, Position]]
    """(position of the entry, position of the version)."""
    models: Sequence[tuple[Position, ModelName]]
    """(position of the entry, name)."""


class ArrowBatches(NamedTuple):
    """See `LogReader.arrow`. pyarrow.RecordBatch each; Any, so that who needs no Arrow need not have it."""

    decisions: Iterator[Any]
    rewards: Iterator[Any]


@dataclass(frozen=True, slots=True)
class Damage:
    """Something in a log that is not what was acknowledged. first, last: the positions between which it lies; both 0
    for what stands beside the order."""

    first: Position
    last: Position
    text: str

    def __str__(self) -> str:
        where = f"positions {self.first} to {self.last}: " if self.last else ""
        return f"{where}{self.text}"


OnProgress = Callable[[Position], None]
"""Told now and then how far one has come."""


class ModelReader(Protocol):
    """Stored models. Not every published model is stored: replay makes them all anew."""

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


class ModelStore(ModelReader, Protocol):
    """Where models are kept, in pieces: storing never holds up a commit for longer than one piece takes."""

    def store(self, name: ModelName, saved: SavedModel, *, keep_bytes: int, keep: Collection[str] = ()) -> None:
        """Store a model. Then older ones go until the experiment's take at most `keep_bytes`; the newest of its own
        signature and of those in `keep` stay whatever they take. Raises LogError."""


class LogReader(Protocol):
    """Everything that only reads."""

    @property
    def name(self) -> str:
        """What the log is called in messages: its path."""

    @property
    def models(self) -> ModelReader:
        """Its stored models."""

    def head(self) -> Head:
        """The end; (0, 0, b"") of an empty log."""

    def time_at(self, position: Position) -> Time:
        """The time of an entry; 0 for position 0."""

    def versions(self) -> Sequence[ExperimentVersion]:
        """Every applied version, in order of position."""

    def version_at(self, position: Position) -> ExperimentVersion:
        """The version applied there. Raises KeyError where there is none."""

    def follow(self, after: Position) -> ServingChanges:
        """What has come after a position that changes what serves."""

    def builds(self) -> Mapping[Position, Mapping[str, Any]]:
        """Who wrote, by position."""

    def find(self, decision_id: DecisionId) -> LoggedDecision | None:
        """The decision with this id."""

    def locate(self, decision_id: DecisionId) -> DecisionRef | None:
        """Where the decision with this id is; cheaper than `find`."""

    def decisions(self, version: Position) -> Iterator[LoggedDecision]:
        """All decisions of one experiment version, by model and then by position."""

    def decisions_between(self, first: str, last: str) -> Iterator[LoggedDecision]:
        """Those with first <= decision id < last, in order of position."""

    def rewards_between(self, first: str, last: str) -> Iterator[LoggedReward]:
        """The rewards of those decisions, in order of position."""

    def versions_with_decisions(self) -> Sequence[Position]:
        """The version positions that decisions name, whether there is such a version or not; rising."""

    def count_decisions(self, experiment: ExperimentId | None = None) -> int:
        """How many decisions the log holds, of one experiment or of all."""

    def sealed_decisions(self, experiment: ExperimentId, *, after: Time, until: Time) -> Iterator[SealedDecision]:
        """The decisions of all versions of an experiment whose window ended in (after, until], in the order of
        (deadline, position). Memory does not grow with their number, nor connections with the number of versions."""

    def next_deadline(self, *, after: Time, experiment: ExperimentId | None = None) -> Time | None:
        """The first window's end beyond `after`, of one experiment or of any; None where no window is open."""

    def totals(self, after: Mark, until: Mark) -> Totals:
        """Everything counted that lies in (after, until]: entries by position, seals by time."""

    def refused_rewards(self) -> Mapping[tuple[str, str], int]:
        """Refused rewards, counted by (name, outcome)."""

    def arrow(self, experiment: ExperimentId, head: Head) -> ArrowBatches:
        """An experiment up to `head` as Arrow record batches, for whoever reads whole logs. Needs pyarrow.

        decisions, in order of position:
            int64 position, time, version, model, deadline (microseconds), sealed (1 or 0: deadline <= head.time),
            overridden (1 or 0); float64 propensity; string unit_id, action, reason, segment, device, channel, location,
            intent_stage, features (JSON object), eligible (JSON list), action_features (JSON object), pmf (its
            millionths with commas between). Empty strings: not given; of `eligible`: all active ones.
        rewards, in order of (position of the decision, position of the reward):
            int64 decision (its position), time, joined (1 or 0: in time); float64 value (x weight).
        Raises LogError, also while the batches are read.
        """

    def chain_start(self) -> Mark | None:
        """Of a log from before the chain: up to which position it was computed later than written, and when."""

    def check(self, on_progress: OnProgress) -> Sequence[Damage]:
        """Compare everything that is there with the chain and with itself; no damage: nothing was changed, is missing
        or was added since it was acknowledged."""

    def close(self) -> None:
        """Let go of the log; nobody may be reading."""


Append = Callable[[Sequence[Entry]], list[Mark | None]]
"""See `EventLog.append`."""


class Lease(Protocol):
    """The right to seal, learn and publish: one process of a log has it. It ends with the process or `release`."""

    @property
    def held(self) -> bool:
        """Whether it still holds."""

    def release(self) -> None:
        """Let another process lead."""


class EventLog(LogReader, Protocol):
    """A log open for writing, beside other writers."""

    @property
    def models(self) -> ModelStore:
        """Its stored models."""

    @property
    def trouble(self) -> LogError | None:
        """Why the last attempt to write failed, if it did; or that the log is damaged or gone, which does not pass."""

    def append(self, entries: Sequence[Entry]) -> list[Mark | None]:
        """Write entries in order, in one transaction, and return after its commit.

        A Mark for each; None for what the unique key of its kind refused (written before) and for an Orphan.
        Raises LogError: then nothing of these entries is acknowledged. Any other clash is a LogError too.
        """

    def name_build(self, build: Mapping[str, Any]) -> Position:
        """Append a NewBuild; the decisions of this writer name it from here on. Raises LogError."""

    def lease(self) -> Lease:
        """Become the leader. Raises LogLocked while another process is."""

    def maintain(self) -> None:
        """Housekeeping between commits; called now and then by the leader."""
