"""What a decision depends on of its unit's past, counted again from the entries before it. Called by
`recompute.py` and `simulator verify`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heappop, heappush

from decider.experiment.definition import ExperimentVersion
from decider.experiment.limits import CAPS, LONGEST_DAY, Limits, is_limit
from decider.experiment.unit_history import HistoryDefinition, Seen, history_features, with_history, without_history
from decider.log.exposures import Exposures, FollowUp
from decider.log.forgotten import KEY
from decider.log.protocol import LoggedDecision, LogReader
from decider.types import (
    NO_HISTORY,
    NOTHING_REACHED,
    ActionId,
    Context,
    Decision,
    DecisionRequest,
    ExperimentId,
    Features,
    History,
    Position,
    Reached,
    Reason,
    Time,
)


class Past:
    """Of the decisions of a log."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._head = Position(-1)
        self._cut = log.cut()
        self._reached: dict[Position, Reached] = {}

    def history(self, logged: LoggedDecision, version: ExperimentVersion, withheld: Mapping[ActionId, str]) -> History:
        """withheld: what is logged with the decision. It is believed where what counts lies in the archive."""
        limits = version.limits
        if limits is None:
            return NO_HISTORY
        if logged.time - max(limits.longest, LONGEST_DAY) < self._cut.time:
            return as_logged(version, withheld)
        if logged.position > self._head:
            self._count()
        return History(self._reached.get(logged.position, NOTHING_REACHED))

    def _count(self) -> None:
        self._head = self._log.head().position
        exposures, coming = Exposures(), list[FollowUp]()
        for shown, said in self._log.shown_decisions():
            while coming and coming[0].position < shown.position:
                exposures.follow(heappop(coming))
            limits = shown.version.limits
            if limits is not None:
                exposures.end_windows(shown.time)
                reached = limits.reached(exposures.counts(shown.version, shown.unit_id, shown.time))
                if reached != NOTHING_REACHED:
                    self._reached[shown.position] = reached
            exposures.add(shown)
            if said is not None:
                heappush(coming, said)


def as_logged(version: ExperimentVersion, withheld: Mapping[ActionId, str]) -> History:
    """Of a decision, where what counts for its limits is not counted again: what is logged with it is believed."""
    return History(_named(version.limits, withheld)) if version.limits is not None else NO_HISTORY


def _named(limits: Limits, withheld: Mapping[ActionId, str]) -> Reached:
    """The limits that are named as rules."""
    caps = tuple([index for index in range(len(limits.caps)) if f"{CAPS}[{index}]" in withheld.values()])
    spent = {action for action, rule in withheld.items() if is_limit(rule) and not rule.startswith(CAPS)}
    return Reached(caps, tuple([action for action in limits.budgets if action in spent]))


class UnitHistories:
    """The contexts as they must have been, with what the units did before. unread: how many could not be read whole."""

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self.unread = 0

    def context(self, logged: LoggedDecision, version: ExperimentVersion) -> Context | None:
        """Of a decision; None where the log does not say from what its unit's history was read."""
        context, history = logged.decision.context, version.experiment.history
        if history is None:
            return context
        seen = self._log.recall(logged.position)
        if seen is None:
            return None
        known = self._features(version.experiment.id, logged.decision.unit_id, history, seen)
        if known is None:
            self.unread += 1
            return context
        return with_history(without_history(context), known)

    def _features(self, experiment: ExperimentId, unit: str, history: HistoryDefinition, seen: Seen) -> Features | None:
        """None where entries that were seen lie in an archive."""
        while True:
            cut = self._log.cut()
            left = seen._replace(after=max(seen.after, cut.position))
            past = self._log.unit_history_at(experiment, unit, history, left)
            if self._log.cut() == cut:  # else a run may have deleted some of them meanwhile
                break
        reaches_back = seen.after < cut.position and seen.time - history.period < cut.time
        return None if reaches_back and len(past) < history.most else history_features(history, past, seen.time)

    def lost_something(self, logged: LoggedDecision) -> bool:
        """Whether `decider forget` ran between the reading of a unit's history and the decision."""
        seen = self._log.recall(logged.position)
        removed = [position for position, build in self._log.builds().items() if KEY in build]
        return seen is not None and any(seen.until < position < logged.position for position in removed)


def request_of(decision: Decision, version: ExperimentVersion, withheld: Mapping[ActionId, str]) -> DecisionRequest:
    """The request that led to a decision. Where a rule decided, `explore` made no difference. A default action that was
    served is the decision's.

    It allowed what was eligible and what was withheld, but not a baseline action that stands in place of nothing.
    """
    empty = decision.reason == Reason.WITHHELD or (
        decision.reason == Reason.HOLDOUT_UNAVAILABLE and version.experiment.baseline in decision.eligible
    )
    asked = (*(() if empty else decision.eligible), *withheld)
    return DecisionRequest(
        decision_id=decision.decision_id,
        unit_id=decision.unit_id,
        context=decision.context,
        eligible=() if asked == version.all_active else asked,
        action_features=decision.action_features,
        explore=decision.reason != Reason.NO_EXPLORATION,
        default=decision.action if version.default_reason is not None and decision.propensity == 1 else None,
    )


SLACK = 600_000_000
"""Microseconds from the look at what is available to the commit, whose time an entry has; more are not believed: a call
that waits for so long is one whose server stood still."""


def moments(version: ExperimentVersion, time: Time) -> Iterator[Time]:
    """The times at which a decision with this log time may have been made, as far as schedules tell them apart.

    Its own, and the one before each begin or end that is within SLACK.

    >>> from decider.experiment.definition import Action, Experiment
    >>> action = Action(ActionId("sale"), available_from=Time(50), available_until=Time(99))
    >>> made = Experiment(ExperimentId("e"), (action,))
    >>> version = ExperimentVersion(made, number=1, position=Position(1), time=Time(0))
    >>> list(moments(version, Time(100))), list(moments(version, Time(2 * SLACK)))
    ([100, 98, 49], [1200000000])
    """
    yield time
    edges: set[Time | None] = {
        edge for one in version.scheduled.values() for edge in (one.available_from, one.available_until)
    }
    yield from sorted(
        [Time(edge - 1) for edge in edges if edge is not None and time - SLACK < edge <= time], reverse=True
    )
