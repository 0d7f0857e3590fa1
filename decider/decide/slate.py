"""Several slots of a page -> a decision for each, no action twice. Pure, as `decide`, which makes each of them.

A slot is a decision: its pmf is conditional on what the slots before it got, and the eligible actions that are logged
with it are those that were left. So a replay, rewards, the learner and the metrics know nothing of slates. Called by
the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from decider.decide.decide import SlotsCache, decide, eligible_actions
from decider.errors import FailedPrecondition
from decider.experiment.definition import ExperimentVersion
from decider.experiment.limits import Counts
from decider.policy.protocol import Model
from decider.policy.work import Budget
from decider.types import NOTHING_REACHED, ActionId, Decision, DecisionId, DecisionRequest, History, Reached


def slot_id(slate: str, place: int) -> DecisionId:
    """The decision id of a slot.

    >>> slot_id("page-7", 0)
    'page-7/0'
    """
    return DecisionId(f"{slate}/{place}")


class SlotDecision(NamedTuple):
    """The decision for a slot. reached: the limits that were used up then. withheld: see `Eligible`."""

    decision: Decision
    reached: Reached
    withheld: Mapping[ActionId, str]


def decide_slate(
    slots: Sequence[DecisionRequest],
    version: ExperimentVersion,
    model: Model,
    cache: SlotsCache | None = None,
    budget: Budget | None = None,
    counts: Counts | None = None,
) -> tuple[SlotDecision, ...]:
    """A decision for each slot, in order. cache, budget: see `decide`. counts: before the first one, where the version
    has limits; each slot counts for those behind it.

    The baseline may be there twice, where limits leave nothing else for a slot.
    Raises what `decide` raises; FailedPrecondition names the slot for which no action is left.
    """
    taken: list[ActionId] = []
    decisions = []
    for place, slot in enumerate(slots):
        try:
            filled = _fill(slot, taken, version, model, cache, budget, counts)
        except FailedPrecondition as error:
            raise FailedPrecondition(
                f"slots[{place}]: {error}; the slots before it took {', '.join(taken) or 'none'}", reason=error.reason
            ) from error
        made = filled.decision
        taken.append(made.action)
        decisions.append(filled)
        if counts is not None and version.limits is not None:
            counts = version.limits.with_one(counts, made.action, version.kind_of(made.action, made.action_features))
    return tuple(decisions)


def _fill(
    slot: DecisionRequest,
    taken: Sequence[ActionId],
    version: ExperimentVersion,
    model: Model,
    cache: SlotsCache | None,
    budget: Budget | None,
    counts: Counts | None,
) -> SlotDecision:
    reached = version.limits.reached(counts) if version.limits and counts else NOTHING_REACHED
    eligible = eligible_actions(version, _exclude(slot, taken, version), History(reached))
    slot = _forget_called(slot, taken, version)
    return SlotDecision(decide(slot, version, model, cache, budget, eligible=eligible), reached, eligible.withheld)


def _exclude(slot: DecisionRequest, taken: Sequence[ActionId], version: ExperimentVersion) -> DecisionRequest:
    """Without what is taken. Of the actions that only the call knows, a slot knows those that can be chosen for it."""
    known = version.choices.keys() | slot.action_features.keys() if slot.action_features else version.choices.keys()
    return slot._replace(excluded=(*slot.excluded, *[id_ for id_ in taken if id_ in known]))


def _forget_called(slot: DecisionRequest, taken: Sequence[ActionId], version: ExperimentVersion) -> DecisionRequest:
    """Without the taken actions of the call: in the log, an action that has features there and is not declared is one
    that could be chosen."""
    called = {id_ for id_ in taken if id_ in slot.action_features and id_ not in version.choices}
    if not called:
        return slot
    return slot._replace(action_features={id_: f for id_, f in slot.action_features.items() if id_ not in called})
