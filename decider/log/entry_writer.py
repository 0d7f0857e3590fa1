"""What an entry means for the rows of a commit: the same for every database.

Called by the writers of `sqlite/` and `postgres/`, inside the open transaction of a commit in which nobody else writes.
Which rows there are, and what they say, is decided here; `commit_tables.py` writes and finds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from decider.experiment.attribution import Credit, credited
from decider.experiment.definition import ExperimentVersion
from decider.log import chain
from decider.log.commit_tables import CommitTables, CreditedReward
from decider.log.exposures import ShownDecision, are_reached, exposure
from decider.log.protocol import (
    EarlyActivation,
    Entry,
    Head,
    Mark,
    NewActivation,
    NewLeaveOut,
    NewLink,
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
    Orphan,
    RefusedReward,
    UnitDecision,
    can_change,
    units_of,
)
from decider.log.tables import (
    DECISIONS,
    EXPERIMENTS,
    REWARD_CHANGES,
    REWARDS,
    SEALS,
    SERVES,
    UNIT_REWARDS,
    DecisionRows,
    EntryTable,
    change_row,
    head_after,
    parts,
    table_and_row,
    unit_reward_row,
)
from decider.types import START, ActionId, Decision, ExperimentId, Position, RewardOutcome, Time

MAX_REFUSED_NAMES = 50
OTHER_NAME = "other"

DECISION_ID, ACTION = map(DECISIONS.columns.index, ("decision_id", "action"))


class EntryWriter:
    """Writes entries of any kind. version_at: see LogReader."""

    def __init__(self, tables: CommitTables, version_at: Callable[[Position], ExperimentVersion]) -> None:
        self._tables = tables
        self._version_at = version_at
        self._units = UnitState(tables, version_at)
        self.decisions = DecisionRows(version_at)

    def write(self, commit: OpenCommit, entries: Sequence[Entry]) -> list[Mark | None]:
        """Entries in their order; the marks that `EventLog.append` gives."""
        marks: list[Mark | None] = []
        for _, alike in groupby([self._with_unit(entry) for entry in entries], type):
            for part in parts(list(alike)):
                marks += self._insert(commit, part)
        return marks

    def _with_unit(self, entry: Entry) -> Entry:
        """A decision for which others of its unit will ask, as one that says so."""
        return UnitDecision(entry) if isinstance(entry, Decision) and self.decisions.version_of(entry).limits else entry

    def _insert(self, commit: OpenCommit, entries: Sequence[Any]) -> list[Mark | None]:
        """Entries of one kind, with one statement where no unique key refuses one of them."""
        match entries[0]:
            case Orphan():
                return self._only_count(entries, RewardOutcome.ORPHAN)
            case RefusedReward():
                for outcome in sorted({one.outcome for one in entries}):
                    self._only_count([one for one in entries if one.outcome is outcome], outcome)
                return [None] * len(entries)
            case NewSlate():
                return [self._insert_slate(commit, one) for one in entries]
            case UnitDecision():
                return self._insert_of_units(commit, entries)
            case NewActivation():
                return self._insert_activations(commit, entries)
            case EarlyActivation():
                return self._insert_early(commit, entries)
            case NewReward():
                return self._insert_rewards(commit, entries)
            case NewRewardChange():
                return [self._insert_change(commit, one) for one in entries]
            case NewUnitReward():
                return [self._insert_unit_reward(commit, one) for one in entries]
            case NewUnitRewardChange():
                return [self._insert_unit_change(commit, one) for one in entries]
            case NewLink():
                return [self._insert_link(commit, one) for one in entries]
            case NewVersion() | NewLeaveOut():
                return [self._insert_with_origin(commit, one) for one in entries]
            case _:
                return self._insert_in(commit, *self._table_and_rows(entries))

    def _only_count(self, entries: Sequence[Orphan | RefusedReward], outcome: RewardOutcome) -> list[Mark | None]:
        self._tables.count_refused([entry.name for entry in entries], outcome)
        return [None] * len(entries)

    def _insert_rewards(self, commit: OpenCommit, rewards: Sequence[NewReward]) -> list[Mark | None]:
        """Rewards, and just behind each final one the seal of its decision."""
        marks: list[Mark | None] = []
        for some in _up_to_final(rewards):
            marks += self._insert_in(commit, *self._table_and_rows(some))
            if some[-1].final and marks[-1] is not None:
                self._seal(commit, some[-1].decision, marks[-1])
        return marks

    def _seal(self, commit: OpenCommit, decision: Position, last: Mark) -> None:
        """Close a decision's window behind its last entry, where it is not over."""
        version, time = self._tables.version_and_time(decision)
        if last.time < time + self._version_at(version).experiment.reward.window:
            self._insert(commit, [NewSeal(decision, version)])
            self._units.note_seal(decision)

    def _insert_change(self, commit: OpenCommit, change: NewRewardChange) -> Mark | None:
        """A change of a reward, which is looked up here, where nobody writes beside; made where it has not come yet."""
        if self._is_archived(change):
            return None
        reward = self._tables.find_reward(change.decision, change.reward_id)
        if reward is None:
            by_unit = self._tables.credited_in_experiment(change.decision, change.reward_id, change.name)
            if by_unit:
                return self._change_by_unit(commit, change, *by_unit)
            (made,) = self._insert(commit, [change.missing_reward()])
            if made is None:
                return None
            reward = made.position
        return self._change_reward(commit, change, reward)

    def _change_by_unit(self, commit: OpenCommit, change: NewRewardChange, of: Position, name: str) -> Mark | None:
        """A change of each reward that was credited with the same purchase; the first one's mark."""
        by_unit = NewUnitRewardChange("", change.reward_id, change.value, name, change.occurred_at, final=change.final)
        marks = [self._change_credited(commit, by_unit, one) for one in self._tables.credited_rewards(of)]
        return next((mark for mark in marks if mark is not None), None)

    def _is_archived(self, change: NewRewardChange) -> bool:
        """Whether it is of an archived decision, whose window is over: then it is only counted."""
        cut = self._tables.cut()
        if change.decision <= cut:
            self._tables.count_refused([change.name], RewardOutcome.LATE)
        return change.decision <= cut

    def _change_reward(self, commit: OpenCommit, change: NewRewardChange, reward: Position) -> Mark | None:
        (mark,) = self._insert_in(commit, REWARD_CHANGES, [change_row(change, reward)])
        if mark is None:
            self._tables.count_refused([change.name], RewardOutcome.DUPLICATE)
        elif change.final:
            self._seal(commit, change.decision, mark)
        return mark

    def _insert_unit_reward(self, commit: OpenCommit, reward: NewUnitReward, *, told: bool = False) -> Mark | None:
        """A reward by unit, then what is credited. The lock is held: nobody decides or rewards in between. told: it is
        no duplicate where all have it already; those are changed."""
        new = self._credited(reward, commit.last.time)
        if new is None:
            if not told:
                self._tables.count_refused([reward.name], RewardOutcome.DUPLICATE)
            return None
        last = Position(commit.last.position + 1 + len(new) * (2 if reward.final else 1))
        (mark,) = self._insert_in(commit, UNIT_REWARDS, [unit_reward_row(reward, last)])
        if mark is None:
            raise self._tables.fail("a reward by unit is refused that was not there")
        self._insert_rewards(commit, [reward.credit(*one) for one in new])
        if commit.last.position != last:
            raise self._tables.fail("a reward by unit has credited something else than was chosen")
        if not new:
            self._tables.count_refused([reward.name], RewardOutcome.NO_DECISION)
        return mark

    def _credited(self, reward: NewUnitReward, at: Time) -> Sequence[Credit] | None:
        """To what it is credited; None where the person has it already."""
        persons, id_ = self._tables.units_of(reward.unit), reward.reward_id
        if id_ is not None and self._tables.find_unit_reward(reward.unit, persons, id_):
            return None
        same = () if id_ is None else self._tables.same_id(persons, reward.experiment, at, id_)
        found = self._tables.open_decisions(persons, reward.experiment, at)
        return credited(found, reward.name, reward.value, same)

    def _insert_unit_change(self, commit: OpenCommit, change: NewUnitRewardChange) -> Mark | None:
        """A change of each reward that was credited, or sent for a decision; the first one's mark."""
        persons, at = self._tables.units_of(change.unit), commit.last.time
        found = self._tables.find_unit_reward(change.unit, persons, change.reward_id)
        sent = self._tables.by_decision(persons, change.experiment, at, change.reward_id)
        meant = [one for one in sent if one.is_changed_by(change)]
        made = self._insert_unit_reward(commit, change.missing_reward(), told=bool(meant)) if found is None else None
        of = found.position if found else made.position if made else START
        marks = [self._change_credited(commit, change, one) for one in self._tables.credited_rewards(of)]
        for one in meant:
            credit = CreditedReward(one.place.position, one.reward, one.name, one.weight)
            marks.append(self._change_credited(commit, change, credit))
        return next((mark for mark in marks if mark is not None), None)

    def _change_credited(self, commit: OpenCommit, change: NewUnitRewardChange, credit: CreditedReward) -> Mark | None:
        """By the place of the reward, not by its id: that may be forgotten."""
        new = change.of_credited(credit.decision, credit.name, credit.weight)
        if not can_change(credit.name, credit.weight, change.value):
            self._tables.count_refused([change.name], RewardOutcome.DUPLICATE)
            return None
        return None if self._is_archived(new) else self._change_reward(commit, new, credit.position)

    def _insert_link(self, commit: OpenCommit, link: NewLink) -> Mark | None:
        if not self._tables.join_persons(link.unit, link.same_as, Position(commit.last.position + 1)):
            return None
        (mark,) = self._insert_in(commit, *self._table_and_rows([link]))
        if mark is None:
            raise self._tables.fail("a link is refused that was not there")
        return mark

    def _insert_with_origin(self, commit: OpenCommit, entry: NewVersion | NewLeaveOut) -> Mark | None:
        """And just behind it who made it."""
        (mark,) = self._insert_in(commit, *self._table_and_rows([entry]))
        if mark is not None and any(entry.origin):
            self._insert(commit, [NewVersionNote(mark.position, entry.origin)])
        return mark

    def _insert_in(self, commit: OpenCommit, table: EntryTable, rows: list[chain.EntryRow]) -> list[Mark | None]:
        refused, said = self._tables.insert(table, rows, commit.last)
        accepted = [row for index, row in enumerate(rows) if index not in refused] if refused else rows
        if refused and table is REWARDS:
            self._count_refused_rewards([rows[index] for index in sorted(refused)])
        marks = commit.add(table, accepted)
        written = [None if index in refused else next(marks) for index in range(len(rows))]
        if said:
            self._activate_early(commit, rows, written, said)
        return written

    def _activate_early(
        self,
        commit: OpenCommit,
        rows: Sequence[chain.EntryRow],
        marks: Sequence[Mark | None],
        said: Mapping[str, ActionId | None],
    ) -> None:
        """Write the activations that came before these decisions."""
        activations = [
            _activation(mark.position, row[ACTION], said[row[DECISION_ID]])
            for row, mark in zip(rows, marks, strict=True)
            if mark is not None and row[DECISION_ID] in said
        ]
        if activations:
            self._insert(commit, activations)

    def _insert_early(self, commit: OpenCommit, activations: Sequence[EarlyActivation]) -> list[Mark | None]:
        """Activations of decisions that were not there when their callers looked."""
        there = self._tables.early_places(activations)
        marks: list[Mark | None] = []
        for one in activations:
            if one.decision_id in there:
                marks += self._insert(commit, [_activation(*there[one.decision_id], one.action)])
            else:
                first = self._tables.remember_early(one, commit.last.time)
                marks.append(Mark(START, commit.last.time) if first else None)
        return marks

    def _insert_slate(self, commit: OpenCommit, slate: NewSlate) -> Mark | None:
        """All of its decisions, or none."""
        new = units_of(slate)
        if len({one.decision.decision_id for one in new}) < len(new):
            raise self._tables.fail("a slate names a decision twice")
        return self._insert_all_or_none(commit, new)

    def _insert_of_units(self, commit: OpenCommit, new: Sequence[UnitDecision]) -> list[Mark | None]:
        if any(map(self._units.has_any, new)):
            return [self._insert_all_or_none(commit, [one]) for one in new]
        return self._insert_with_rules(commit, new)

    def _insert_all_or_none(self, commit: OpenCommit, new: Sequence[UnitDecision]) -> Mark | None:
        """The decisions of a unit and what belongs to them, or nothing; the first one's mark."""
        if self._tables.has_any([one.decision.decision_id for one in new]):  # no other writer can come between
            return None
        if not self._units.is_current(new, commit.last.time):
            return None
        for position, one in enumerate(new, commit.last.position + 1):
            self._units.note(one, Mark(Position(position), commit.last.time))
        return self._insert_with_rules(commit, new)[0]

    def _insert_with_rules(self, commit: OpenCommit, new: Sequence[UnitDecision]) -> list[Mark | None]:
        """The decisions, then what was withheld for them, and from what their units' histories were read."""
        marks = self._insert_in(commit, DECISIONS, [self.decisions.row_of(one.decision) for one in new])
        written = [(mark.position, one) for mark, one in zip(marks, new, strict=True) if mark is not None]
        for beside in (
            [NewWithheld(position, one.withheld) for position, one in written if one.withheld],
            [NewRecall(position, one.seen) for position, one in written if one.seen is not None],
        ):
            if beside:
                self._insert(commit, beside)
        return marks

    def _insert_activations(self, commit: OpenCommit, activations: Sequence[NewActivation]) -> list[Mark | None]:
        marks = self._insert_in(commit, *self._table_and_rows(activations))
        for mark, one in zip(marks, activations, strict=True):
            if mark is not None and one.action is not None:
                self._units.note_override(one, mark.time)
        return marks

    def _table_and_rows(self, entries: Sequence[Any]) -> tuple[EntryTable, list[chain.EntryRow]]:
        if isinstance(entries[0], Decision):
            return DECISIONS, [self.decisions.row_of(entry) for entry in entries]
        tables, rows = zip(*map(table_and_row, entries), strict=True)
        return tables[0], list(rows)

    def _count_refused_rewards(self, rows: Sequence[chain.EntryRow]) -> None:
        """Those that a unique key refused, and those of archived decisions, whose windows are over."""
        cut = self._tables.cut()
        self._tables.count_refused([name for decision, name, *_ in rows if decision > cut], RewardOutcome.DUPLICATE)
        self._tables.count_refused([name for decision, name, *_ in rows if decision <= cut], RewardOutcome.LATE)


class UnitState:
    """What a decision depends on of its unit, looked at and written inside its transaction."""

    def __init__(self, tables: CommitTables, version_at: Callable[[Position], ExperimentVersion]) -> None:
        self._tables = tables
        self._version_at = version_at

    def has_any(self, new: UnitDecision) -> bool:
        """Whether the decision depends on its unit, or others will on it."""
        return bool(new.keep) or self._version_at(new.decision.version).limits is not None

    def is_current(self, new: Sequence[UnitDecision], at: Time) -> bool:
        """Whether what decisions of a unit depend on is still so, where they are written next, in this order."""
        return all(self._may_keep(one, at) for one in new if one.keep) and self._are_reached(new, at)

    def _may_keep(self, new: UnitDecision, at: Time) -> bool:
        kept = self._tables.kept_decision(self._experiment(new), new.decision.unit_id, at)
        return kept in (None, new.replaces)

    def _are_reached(self, new: Sequence[UnitDecision], at: Time) -> bool:
        version = self._version_at(new[0].decision.version)
        if version.limits is None or all(one.reached is None for one in new):
            return True
        before = self._tables.limit_counts(version, new[0].decision.unit_id, at)
        return are_reached(version, [(one.decision, one.reached) for one in new], before)

    def note(self, new: UnitDecision, mark: Mark) -> None:
        """What follows from the decision, which is written there; before its activation can be."""
        if new.keep:
            until = Time(mark.time + new.keep)
            self._tables.assign(self._experiment(new), new.decision.unit_id, until=until, decision=mark.position)
        version = self._version_at(new.decision.version)
        if version.limits is not None:
            one = new.decision
            shown = ShownDecision(*mark, version, one.unit_id, one.action, one.action_features)
            self._tables.put_exposure(exposure(shown))

    def note_override(self, activation: NewActivation, at: Time) -> None:
        """Another action than the drawn one was shown: that one counts, where nothing has closed the decision. In any
        case the unit keeps the drawn one no longer, since it has not seen it."""
        self._tables.end_assignment(activation.decision)
        shown = self._tables.shown_decision(activation.decision)
        if shown is not None and at < shown.deadline:
            self._tables.take_out_exposure(shown.position)
            self._tables.put_exposure(exposure(shown, activation.action, activated=True))

    def note_seal(self, decision: Position) -> None:
        """A final reward has closed the decision: a unit that kept it could not be rewarded any more."""
        self._tables.end_assignment(decision)

    def _experiment(self, new: UnitDecision) -> ExperimentId:
        return self._version_at(new.decision.version).experiment.id


class OpenCommit:
    """The entries that an open transaction has written since the head."""

    def __init__(self, head: Head, at: Time) -> None:
        self._head = head
        self._at = at
        self._kinds: list[str] = []
        self._rows: list[chain.EntryRow] = []

    @property
    def last(self) -> Mark:
        """The last position, and the time of the commit."""
        return Mark(Position(self._head.position + len(self._rows)), self._at)

    @property
    def has_seals(self) -> bool:
        """Whether one of them is a seal."""
        return SEALS.kind in self._kinds

    @property
    def changes_what_serves(self) -> bool:
        """Whether one of them is a version, or says that one serves."""
        return EXPERIMENTS.kind in self._kinds or SERVES.kind in self._kinds

    def add(self, table: EntryTable, rows: Sequence[chain.EntryRow]) -> Iterator[Mark]:
        """Note entries that were written. Returns their marks."""
        first = self.last.position + 1
        self._kinds += [table.kind] * len(rows)
        self._rows += rows
        return iter([Mark(Position(position), self._at) for position in range(first, first + len(rows))])

    def end(self) -> Head:
        """The head after the commit; the old one where nothing was written."""
        return head_after(self._head, self._at, self._kinds, self._rows) if self._rows else self._head


def _activation(decision: Position, drawn: ActionId, shown: ActionId | None) -> NewActivation:
    return NewActivation(decision, None if shown == drawn else shown)


def _up_to_final(rewards: Sequence[NewReward]) -> Iterator[Sequence[NewReward]]:
    """In pieces that end with a final one, or with the last."""
    first = 0
    for place, reward in enumerate(rewards, 1):
        if reward.final or place == len(rewards):
            yield rewards[first:place]
            first = place


class RefusedNames:
    """Under which names refused rewards are counted: callers invent names, so their number is bounded."""

    def __init__(self, read: Callable[[str], Iterator[str]]) -> None:
        """read: the names of an outcome that are counted already."""
        self._read = read
        self._known: dict[str, set[str]] = {}

    def counted_as(self, name: str, outcome: str) -> str:
        """The name, or OTHER_NAME."""
        if outcome not in self._known:
            self._known[outcome] = set(self._read(outcome))
        known = self._known[outcome]
        if len(known) < MAX_REFUSED_NAMES:
            known.add(name)
        return name if name in known else OTHER_NAME
