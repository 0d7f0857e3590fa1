"""The log in memory, for tests and small simulations: the same words, the same conformance suite, no file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from decider.experiment.definition import ExperimentVersion
from decider.log.protocol import (
    Entry,
    LoggedDecision,
    Mark,
    NewActivation,
    NewReward,
    NewVersion,
    Place,
    PublishedModel,
    SealedDecision,
    Tick,
)
from decider.policy.saved import SavedModel
from decider.types import START, Decision, DecisionId, ExperimentId, Position, Time, now


class MemoryLog:
    """See EventLog."""

    def __init__(self, *, clock: Callable[[], Time] = now) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._times: list[Time] = [Time(0)]
        self._versions: list[ExperimentVersion] = []
        self._decisions: dict[Position, LoggedDecision] = {}
        self._by_id: dict[DecisionId, LoggedDecision] = {}
        self._rewards: dict[Position, list[tuple[Time, NewReward]]] = {}
        self._activations: dict[Position, tuple[Time, NewActivation]] = {}
        self._models: dict[PublishedModel, SavedModel] = {}
        self._published: list[PublishedModel] = []

    def append(self, entries: Sequence[Entry]) -> list[Mark | None]:
        """See EventLog."""
        with self._lock:
            at = Time(max(self._clock(), self._times[-1]))
            return [self._append(entry, at) for entry in entries]

    def _append(self, entry: Entry, at: Time) -> Mark | None:
        mark = Mark(Position(len(self._times)), at)
        if not self._insert(entry, mark):
            return None
        self._times.append(at)
        return mark

    def _insert(self, entry: Entry, mark: Mark) -> bool:
        match entry:
            case Decision() if entry.decision_id not in self._by_id:
                logged = LoggedDecision(*mark, entry)
                self._by_id[entry.decision_id] = self._decisions[mark.position] = logged
            case NewReward() if not self._is_duplicate(entry):
                self._rewards.setdefault(entry.decision, []).append((mark.time, entry))
            case NewActivation() if entry.decision not in self._activations:
                self._activations[entry.decision] = (mark.time, entry)
            case NewVersion() if (entry.experiment.id, entry.number) not in {
                (v.experiment.id, v.number) for v in self._versions
            }:
                version = ExperimentVersion(
                    entry.experiment, number=entry.number, position=mark.position, time=mark.time
                )
                self._versions.append(version)
            case Tick():
                pass
            case _:
                return False
        return True

    def _is_duplicate(self, reward: NewReward) -> bool:
        same = self._rewards.get(reward.decision, [])
        return reward.reward_id is not None and any(old.reward_id == reward.reward_id for _, old in same)

    def end(self) -> Mark:
        """See EventLog."""
        with self._lock:
            return Mark(Position(len(self._times) - 1), self._times[-1])

    def time_at(self, position: Position) -> Time:
        """See EventLog."""
        return self._times[position]

    def versions(self) -> Sequence[ExperimentVersion]:
        """See EventLog."""
        return list(self._versions)

    def find(self, decision_id: DecisionId) -> LoggedDecision | None:
        """See EventLog."""
        return self._by_id.get(decision_id)

    def locate(self, decision_id: DecisionId) -> Place | None:
        """See EventLog."""
        logged = self.find(decision_id)
        return Place(logged.position, logged.time, logged.decision.version, logged.decision.action) if logged else None

    def decisions(self, version: Position) -> Iterator[LoggedDecision]:
        """See EventLog."""
        of_version = [d for d in list(self._decisions.values()) if d.decision.version == version]
        return iter(sorted(of_version, key=lambda d: (d.decision.model, d.position)))

    def decided_versions(self) -> Sequence[Position]:
        """See EventLog."""
        return sorted({logged.decision.version for logged in self._decisions.values()})

    def count_decisions(self) -> int:
        """See EventLog."""
        return len(self._decisions)

    def sealed(self, version: ExperimentVersion, *, after: Time, until: Time) -> Iterator[SealedDecision]:
        """See EventLog."""
        for logged in list(self._decisions.values()):
            deadline = Time(logged.time + version.experiment.reward.window)
            if logged.decision.version == version.position and after < deadline <= until:
                yield self._sealed(logged, deadline)

    def _sealed(self, logged: LoggedDecision, deadline: Time) -> SealedDecision:
        rewards = self._rewards.get(logged.position, [])
        shown_at, activation = self._activations.get(logged.position, (deadline, None))
        return SealedDecision(
            position=logged.position,
            deadline=deadline,
            decision=logged.decision,
            rewards=tuple([r.value * r.weight for at, r in rewards if at < deadline]),
            overridden=shown_at < deadline and activation is not None and activation.action is not None,
        )

    def next_deadline(self, version: ExperimentVersion, *, after: Time) -> Time | None:
        """See EventLog."""
        window = version.experiment.reward.window
        deadlines = (d.time + window for d in self._decisions.values() if d.decision.version == version.position)
        first = min((deadline for deadline in deadlines if deadline > after), default=None)
        return None if first is None else Time(first)

    def newest_model(self, experiment: ExperimentId, signature: str) -> tuple[Position, SavedModel] | None:
        """See EventLog."""
        positions = [m.position for m in self._models if (m.experiment, m.signature) == (experiment, signature)]
        newest = max(positions, default=START)
        saved = self._models.get(PublishedModel(experiment, newest, signature))
        return (newest, saved) if saved else None

    def published(self, experiment: ExperimentId, signature: str) -> Sequence[Position]:
        """See EventLog."""
        return [m.position for m in self._published if (m.experiment, m.signature) == (experiment, signature)]

    def load_model(self, model: PublishedModel) -> SavedModel | None:
        """See EventLog."""
        return self._models.get(model)

    def publish(self, model: PublishedModel, saved: SavedModel, *, learned: int, keep: int) -> None:  # noqa: ARG002
        """See EventLog."""
        self._models[model] = saved
        self._published.append(model)
        same = sorted((m for m in self._models if m.experiment == model.experiment), key=lambda m: m.position)
        newest_of_spec = {m.signature: m for m in same}
        for old in same[:-keep]:
            if old != newest_of_spec[old.signature]:
                del self._models[old]

    def maintain(self) -> None:
        """See EventLog."""

    def close(self) -> None:
        """See EventLog."""
