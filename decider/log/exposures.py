"""What counts for caps and budgets, from decisions and activations in order of position. In memory.

Called by `memory.py`; by `simulator verify` and `sqlite/check.py`, which count a log again. `sqlite/exposures.py` keeps
the same in tables.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from heapq import heappop, heappush
from typing import NamedTuple

from decider.experiment.definition import ExperimentVersion
from decider.experiment.limits import LONGEST_DAY, Cap, Counts, Day, Limits
from decider.types import ActionId, Decision, ExperimentId, Features, Position, Reached, Time


class Exposure(NamedTuple):
    """An action that a decision has shown, as far as the log knows.

    until: it counts for no cap from this log time on. reserved_until: nobody has said that it was shown, and from this
    time on it counts for nothing; None: it counts. day: of its daily budget; None: it has none.
    """

    decision: Position
    experiment: ExperimentId
    unit_id: str
    action: ActionId
    kind: str
    time: Time
    until: Time
    reserved_until: Time | None
    day: Day | None


class ShownDecision(NamedTuple):
    """The part of a decision that limits need. features: what is logged of the actions that only its call knew."""

    position: Position
    time: Time
    version: ExperimentVersion
    unit_id: str
    action: ActionId
    features: Mapping[ActionId, Features]

    @property
    def deadline(self) -> Time:
        """The end of its window."""
        return Time(self.time + self.version.experiment.reward.window)


class ShownActivation(NamedTuple):
    """An activation; action: in place of the drawn one."""

    position: Position
    time: Time
    decision: Position
    action: ActionId | None


class ShownSeal(NamedTuple):
    """The seal of a decision that a final reward has closed: what is said behind it comes too late."""

    position: Position
    time: Time
    decision: Position


FollowUp = ShownActivation | ShownSeal
"""What has settled whether a decision was shown: its activation in time, or else its seal. None: neither is there."""


def exposure(shown: ShownDecision, action: ActionId | None = None, *, activated: bool = False) -> Exposure | None:
    """Of a decision; None where no cap or budget counts its action. action: shown in place of the drawn one."""
    limits, id_ = shown.version.limits, action or shown.action
    kind = shown.version.kind_of(id_, shown.features)
    if limits is None or not limits.covers(id_, kind):
        return None
    until = max(Time(shown.time + limits.period(id_, kind)), shown.deadline)
    reserved = None if activated or not shown.version.experiment.needs_activation else shown.deadline
    day = limits.day(shown.time) if id_ in limits.budgets else None
    return Exposure(
        shown.position, shown.version.experiment.id, shown.unit_id, id_, kind, shown.time, until, reserved, day
    )


def settled_exposure(shown: ShownDecision, said: FollowUp | None) -> Exposure | None:
    """Of a decision with what followed, as it stands where nothing is deleted."""
    if isinstance(said, ShownActivation) and said.time < shown.deadline:
        return exposure(shown, said.action, activated=True)
    one = exposure(shown)
    if one is None or one.reserved_until is None or not isinstance(said, ShownSeal):
        return one
    return one._replace(reserved_until=said.time)


def are_reached(version: ExperimentVersion, new: Iterable[tuple[Decision, Reached | None]], counts: Counts) -> bool:
    """Whether the limits that decisions name are those that are used up, each after those before it. counts: before all
    of them. None: they are not looked at."""
    limits = version.limits
    assert limits is not None, "only called for versions with limits"
    for decision, reached in new:
        if reached not in (None, limits.reached(counts)):
            return False
        kind = version.kind_of(decision.action, decision.action_features)
        counts = limits.with_one(counts, decision.action, kind)
    return True


_Counted = tuple[ExperimentId, str, ActionId | None, str | None]
"""What a cap counts: an experiment, a unit, and the action or the kind."""


class Exposures:
    """Those of a log, up to the entry that was added last."""

    def __init__(self) -> None:
        self._decisions: dict[Position, ShownDecision] = {}
        self._known: dict[Position, Exposure] = {}
        self._counted: dict[_Counted, list[tuple[Time, Position]]] = {}
        self._spent: defaultdict[ExperimentId, Counter[tuple[Day, ActionId]]] = defaultdict(Counter)
        self._reserved: list[tuple[Time, Position]] = []
        self._over: list[tuple[Time, Position]] = []
        self._windows: list[tuple[Time, Position]] = []
        self._days: list[tuple[Time, ExperimentId, Day, ActionId]] = []

    def add(self, shown: ShownDecision) -> None:
        """A decision, at the end."""
        if shown.version.limits is None:
            return
        self.end_windows(shown.time)
        self._decisions[shown.position] = shown
        heappush(self._windows, (shown.deadline, shown.position))
        self._put(exposure(shown))

    def activate(self, activation: ShownActivation) -> None:
        """An activation, at the end."""
        self.end_windows(activation.time)
        shown = self._decisions.get(activation.decision)
        if shown is not None:
            self._drop(shown.position)
            self._put(exposure(shown, activation.action, activated=True))

    def seal(self, seal: ShownSeal) -> None:
        """A seal, at the end: nobody can say any more that the decision was shown."""
        self.end_windows(seal.time)
        shown = self._decisions.pop(seal.decision, None)
        one = self._known.get(seal.decision)
        if shown is not None and one is not None and one.reserved_until is not None:
            self._drop(seal.decision)

    def follow(self, said: FollowUp) -> None:
        """An activation or a seal, at the end."""
        if isinstance(said, ShownActivation):
            self.activate(said)
        else:
            self.seal(said)

    def counts(self, version: ExperimentVersion, unit: str, at: Time) -> Counts:
        """What counts for a decision at the end."""
        limits = version.limits
        assert limits is not None, "only called for versions with limits"
        shown = [self._count(version.experiment.id, unit, cap, at) for cap in limits.caps]
        return limits.counts(shown, self._spent_on(version, limits, at))

    def _count(self, experiment: ExperimentId, unit: str, cap: Cap, at: Time) -> int:
        """Of a cap, from the newest one back; at most `cap.most`."""
        count = 0
        for time, decision in reversed(self._counted.get((experiment, unit, cap.action, cap.kind), ())):
            if count == cap.most or time <= at - cap.per:
                break
            one = self._known[decision]
            count += one.until > at and (one.reserved_until is None or one.reserved_until > at)
        return count

    def _spent_on(self, version: ExperimentVersion, limits: Limits, at: Time) -> Mapping[ActionId, int]:
        today, spent = limits.day(at), Counter[ActionId]()
        for (day, action), count in self._spent[version.experiment.id].items():
            # A day of another zone, which the experiment had before, counts as a whole: a budget is never exceeded.
            if day.begin < today.end and day.end > today.begin:
                spent[action] += count
        for one in self._ended(at):
            if one.experiment == version.experiment.id and one.day and one.day.begin < today.end:
                spent[one.action] -= one.day.end > today.begin
        return spent

    def _ended(self, at: Time) -> Iterator[Exposure]:
        """Reservations that are over, and are not taken out yet."""
        if self._reserved and self._reserved[0][0] <= at:
            ended = [
                self._known[decision] for time, decision in self._reserved if time <= at and decision in self._known
            ]
            yield from [one for one in ended if one.reserved_until is not None]

    def _put(self, one: Exposure | None) -> None:
        if one is None:
            return
        self._known[one.decision] = one
        heappush(self._over, (one.until, one.decision))
        for counted in _counted(one):
            insort(self._counted.setdefault(counted, []), (one.time, one.decision))
        self._spend(one, 1)
        if one.reserved_until is not None:
            heappush(self._reserved, (one.reserved_until, one.decision))

    def _drop(self, decision: Position) -> None:
        one = self._known.pop(decision, None)
        if one is None:
            return
        self._count_no_more(one)
        self._spend(one, -1)

    def _spend(self, one: Exposure, count: int) -> None:
        if one.day is not None:
            spent, key = self._spent[one.experiment], (one.day, one.action)
            if key not in spent:
                heappush(self._days, (one.day.end, one.experiment, *key))
            spent[key] += count

    def _count_no_more(self, one: Exposure) -> None:
        for counted in _counted(one):
            places = self._counted[counted]
            del places[bisect_left(places, (one.time, one.decision))]
            if not places:
                del self._counted[counted]

    def end_windows(self, at: Time) -> None:
        """Forget what counts for nothing any more at a time, to which the log has come."""
        for decision in _until(self._reserved, at):
            if decision in self._known and self._known[decision].reserved_until is not None:
                self._drop(decision)
        for decision in _until(self._over, at):
            one = self._known.get(decision)
            if one is not None and one.until <= at:
                del self._known[decision]
                self._count_no_more(one)
        for decision in _until(self._windows, at):
            self._decisions.pop(decision, None)
        while self._days and self._days[0][0] <= at - LONGEST_DAY:
            _, experiment, *key = heappop(self._days)
            del self._spent[experiment][key[0], key[1]]


def _counted(one: Exposure) -> tuple[_Counted, _Counted]:
    return (one.experiment, one.unit_id, one.action, None), (one.experiment, one.unit_id, None, one.kind)


def _until(heap: list[tuple[Time, Position]], at: Time) -> Iterator[Position]:
    while heap and heap[0][0] <= at:
        yield heappop(heap)[1]


def follow_up(
    decision: Position,
    activation: Position | None,
    activated_at: Time,
    action: ActionId | None,
    seal: Position | None,
    sealed_at: Time,
) -> FollowUp | None:
    """What followed a decision that counts for limits: its activation, else its seal; None where neither is there."""
    if activation is not None:
        return ShownActivation(activation, activated_at, decision, action)
    return None if seal is None else ShownSeal(seal, sealed_at, decision)
