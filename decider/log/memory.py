"""The log in memory, for tests and small simulations: the same protocol and conformance suite, no file.

Any number of threads may write; one lock gives positions and times.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from decider.errors import LogError, LogLocked
from decider.experiment.aggregate import NamedReward
from decider.experiment.attribution import OpenDecision, SameId, credited
from decider.experiment.definition import ExperimentVersion
from decider.experiment.limits import Counts
from decider.experiment.origin import Origin
from decider.experiment.strata import measures_of_all, strata_of_all
from decider.experiment.unit_history import MAX_REWARDS, HistoryDefinition, PastDecision, PastReward, Seen
from decider.log.count_entries import count_change, count_decision, count_ended, count_reward
from decider.log.division import WholeShare
from decider.log.exposures import Exposures, FollowUp, ShownActivation, ShownDecision, ShownSeal, are_reached
from decider.log.forgotten import Removal, removals
from decider.log.group_commit import write_wanted
from decider.log.protocol import (
    EARLY_MICROSECONDS,
    END,
    MOST_EARLY,
    MOST_OPEN,
    MOST_UNITS,
    ArrowBatches,
    Base,
    ClosedDecision,
    CreditedDecision,
    Damage,
    DecisionLine,
    DecisionRef,
    DirectReward,
    EarlyActivation,
    Entry,
    Head,
    LeaveOut,
    LoggedDecision,
    LoggedReward,
    LogSizes,
    Mark,
    ModelName,
    NamedModel,
    NewActivation,
    NewBuild,
    NewLeaveOut,
    NewLink,
    NewModel,
    NewRecall,
    NewReward,
    NewRewardChange,
    NewSeal,
    NewSlate,
    NewUnitReward,
    NewUnitRewardChange,
    NewVersion,
    NewVersionNote,
    NewWithheld,
    OnProgress,
    Orphan,
    RefusedReward,
    RewardRef,
    SealedDecision,
    Serves,
    ServingChanges,
    TotalsCheckpoint,
    UnitDecision,
    UnitRewardRef,
    VersionName,
    can_change,
    units_of,
)
from decider.log.totals import (
    Totals,
    names_of,
)
from decider.policy.saved import SavedModel
from decider.types import (
    START,
    ActionId,
    Decision,
    DecisionId,
    ExperimentId,
    Position,
    RewardOutcome,
    Time,
    now,
    same_name,
)


class MemoryModels:
    """See ModelStore. What is published the log says; what is stored is here."""

    def __init__(self, names: Callable[[], Sequence[ModelName]]) -> None:
        self._names = names
        self._stored: dict[ModelName, SavedModel] = {}

    def _of(self, experiment: ExperimentId, signature: str) -> list[ModelName]:
        same = [name for name in self._stored if (name.experiment, name.signature) == (experiment, signature)]
        return sorted(same, key=lambda name: name.position)

    def newest(self, experiment: ExperimentId, signature: str) -> tuple[Position, SavedModel] | None:
        """See ModelReader."""
        same = self._of(experiment, signature)
        return (same[-1].position, self._stored[same[-1]]) if same else None

    def load(self, name: ModelName) -> SavedModel | None:
        """See ModelReader."""
        return self._stored.get(name)

    def stored_positions(self, experiment: ExperimentId, signature: str) -> Sequence[Position]:
        """See ModelReader."""
        return [name.position for name in self._of(experiment, signature)]

    def published_positions(self, experiment: ExperimentId, signature: str) -> Sequence[Position]:
        """See ModelReader."""
        return sorted(n.position for n in self._names() if (n.experiment, n.signature) == (experiment, signature))

    def last_published_position(self, experiment: ExperimentId, signature: str) -> Position:
        """See ModelReader."""
        return max(self.published_positions(experiment, signature), default=START)

    def base(self, experiment: ExperimentId, signature: str) -> Base | None:  # noqa: ARG002
        """See ModelReader. Nothing is archived out of memory."""
        return None

    def load_base(self, base: Base) -> SavedModel:
        """See ModelReader. There is none."""
        raise KeyError(base)

    def signatures(self, experiment: ExperimentId) -> Sequence[str]:
        """See ModelReader."""
        return list(dict.fromkeys(name.signature for name in self._names() if name.experiment == experiment))

    def store(self, name: ModelName, saved: SavedModel, *, keep_bytes: int, keep: Collection[str] = ()) -> int:
        """See ModelStore."""
        self._stored[name] = saved
        ours = sorted((n for n in self._stored if n.experiment == name.experiment), key=lambda n: -n.position)
        newest = {n.signature: n for n in reversed(ours) if n.signature in (name.signature, *keep)}.values()
        size = 0
        for one in ours:
            size += len(self._stored[one].data)
            if size > keep_bytes and one not in newest:
                del self._stored[one]
        return len(saved.data)


class MemoryLease:
    """See Lease."""

    def __init__(self, lock: threading.Lock) -> None:
        if not lock.acquire(blocking=False):
            raise LogLocked("memory: another server writes this log")
        self._lock = lock
        self.held, self.replaced = True, False

    def release(self) -> None:
        """See Lease."""
        if self.held:
            self.held = False
            self._lock.release()


class MemoryLog:
    """See EventLog."""

    name = "memory"
    trouble: LogError | None = None
    hosts: None = None
    warnings: Sequence[str] = ()

    def __init__(self, *, clock: Callable[[], Time] = now) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._leading = threading.Lock()
        self._lease: MemoryLease | None = None
        self._share = WholeShare(None)
        self._times: list[Time] = [Time(0)]
        self._build = START
        self._entries: list[tuple[Mark, Entry]] = []
        self._versions: dict[Position, ExperimentVersion] = {}
        self._serving: dict[ExperimentId, Position] = {}
        self._waiting: dict[ExperimentId, Position] = {}
        self._origins: dict[Position, Origin] = {}
        self._decisions: dict[DecisionId, LoggedDecision] = {}
        self._rewards: dict[Position, list[tuple[Mark, NewReward]]] = {}
        self._by_id: dict[tuple[Position, str], RewardRef] = {}
        self._changes: dict[Position, list[tuple[Mark, NewRewardChange]]] = {}
        self._activations: dict[Position, tuple[Mark, NewActivation]] = {}
        self._recalls: dict[Position, Seen] = {}
        self._seals: dict[Position, Mark] = {}
        self._located: dict[Position, LoggedDecision] = {}
        self._persons: dict[str, frozenset[str]] = {}
        self._unit_rewards: dict[Position, tuple[NewUnitReward, Position]] = {}
        self._early: dict[DecisionId, tuple[Time, EarlyActivation]] = {}
        self._unique: set[Any] = set()
        self._refused: Counter[tuple[str, str]] = Counter()
        self._assignments: dict[tuple[ExperimentId, str], tuple[Time, DecisionId]] = {}
        self._exposures = Exposures()
        self._withheld: dict[Position, Mapping[ActionId, str]] = {}
        self._totals: TotalsCheckpoint | None = None
        self.models = MemoryModels(lambda: [entry.name for _, entry in self._of_kind(NewModel)])

    def append(self, entries: Sequence[Entry]) -> list[Mark | None]:
        """See EventLog."""
        with self._lock:
            return write_wanted(entries, self._write, is_overtaken=self._is_overtaken)

    def _is_overtaken(self, version: Position) -> bool:
        return self._serving[self._versions[version].experiment.id] > version

    def _write(self, entries: list[Entry]) -> list[Mark | None]:
        at = Time(max(self._clock(), self._times[-1]))
        return [self._append_any(entry, at) for entry in entries]

    def _activate_early(self, decision: Decision, mark: Mark) -> None:
        """Write what is remembered for a new decision."""
        remembered, early = self._early.pop(decision.decision_id, (mark.time, None))
        if early is not None and remembered > mark.time - EARLY_MICROSECONDS:
            self._append(_activation(mark.position, decision, early), mark.time)

    def _remember(self, entry: EarlyActivation, at: Time) -> Mark | None:
        logged = self._decisions.get(entry.decision_id)
        if logged is not None:
            return self._append(_activation(logged.position, logged.decision, entry), at)
        if entry.decision_id in self._early and self._early[entry.decision_id][0] > at - EARLY_MICROSECONDS:
            return None
        self._early.pop(entry.decision_id, None)  # an old one: the new one goes to the end
        self._early[entry.decision_id] = (at, entry)
        if len(self._early) > MOST_EARLY:
            del self._early[next(iter(self._early))]
        return Mark(START, at)

    def _append_any(self, entry: Entry, at: Time) -> Mark | None:
        match entry:
            case NewSlate():
                return self._append_slate(entry, at)
            case UnitDecision():
                return self._append_of_unit(entry, at)
            case NewUnitReward():
                return self._append_unit_reward(entry, at)
            case NewUnitRewardChange():
                return self._append_unit_change(entry, at)
            case NewRewardChange() if (entry.decision, entry.reward_id) not in self._by_id:
                return self._append_early_change(entry, at)
            case NewLink():
                return self._append_link(entry, at)
            case NewVersion() | NewLeaveOut():
                return self._append_with_origin(entry, at)
            case _:
                return self._append(entry, at)

    def _append_with_origin(self, entry: NewVersion | NewLeaveOut, at: Time) -> Mark | None:
        mark = self._append(entry, at)
        if mark is not None and any(entry.origin):
            self._append(NewVersionNote(mark.position, entry.origin), at)
        return mark

    def _append_of_unit(self, new: UnitDecision, at: Time) -> Mark | None:
        """The decision and what belongs to it; or nothing."""
        experiment = self._versions[new.decision.version].experiment.id
        if not self._is_current(new, experiment, at):
            return None
        if new.keep and _key(new.decision) not in self._unique:  # first: an early override ends it
            self._assignments[experiment, new.decision.unit_id] = (Time(at + new.keep), new.decision.decision_id)
        mark = self._append(new.decision, at)
        self._append_beside(mark, new)
        return mark

    def _end_assignment(self, decision: Position) -> None:
        """What SQLite's `end_assignment` does."""
        logged = self._located.get(decision)
        if logged is None or logged.decision.version not in self._versions:
            return
        kept = self._version(logged).experiment.id, logged.decision.unit_id
        if self._assignments.get(kept, (Time(0), None))[1] == logged.decision.decision_id:
            del self._assignments[kept]

    def _append_beside(self, mark: Mark | None, new: UnitDecision) -> None:
        """What was withheld for a decision that was written, and from what its unit's history was read."""
        if mark is not None and new.withheld:
            self._append(NewWithheld(mark.position, new.withheld), mark.time)
        if mark is not None and new.seen is not None:
            self._append(NewRecall(mark.position, new.seen), mark.time)

    def _append_unit_reward(self, reward: NewUnitReward, at: Time, *, told: bool = False) -> Mark | None:
        open_, same = self._open_decisions(reward.unit, reward.experiment, at), self._same_id(reward, at)
        new = credited(open_, reward.name, reward.value, same)
        was_sent = reward.reward_id is not None and self.find_unit_reward(reward.unit, reward.reward_id) is not None
        if was_sent or new is None:
            if not told:
                self._refused[reward.name, RewardOutcome.DUPLICATE] += 1
            return None
        mark = self._append(reward, at)
        assert mark is not None, "it was not there"
        for one in new:
            self._append(reward.credit(*one), at)
        self._unit_rewards[mark.position] = (reward, Position(len(self._times) - 1))
        if not new:
            self._refused[reward.name, RewardOutcome.NO_DECISION] += 1
        return mark

    def _creditable(self, unit: str, at: Time) -> list[LoggedDecision]:
        """The person's decisions whose windows would be open at a time, if no final reward had closed them."""
        units = self.units_of(unit)
        return [
            logged
            for logged in self._logged_decisions()
            if logged.decision.unit_id in units
            and self._version(logged).experiment.reward.attribution is not None
            and at < self._usual_deadline(logged)
        ]

    def _open_decisions(self, unit: str, experiment: ExperimentId | None, at: Time) -> Sequence[OpenDecision]:
        found = [
            logged
            for logged in self._creditable(unit, at)
            if experiment in (None, self._version(logged).experiment.id) and logged.position not in self._seals
        ]
        return [self._open_decision(logged) for logged in found[-MOST_OPEN:]]

    def _open_decision(self, logged: LoggedDecision) -> OpenDecision:
        _, activation = self._activations.get(logged.position, (None, None))
        overridden = activation is not None and activation.action is not None
        return OpenDecision(logged.position, self._version(logged), activation is not None, overridden)

    def _same_id(self, reward: NewUnitReward, at: Time) -> Sequence[SameId]:
        """The rewards with its id that named a decision."""
        if reward.reward_id is None:
            return ()
        found = [
            SameId(logged.position, self._version(logged).experiment.id, ref.name)
            for logged in self._creditable(reward.unit, at)[-MOST_OPEN:]
            if (ref := self._by_id.get((logged.position, reward.reward_id))) is not None
        ]
        return [one for one in found if reward.experiment in (None, one.experiment)]

    def _credited_in_experiment(self, reward: NewReward | NewRewardChange) -> Position | None:
        """The reward by unit that the experiment of a decision has under that id and name."""
        logged = self._located.get(reward.decision)
        if reward.reward_id is None or logged is None:
            return None
        own, experiment = logged.decision.unit_id, self._version(logged).experiment.id
        found = [
            (sent.unit == own, at)
            for at, (sent, _) in self._unit_rewards.items()
            if sent.unit in self.units_of(own)
            and sent.reward_id == reward.reward_id
            and same_name(sent.name, reward.name)
            and any(
                self._version(self._located[one.decision]).experiment.id == experiment for one in self._credited(at)
            )
        ]
        return max(found)[1] if found else None

    def _append_early_change(self, change: NewRewardChange, at: Time) -> Mark | None:
        """Of each reward that was credited, where the same purchase has come by unit."""
        of = self._credited_in_experiment(change)
        if of is None:
            return self._append(change, at)
        changes = [
            replace(change, decision=one.decision, name=one.name, weight=one.weight) for one in self._credited(of)
        ]
        marks = [self._append_change(one, at) for one in changes]
        return next((mark for mark in marks if mark is not None), None)

    def _append_change(self, change: NewRewardChange, at: Time) -> Mark | None:
        if can_change(change.name, change.weight, change.value):
            return self._append(change, at)
        self._refused[change.name, RewardOutcome.DUPLICATE] += 1
        return None

    def _append_unit_change(self, change: NewUnitRewardChange, at: Time) -> Mark | None:
        found = self.find_unit_reward(change.unit, change.reward_id)
        named = self._by_decision(change.unit, change.reward_id, change.experiment, at)
        meant = [one for one in named if one.is_changed_by(change)]
        made = self._append_unit_reward(change.missing_reward(), at, told=bool(meant)) if found is None else None
        of = found.position if found else made.position if made else START
        changes = [change.of_credited(one.decision, one.name, one.weight) for one in self._credited(of)]
        changes += [change.of_credited(one.place.position, one.name, one.weight) for one in meant]
        marks = [self._append_change(one, at) for one in changes]
        return next((mark for mark in marks if mark is not None), None)

    def _credited(self, unit_reward: Position) -> Sequence[NewReward]:
        """The rewards that belong to a reward by unit."""
        _, last = self._unit_rewards.get(unit_reward, (None, START))
        return [entry for _, entry in self._entries[unit_reward:last] if isinstance(entry, NewReward)]

    def _append_link(self, link: NewLink, at: Time) -> Mark | None:
        units = {*self.units_of(link.unit), *self.units_of(link.same_as)}
        if link.same_as in self.units_of(link.unit) or len(units) > MOST_UNITS:
            return None
        self._persons |= dict.fromkeys(units, frozenset(units))
        return self._append(link, at)

    def _is_current(self, new: UnitDecision, experiment: ExperimentId, at: Time) -> bool:
        """Whether what the decision depends on is still so."""
        kept = self.assigned(experiment, new.decision.unit_id, at=at) if new.keep else None
        return (kept is None or kept.position == new.replaces) and self._are_reached([new], at)

    def _are_reached(self, new: Sequence[UnitDecision], at: Time) -> bool:
        """Whether the limits that decisions of a unit name are those that are used up, one after the other."""
        version = self._versions[new[0].decision.version]
        if version.limits is None:
            return True
        counts = self._exposures.counts(version, new[0].decision.unit_id, at)
        return are_reached(version, [(one.decision, one.reached) for one in new], counts)

    def _append_slate(self, slate: NewSlate, at: Time) -> Mark | None:
        new = units_of(slate)
        if any(_key(one.decision) in self._unique for one in new) or not self._are_reached(new, at):
            return None
        marks = [self._append(one.decision, at) for one in new]
        for mark, one in zip(marks, new, strict=True):
            self._append_beside(mark, one)
        return marks[0]

    def _append(self, entry: Entry, at: Time) -> Mark | None:
        if isinstance(entry, EarlyActivation):
            return self._remember(entry, at)
        if isinstance(entry, NewRewardChange) and not self._has_reward(entry, at):
            return None
        key = _key(entry)
        is_by_unit = isinstance(entry, NewReward) and self._credited_in_experiment(entry) is not None
        if isinstance(entry, Orphan | RefusedReward) or is_by_unit or (key is not None and key in self._unique):
            self._count_refused(entry)
            return None
        self._unique.add(key)
        mark = Mark(Position(len(self._times)), at)
        self._times.append(at)
        self._entries.append((mark, entry))
        self._index(entry, mark)
        if isinstance(entry, Decision):
            self._activate_early(entry, mark)
        if isinstance(entry, NewReward | NewRewardChange) and entry.final:
            self._seal_early(self._located[entry.decision], mark)
        return mark

    def _has_reward(self, change: NewRewardChange, at: Time) -> bool:
        """Whether there is a reward to change: it is made where it has not come yet."""
        there = (change.decision, change.reward_id) in self._by_id
        return there or self._append(change.missing_reward(), at) is not None

    def _seal_early(self, logged: LoggedDecision, last: Mark) -> None:
        if self._in_time(last, logged) and last.time < self._deadline(logged):
            self._append(NewSeal(logged.position, logged.decision.version), last.time)

    def _count_refused(self, entry: Entry) -> None:
        match entry:
            case Orphan():
                self._refused[entry.name, RewardOutcome.ORPHAN] += 1
            case RefusedReward():
                self._refused[entry.name, entry.outcome] += 1
            case NewReward() | NewRewardChange():
                self._refused[entry.name, RewardOutcome.DUPLICATE] += 1

    def _index(self, entry: Entry, mark: Mark) -> None:
        match entry:
            case Decision():
                self._decisions[entry.decision_id] = LoggedDecision(*mark, entry, self._build)
                self._located[mark.position] = self._decisions[entry.decision_id]
                if entry.version in self._versions:  # else it is of another log, and has no limits here
                    self._exposures.add(self._shown(mark, entry))
            case NewReward():
                self._rewards.setdefault(entry.decision, []).append((mark, entry))
                if entry.reward_id is not None:
                    ref = RewardRef(mark.position, entry.name, entry.weight)
                    self._by_id[entry.decision, entry.reward_id] = ref
            case NewRewardChange():
                reward = self._by_id[entry.decision, entry.reward_id].position
                self._changes.setdefault(reward, []).append((mark, entry))
            case NewActivation():
                self._activations[entry.decision] = (mark, entry)
                self._exposures.activate(ShownActivation(*mark, entry.decision, entry.action))
                if entry.action is not None:
                    self._end_assignment(entry.decision)
            case NewRecall():
                self._recalls[entry.decision] = entry.seen
            case NewSeal():
                self._seals[entry.decision] = mark
                self._exposures.seal(ShownSeal(*mark, entry.decision))
                self._end_assignment(entry.decision)
            case NewWithheld():
                self._withheld[entry.decision] = entry.rules
            case NewVersion():
                self._versions[mark.position] = ExperimentVersion(
                    entry.experiment, number=entry.number, position=mark.position, time=mark.time
                )
                self._note_version(entry, mark.position)
            case Serves():
                id_ = self._versions[entry.version].experiment.id
                if self._waiting.get(id_) == entry.version:
                    self._serving[id_] = self._waiting.pop(id_)
            case NewVersionNote():
                self._origins[entry.version] = entry.origin

    def _note_version(self, entry: NewVersion, position: Position) -> None:
        """The rules of `serving/lineup.py`."""
        id_ = entry.experiment.id
        if entry.waits and id_ in self._serving:
            self._waiting[id_] = position
        else:
            self._serving[id_] = position
            self._waiting.pop(id_, None)

    def name_build(self, build: Mapping[str, Any]) -> Position:
        """See EventLog."""
        (mark,) = self.append([NewBuild(build)])
        assert mark is not None
        self._build = mark.position
        return mark.position

    def lease(self) -> MemoryLease:
        """See EventLog."""
        self._lease = MemoryLease(self._leading)
        return self._lease

    def share(self) -> WholeShare:
        """See EventLog."""
        self._share.release()
        self._share = WholeShare(self._lease)
        return self._share

    def _of_kind(self, kind: type[Any]) -> list[tuple[Mark, Any]]:
        return [(mark, entry) for mark, entry in list(self._entries) if isinstance(entry, kind)]

    def head(self) -> Head:
        """See LogReader. Nothing can be changed behind its back, so there is no chain."""
        with self._lock:
            return Head(Position(len(self._times) - 1), self._times[-1], b"")

    def time_at(self, position: Position) -> Time:
        """See LogReader."""
        return self._times[position]

    def cut(self) -> Mark:
        """See LogReader. Nothing is archived out of memory."""
        return Mark(START, Time(0))

    def check_archive(self, experiment: ExperimentId, *, after: Time, late: Mark | None = None) -> None:
        """See LogReader."""

    def versions(self) -> Sequence[ExperimentVersion]:
        """See LogReader."""
        return list(self._versions.values())

    def version_at(self, position: Position) -> ExperimentVersion:
        """See LogReader."""
        return self._versions[position]

    def newest_versions(self, experiment: ExperimentId, *, most: int) -> Sequence[Position]:
        """See LogReader."""
        found = [version.position for version in self.versions() if version.experiment.id == experiment]
        return found[::-1][:most]

    def origins(self, versions: Collection[Position]) -> Mapping[Position, Origin]:
        """See LogReader."""
        return {position: self._origins[position] for position in versions if position in self._origins}

    def experiment_ids(self, positions: Collection[Position]) -> Mapping[Position, ExperimentId]:
        """See LogReader."""
        return {position: self._versions[position].experiment.id for position in positions}

    def action_kinds(self, experiment: ExperimentId) -> Mapping[ActionId, str]:
        """See LogReader."""
        ours = [version.experiment for version in self.versions() if version.experiment.id == experiment]
        return {action.id: action.kind for version in ours for action in version.actions}

    def follow(self, after: Position) -> ServingChanges:
        """See LogReader."""
        head = self.head().position
        new = [(mark.position, entry) for mark, entry in list(self._entries)[after:head]]
        models = {(e.name.experiment, e.name.signature): (p, e.name) for p, e in new if isinstance(e, NewModel)}
        return ServingChanges(
            head=head,
            versions=[(VersionName(p, e.experiment.id), e.waits) for p, e in new if isinstance(e, NewVersion)],
            serves=[(p, e.version) for p, e in new if isinstance(e, Serves)],
            models=sorted(models.values()),
            leave_outs=[(p, e.experiment) for p, e in new if isinstance(e, NewLeaveOut)],
        )

    def leave_outs(self, experiment: ExperimentId) -> Sequence[LeaveOut]:
        """See LogReader."""
        made = [LeaveOut(*mark, entry) for mark, entry in self._of_kind(NewLeaveOut)]
        return [one for one in made if one.entry.experiment == experiment]

    def builds(self) -> Mapping[Position, Mapping[str, Any]]:
        """See LogReader."""
        return {mark.position: entry.build for mark, entry in self._of_kind(NewBuild)}

    def removals(self) -> Sequence[Removal]:
        """See LogReader."""
        return removals(self.builds().values())

    def find(self, decision_id: DecisionId) -> LoggedDecision | None:
        """See LogReader."""
        return self._decisions.get(decision_id)

    def assigned(self, experiment: ExperimentId, unit: str, *, at: Time) -> LoggedDecision | None:
        """See LogReader."""
        until, decision_id = self._assignments.get((experiment, unit), (Time(0), DecisionId("")))
        return self.find(decision_id) if until > at else None

    def unit_history(
        self, experiment: ExperimentId, unit: str, history: HistoryDefinition, *, at: Time
    ) -> tuple[Seen, Sequence[PastDecision]]:
        """See LogReader."""
        head = self.head()
        seen = Seen(START, head.position, Time(max(at, head.time)))
        return seen, self.unit_history_at(experiment, unit, history, seen)

    def unit_history_at(
        self, experiment: ExperimentId, unit: str, history: HistoryDefinition, seen: Seen
    ) -> Sequence[PastDecision]:
        """See LogReader."""
        mine = [
            logged
            for logged in self._logged_decisions()
            if seen.after < logged.position <= seen.until
            and logged.position in self._recalls
            and (self._version(logged).experiment.id, logged.decision.unit_id) == (experiment, unit)
        ]
        newest = sorted(mine, key=lambda logged: logged.position)[-history.most :]
        return tuple([self._past(one, seen) for one in newest if one.time > seen.time - history.period])

    def _past(self, logged: LoggedDecision, seen: Seen) -> PastDecision:
        mark, activation = self._activations.get(logged.position, (Mark(START, Time(0)), None))
        activated = activation is not None and mark.position <= seen.until
        return PastDecision(
            *(logged.position, logged.time),
            action=(activation.action if activation and activated else None) or logged.decision.action,
            channel=logged.decision.context.channel,
            activated=activated,
            counts=self._version(logged).counts(activated=activated),
            deadline=self._deadline_then(logged, seen),
            rewards=self._past_rewards(logged.position, seen),
        )

    def _deadline_then(self, logged: LoggedDecision, seen: Seen) -> Time:
        seal = self._seals.get(logged.position)
        return seal.time if seal is not None and seal.position <= seen.until else self._usual_deadline(logged)

    def _past_rewards(self, decision: Position, seen: Seen) -> tuple[PastReward, ...]:
        """Those that had come by then, with the values that they had then."""
        there = [(mark, one) for mark, one in self._rewards.get(decision, []) if mark.position <= seen.until]
        there.sort(key=lambda one: (one[1].reward_id is not None, one[1].reward_id or "", one[0].position))
        values = [
            (mark, reward, self._value_at(mark, reward, seen))
            for mark, reward in sorted(there[:MAX_REWARDS], key=lambda one: one[0])
        ]
        return tuple(
            [PastReward(*mark, one.name, value, one.weight) for mark, one, value in values if value is not None]
        )

    def _value_at(self, mark: Mark, reward: NewReward, seen: Seen) -> float | None:
        changes = [one.value for at, one in self._changes.get(mark.position, []) if at.position <= seen.until]
        return changes[-1] if changes else reward.value

    def recall(self, decision: Position) -> Seen | None:
        """See LogReader."""
        return self._recalls.get(decision)

    def limit_counts(self, version: ExperimentVersion, unit: str, *, at: Time) -> Counts:
        """See LogReader."""
        with self._lock:
            return self._exposures.counts(version, unit, at)

    def withheld(self, decision: Position) -> Mapping[ActionId, str]:
        """See LogReader."""
        return self._withheld.get(decision, {})

    def shown_decisions(self) -> Iterator[tuple[ShownDecision, FollowUp | None]]:
        """See LogReader."""
        for mark, entry in self._of_kind(Decision):
            if self._versions[entry.version].limits is not None:
                yield self._shown(mark, entry), self._follow_up(mark.position)

    def _follow_up(self, decision: Position) -> FollowUp | None:
        said, seal = self._activations.get(decision), self._seals.get(decision)
        if said is not None and (seal is None or said[0].position < seal.position):
            return ShownActivation(*said[0], decision, said[1].action)
        return None if seal is None else ShownSeal(*seal, decision)

    def _shown(self, mark: Mark, entry: Decision) -> ShownDecision:
        return ShownDecision(*mark, self._versions[entry.version], entry.unit_id, entry.action, entry.action_features)

    def locate(self, decision_id: DecisionId) -> DecisionRef | None:
        """See LogReader."""
        logged = self.find(decision_id)
        return _ref(logged) if logged else None

    def locate_all(self, ids: Sequence[DecisionId]) -> list[DecisionRef | None]:
        """See LogReader."""
        return [self.locate(id_) for id_ in ids]

    def find_reward(self, decision: Position, reward_id: str) -> RewardRef | None:
        """See LogReader."""
        return self._by_id.get((decision, reward_id))

    def units_of(self, unit: str) -> Sequence[str]:
        """See LogReader."""
        return sorted(self._persons.get(unit, {unit}))

    def persons(self) -> Mapping[str, str]:
        """See LogReader."""
        return {unit: min(units) for unit, units in self._persons.items()}

    def find_unit_reward(self, unit: str, reward_id: str) -> UnitRewardRef | None:
        """See LogReader."""
        units, sent = self.units_of(unit), reversed(self._unit_rewards.items())
        found = [one for one in sent if one[1][0].unit in units and one[1][0].reward_id == reward_id]
        found.sort(key=lambda one: one[1][0].unit != unit)  # its own first
        return (
            UnitRewardRef(found[0][0], found[0][1][0].name, found[0][1][1], found[0][1][0].experiment)
            if found
            else None
        )

    def by_decision(self, unit: str, reward_id: str, experiment: ExperimentId | None) -> Sequence[DirectReward]:
        """See LogReader."""
        return self._by_decision(unit, reward_id, experiment, self.head().time)

    def _by_decision(
        self, unit: str, reward_id: str, experiment: ExperimentId | None, at: Time
    ) -> Sequence[DirectReward]:
        credited = {
            (one.decision, one.reward_id) for position in self._unit_rewards for one in self._credited(position)
        }
        return [
            DirectReward(logged.decision.decision_id, _ref(logged), mark.position, one.name, one.value, one.weight)
            for logged in self._creditable(unit, at)[-MOST_OPEN:]
            if experiment in (None, self._version(logged).experiment.id)
            and (logged.position, reward_id) not in credited
            for mark, one in self._rewards.get(logged.position, [])
            if one.reward_id == reward_id
        ]

    def open_decisions(self, unit: str, experiment: ExperimentId | None) -> Sequence[OpenDecision]:
        """See LogReader."""
        return self._open_decisions(unit, experiment, self.head().time)

    def credits(self, unit_reward: Position) -> Sequence[CreditedDecision]:
        """See LogReader."""
        found = [(self._located[reward.decision], reward) for reward in self._credited(unit_reward)]
        return [
            CreditedDecision(
                logged.decision.decision_id,
                _ref(logged),
                reward.value * reward.weight,
            )
            for logged, reward in found
        ]

    def seals(self, decisions: Collection[Position], *, until: Position = END) -> Mapping[Position, Position]:
        """See LogReader."""
        found = {one: self._seals[one].position for one in decisions if one in self._seals}
        return {one: seal for one, seal in found.items() if seal <= until}

    def closed_decisions(self, version: Position, *, after: Time, until: Time) -> Sequence[ClosedDecision]:
        """See LogReader."""
        ended = [
            (self._usual_deadline(logged), self._seal(logged))
            for logged in self._logged_decisions()
            if logged.decision.version == version and logged.position in self._seals
        ]
        return [
            ClosedDecision(end, sealed.position, sealed.decision.unit_id, sealed.decision.reason, bool(sealed.rewards))
            for end, sealed in ended
            if after < end <= until and self._versions[version].counts(activated=sealed.activated)
        ]

    def _logged_decisions(self) -> list[LoggedDecision]:
        return list(self._decisions.values())

    def decisions(self, version: Position) -> Iterator[LoggedDecision]:
        """See LogReader."""
        of_version = [logged for logged in self._logged_decisions() if logged.decision.version == version]
        return iter(sorted(of_version, key=lambda logged: (logged.decision.model, logged.position)))

    def newest_decisions(self, version: Position, *, most: int) -> Sequence[DecisionLine]:
        """See LogReader."""
        newest = [*self.decisions(version)][::-1][:most]
        return [
            DecisionLine(one.decision.decision_id, one.time, one.decision.action, one.decision.reason) for one in newest
        ]

    def decisions_between(self, first: str, last: str) -> Iterator[LoggedDecision]:
        """See LogReader."""
        return iter([logged for logged in self._logged_decisions() if first <= logged.decision.decision_id < last])

    def rewards_between(self, first: str, last: str) -> Iterator[LoggedReward]:
        """See LogReader."""
        rewards = [
            LoggedReward(
                *mark, logged.decision.decision_id, reward.name, reward.value, reward.weight, reward.reward_id,
                self._outcome(mark, reward, logged), self._in_force(mark, reward, self._end(logged)),
            )
            for logged in self.decisions_between(first, last)
            for mark, reward in self._rewards.get(logged.position, [])
        ]  # fmt: skip
        return iter(sorted(rewards, key=lambda reward: reward.position))

    def named_models(self, after: Position) -> Sequence[NamedModel]:
        """See LogReader."""
        found: dict[tuple[Position, Position], Position] = {}
        for logged in self._logged_decisions():
            if logged.position > after:
                key, model = (logged.decision.version, logged.build or START), logged.decision.model
                found[key] = min(found.get(key, model), model)
        return [NamedModel(*key, model) for key, model in sorted(found.items())]

    def versions_with_decisions(self) -> Sequence[Position]:
        """See LogReader."""
        return sorted({logged.decision.version for logged in self._logged_decisions()})

    def count_decisions(self, experiment: ExperimentId | None = None) -> int:
        """See LogReader."""
        return sum(experiment in (None, self._version(logged).experiment.id) for logged in self._logged_decisions())

    def count_decided(self, experiment: ExperimentId, *, after: Mark, until: Mark) -> int:
        """See LogReader."""
        between = [one for one in self._logged_decisions() if after.position < one.position <= until.position]
        return sum(
            one.id == experiment and one.learns for one in (self._version(logged).experiment for logged in between)
        )

    def count_learned(self, experiment: ExperimentId) -> int:
        """See LogReader."""
        return sum(
            self._versions[one.decision.version].learns_from(
                one.decision.reason, activated=one.activated, overridden=one.overridden
            )
            for one in self.sealed_decisions(experiment, after=Time(0), until=self.head().time)
        )

    def _version(self, logged: LoggedDecision) -> ExperimentVersion:
        return self._versions[logged.decision.version]

    def _deadline(self, logged: LoggedDecision) -> Time:
        if logged.position in self._seals:
            return Time(self._seals[logged.position].time + 1)
        return self._usual_deadline(logged)

    def _usual_deadline(self, logged: LoggedDecision) -> Time:
        return Time(logged.time + self._version(logged).experiment.reward.window)

    def _end(self, logged: LoggedDecision) -> Mark:
        """What is said about a decision before it counts."""
        if logged.position in self._seals:
            seal = self._seals[logged.position]
            return Mark(Position(seal.position - 1), Time(seal.time + 1))
        return Mark(Position(2**63 - 1), self._deadline(logged))

    def _in_time(self, mark: Mark, logged: LoggedDecision) -> bool:
        """Whether what was said about a decision counts."""
        return _is_before(mark, self._end(logged))

    def sealed_decisions(self, experiment: ExperimentId, *, after: Time, until: Time) -> Iterator[SealedDecision]:
        """See LogReader."""
        due = [self._seal(logged) for logged in self._due(experiment, after, until)]
        return iter(sorted(due, key=lambda sealed: (sealed.deadline, sealed.position)))

    def _due(self, experiment: ExperimentId, after: Time, until: Time) -> list[LoggedDecision]:
        return [
            logged
            for logged in self._logged_decisions()
            if self._version(logged).experiment.id == experiment and after < self._deadline(logged) <= until
        ]

    def sealed_with_late(
        self, experiment: ExperimentId, *, after: Time, until: Time, late: Mark
    ) -> Iterator[SealedDecision]:
        """See LogReader."""
        due = [self._seal_with_late(logged, late) for logged in self._due(experiment, after, until)]
        return iter(sorted(due, key=lambda sealed: (sealed.deadline, sealed.position)))

    def _seal_with_late(self, logged: LoggedDecision, late: Mark) -> SealedDecision:
        is_over = self._deadline(logged) <= late.time
        end = Mark(late.position, Time(2**63 - 1)) if is_over else self._end(logged)
        counted = [
            (reward.name, value, reward.weight)
            for mark, reward in self._rewards.get(logged.position, [])
            if _is_before(mark, end) and (value := self._in_force(mark, reward, end)) is not None
        ]
        return replace(
            self._seal(logged),
            rewards=tuple([value * weight for _, value, weight in counted]),
            named=tuple([NamedReward(name, value) for name, value, _ in counted]),
        )

    def _seal(self, logged: LoggedDecision) -> SealedDecision:
        rewards = self._rewards.get(logged.position, [])
        end = self._end(logged)
        said, activation = self._activations.get(logged.position, (None, None))
        activated = said is not None and self._in_time(said, logged)
        shown = activation.action if activation is not None and activated else None
        return SealedDecision(
            position=logged.position,
            time=logged.time,
            deadline=self._deadline(logged),
            decision=logged.decision,
            rewards=tuple(
                [
                    value * reward.weight
                    for mark, reward in rewards
                    if self._in_time(mark, logged) and (value := self._in_force(mark, reward, end)) is not None
                ]
            ),
            overridden=shown is not None,
            activated=activated,
            shown=shown,
        )

    def _named_in_time(self, logged: LoggedDecision) -> tuple[NamedReward, ...]:
        """Rewards in force when the window was over, without their weights."""
        end = self._end(logged)
        return tuple(
            [
                NamedReward(reward.name, value)
                for mark, reward in self._rewards.get(logged.position, [])
                if _is_before(mark, end) and (value := self._in_force(mark, reward, end)) is not None
            ]
        )

    def _in_force(self, mark: Mark, reward: NewReward, end: Mark) -> float | None:
        """The value that the last change before the end gave it; None: it was taken back."""
        changes = [one.value for at, one in self._changes.get(mark.position, []) if _is_before(at, end)]
        return changes[-1] if changes else reward.value

    def _outcome(self, mark: Mark, reward: NewReward, logged: LoggedDecision) -> RewardOutcome:
        if not self._in_time(mark, logged):
            return RewardOutcome.LATE
        inside = self._version(logged).experiment.reward.holds(reward.value * reward.weight)
        return RewardOutcome.JOINED if inside else RewardOutcome.CLIPPED

    def next_deadline(self, *, after: Time, experiment: ExperimentId | None = None) -> Time | None:
        """See LogReader."""
        ours = [one for one in self._logged_decisions() if experiment in (None, self._version(one).experiment.id)]
        ends = [*map(self._deadline, ours), *map(self._usual_deadline, ours)]
        return min((deadline for deadline in ends if deadline > after), default=None)

    def first_deadlines(self, *, after: Time) -> Mapping[ExperimentId, Time]:
        """See LogReader."""
        ids = {version.experiment.id for version in self.versions()}
        first = {id_: self.next_deadline(after=after, experiment=id_) for id_ in ids}
        return {id_: deadline for id_, deadline in first.items() if deadline is not None}

    def arrow(self, experiment: ExperimentId, head: Head) -> ArrowBatches:
        """See LogReader."""
        from decider.log.memory_arrow import arrow_batches

        logged = [
            (
                one,
                self._seal(one),
                self._version(one),
                [
                    (mark, reward, self._in_force(mark, reward, self._end(one)), self._in_time(mark, one))
                    for mark, reward in self._rewards.get(one.position, [])
                ],
            )
            for one in self._logged_decisions()
            if self._version(one).experiment.id == experiment
        ]
        return arrow_batches(logged, head)

    def totals(self, after: Mark, until: Mark) -> Totals:
        """See LogReader."""
        totals, versions = Totals(), self.versions()
        strata, measures = strata_of_all(versions), measures_of_all(versions)
        for logged in self._logged_decisions():
            if after.position < logged.position <= until.position:
                version = self._version(logged)
                count_decision(totals, logged, names_of(version), measures[logged.decision.version].first)
            if after.time < self._usual_deadline(logged) <= until.time:
                sealed = replace(self._seal(logged), named=self._named_in_time(logged))
                position = logged.decision.version
                count_ended(totals, sealed, self._version(logged), strata.get(position), measures[position])
        sent = [
            (mark, reward, logged)
            for logged in self._logged_decisions()
            for mark, reward in self._rewards.get(logged.position, [])
        ]
        for mark, reward, logged in sorted(sent, key=lambda one: one[0]):
            if after.position < mark.position <= until.position:
                outcome = self._outcome(mark, reward, logged)
                delay = mark.time - logged.time
                count_reward(totals, logged.decision.version, reward.name, reward.value, outcome, delay)
        changed = [
            (at, change, reward.name, logged)
            for mark, reward, logged in sent
            for at, change in self._changes.get(mark.position, [])
            if after.position < at.position <= until.position
        ]
        for at, change, name, logged in sorted(changed, key=lambda one: one[0]):
            count_change(totals, change, name, logged.decision.version, in_time=self._in_time(at, logged))
        return totals

    def totals_checkpoint(self, until: Mark | None = None) -> TotalsCheckpoint | None:
        """See LogReader. Only the last one is stored."""
        stored = self._totals
        if stored is None or (until and (stored.mark.position > until.position or stored.mark.time > until.time)):
            return None
        return stored

    def known_place(self, until: Position) -> Head:
        """See LogReader."""
        with self._lock:
            position = min(until, len(self._times) - 1)
            return Head(Position(position), self._times[position], b"")

    def store_totals(self, checkpoint: TotalsCheckpoint) -> None:
        """See EventLog."""
        self._totals = checkpoint

    def sizes(self) -> LogSizes:
        """See LogReader. It has no file."""
        return LogSizes(0, 0, 0, None)

    def refused_rewards(self) -> Mapping[tuple[str, str], int]:
        """See LogReader."""
        return dict(self._refused)

    def chain_start(self) -> None:
        """See LogReader."""

    def check(self, on_progress: OnProgress) -> Sequence[Damage]:
        """See LogReader. Nothing can be changed behind its back."""
        on_progress(self.head().position)
        return []

    def maintain(self) -> None:
        """See EventLog. There is nothing to do."""

    def close(self) -> None:
        """See EventLog."""


def _activation(position: Position, decision: Decision, early: EarlyActivation) -> NewActivation:
    return NewActivation(position, None if early.action == decision.action else early.action)


def _is_before(mark: Mark, end: Mark) -> bool:
    return mark.position <= end.position and mark.time < end.time


def _ref(logged: LoggedDecision) -> DecisionRef:
    return DecisionRef(logged.position, logged.time, logged.decision.version, logged.decision.action)


def _key(entry: Entry) -> Any:
    """The unique key of an entry; None for kinds without one."""
    match entry:
        case Decision():
            return "decision", entry.decision_id
        case NewReward() if entry.reward_id is not None:
            return "reward", entry.decision, entry.reward_id
        case NewRewardChange():
            return "change", entry.decision, entry.reward_id, entry.value, entry.occurred_at
        case NewActivation():
            return "activation", entry.decision
        case NewRecall():
            return "recall", entry.decision
        case NewSeal():
            return "seal", entry.decision
        case NewWithheld():
            return "withheld", entry.decision
        case NewVersion():
            return "version", entry.experiment.id, entry.number
        case NewVersionNote():
            return "version_note", entry.version
        case Serves():
            return "serves", entry.version
        case NewLeaveOut() if entry.replaces is not None:
            return "leave_out", entry.replaces
        case NewModel():
            return "model", entry.name
        case _:
            return None
