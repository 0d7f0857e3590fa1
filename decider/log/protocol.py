"""What a log is: one total order of entries, appended to by one writer, read by everybody.

Implementations: `sqlite.py` (the real one) and `memory.py` (tests, small simulations); one conformance suite runs on
both. `append` returns after the commit. Uniqueness (a decision id; a reward id for a decision; one activation) holds
by a unique key, never by check-then-act.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from decider.experiment.definition import Experiment, ExperimentVersion
from decider.policy.saved import SavedModel
from decider.types import ActionId, Decision, DecisionId, ExperimentId, Position, Time


class Mark(NamedTuple):
    """A place in the log and its time."""

    position: Position
    time: Time


class Place(NamedTuple):
    """Where a decision is, as much as rewards and activations need to know. version: position of its version."""

    position: Position
    time: Time
    version: Position
    action: ActionId


@dataclass(frozen=True, slots=True)
class NewVersion:
    """An experiment to apply; `number` counts its versions from 1."""

    experiment: Experiment
    number: int


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


Entry = Decision | NewReward | NewActivation | NewVersion | Tick | Orphan


@dataclass(frozen=True, slots=True)
class LoggedDecision:
    """A decision with its place."""

    position: Position
    time: Time
    decision: Decision


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
class PublishedModel:
    """A model's place and what made it."""

    experiment: ExperimentId
    position: Position
    signature: str


class LogReader(Protocol):
    """Everything that only reads."""

    def end(self) -> Mark:
        """The last entry; (0, 0) of an empty log."""

    def time_at(self, position: Position) -> Time:
        """The time of an entry; 0 for position 0."""

    def versions(self) -> Sequence[ExperimentVersion]:
        """Every applied version, in order of position."""

    def find(self, decision_id: DecisionId) -> LoggedDecision | None:
        """The decision with this id."""

    def locate(self, decision_id: DecisionId) -> Place | None:
        """Where the decision with this id is; cheaper than `find`."""

    def decisions(self, version: Position) -> Iterator[LoggedDecision]:
        """All decisions of one experiment version, by model and then by position."""

    def decided_versions(self) -> Sequence[Position]:
        """The version positions that decisions name, whether there is such a version or not; rising."""

    def count_decisions(self) -> int:
        """How many decisions the log holds."""

    def sealed(self, version: ExperimentVersion, *, after: Time, until: Time) -> Iterator[SealedDecision]:
        """The decisions of one version whose window ended in (after, until], in order of position.

        Memory does not grow with their number.
        """

    def next_deadline(self, version: ExperimentVersion, *, after: Time) -> Time | None:
        """The first window's end beyond `after`; None where no window is open."""

    def newest_model(self, experiment: ExperimentId, signature: str) -> tuple[Position, SavedModel] | None:
        """The last published model of a spec whose data is still stored."""

    def published(self, experiment: ExperimentId, signature: str) -> Sequence[Position]:
        """The positions of every model ever published for a spec, also of those whose data is gone."""

    def load_model(self, model: PublishedModel) -> SavedModel | None:
        """One stored model; None if it was never published or its data is gone."""


Append = Callable[[Sequence[Entry]], list[Mark | None]]
"""See `EventLog.append`."""


class EventLog(LogReader, Protocol):
    """A log open for writing; there is at most one writer."""

    def append(self, entries: Sequence[Entry]) -> list[Mark | None]:
        """Write entries in order, in one transaction, and return after its commit.

        A Mark for each; None for what its unique key refused (written before) and for an Orphan.
        Raises LogError: then nothing of these entries is written.
        """

    def publish(self, model: PublishedModel, saved: SavedModel, *, learned: int, keep: int) -> None:
        """Store a model; the newest `keep` of its experiment keep their data, and the newest of every spec."""

    def maintain(self) -> None:
        """Housekeeping between commits; called now and then by the learner."""

    def close(self) -> None:
        """Flush and let go of the file."""
