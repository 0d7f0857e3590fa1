"""What a decision depends on of its unit's past, counted again from the entries before it. Called by `verify.py`."""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush

from decider.experiment.definition import ExperimentVersion
from decider.experiment.limits import CAPS, Limits, is_limit
from decider.log.exposures import Exposures, ShownActivation
from decider.log.protocol import LoggedDecision, LogReader
from decider.types import (
    NO_HISTORY,
    NOTHING_REACHED,
    ActionId,
    Decision,
    DecisionRequest,
    History,
    Position,
    Reached,
    Reason,
)

LONGEST_DAY = 25 * 3_600_000_000
"""Microseconds."""


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
            return History(_named(limits, withheld))
        if logged.position > self._head:
            self._count()
        return History(self._reached.get(logged.position, NOTHING_REACHED))

    def _count(self) -> None:
        self._head = self._log.head().position
        exposures, activations = Exposures(), list[ShownActivation]()
        for shown, activation in self._log.shown_decisions():
            while activations and activations[0].position < shown.position:
                exposures.activate(heappop(activations))
            limits = shown.version.limits
            if limits is not None:
                exposures.end_windows(shown.time)
                reached = limits.reached(exposures.counts(shown.version, shown.unit_id, shown.time))
                if reached != NOTHING_REACHED:
                    self._reached[shown.position] = reached
            exposures.add(shown)
            if activation is not None:
                heappush(activations, activation)


def _named(limits: Limits, withheld: Mapping[ActionId, str]) -> Reached:
    """The limits that are named as rules."""
    caps = tuple([index for index in range(len(limits.caps)) if f"{CAPS}[{index}]" in withheld.values()])
    spent = {action for action, rule in withheld.items() if is_limit(rule) and not rule.startswith(CAPS)}
    return Reached(caps, tuple([action for action in limits.budgets if action in spent]))


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


def of_rules(withheld: Mapping[ActionId, str]) -> Mapping[ActionId, str]:
    """What can be computed again of what was withheld: not what depends on the moment at which the call came."""
    return {action: rule for action, rule in withheld.items() if not rule.startswith("available_")}
