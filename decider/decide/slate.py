"""Several slots of a page -> a decision for each, no action twice. Pure, as `decide`, which makes each of them.

A slot is a decision: its pmf is conditional on what the slots before it got, and the eligible actions that are logged
with it are those that were left and that the slots behind it could spare (see `room.py`). So a replay, rewards, the
learner and the metrics know nothing of slates. Called by the server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from decider.decide.decide import SlotsCache, decide, eligible_actions
from decider.decide.room import fill, needed
from decider.errors import FailedPrecondition
from decider.experiment.definition import ExperimentVersion
from decider.experiment.limits import Counts, is_limit
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

    A slot leaves out the actions that it would have to leave to those behind it: whether a slate can be filled is known
    before anything is drawn. The baseline may be there twice, where limits leave nothing else for a slot.
    Raises what `decide` raises; FailedPrecondition names the slots for which there are too few actions.
    """
    taken: list[ActionId] = []
    wanted = _wanted(slots, version, counts)
    decisions = []
    for place, slot in enumerate(slots):
        left_out = [*taken, *_needed_behind(wanted, place, taken)] if wanted else taken
        try:
            filled = _fill(slot, left_out, version, model, cache, budget, counts)
        except FailedPrecondition as error:
            raise FailedPrecondition(
                f"slots[{place}]: {error}; the slots before it took {', '.join(taken) or 'none'}", reason=error.reason
            ) from error
        made = filled.decision
        if made.action not in left_out:
            taken.append(made.action)
        decisions.append(filled)
        if counts is not None and version.limits is not None:
            counts = version.limits.with_one(counts, made.action, version.kind_of(made.action, made.action_features))
    return tuple(decisions)


_Wanted = Mapping[int, Sequence[ActionId]]
"""Of slots that compete: what each may get, by place."""


def _wanted(slots: Sequence[DecisionRequest], version: ExperimentVersion, counts: Counts | None) -> _Wanted:
    """Nothing where each slot has an action left, whatever those before it get. Raises FailedPrecondition where there
    are too few for all.

    Where limits leave nothing of what a slot may get, it gets the baseline: so a slot with an action that is used up
    competes for none.
    """
    if _is_usual(slots, version):
        return {}
    reached = version.limits.reached(counts) if version.limits and counts else NOTHING_REACHED
    allowed = {}
    for place, slot in enumerate(slots):
        try:
            eligible = eligible_actions(version, slot, History(reached))
        except FailedPrecondition as error:
            raise FailedPrecondition(f"slots[{place}]: {error}", reason=error.reason) from error
        is_short = len(eligible.actions) < len(slots)  # others have one left, whatever all the other slots get
        if is_short and not any(map(is_limit, eligible.withheld.values())):
            allowed[place] = eligible.actions
    short = fill(allowed).short
    if short and version.limits is None:
        raise _too_few(short, allowed)
    return {} if short else allowed


def _is_usual(slots: Sequence[DecisionRequest], version: ExperimentVersion) -> bool:
    """Whether each slot has as many actions as there are slots: seen from numbers alone."""
    active, most_taken = len(version.all_active), len(slots)
    if version.rules or version.scheduled:
        return False
    for slot in slots:
        if (len({*slot.eligible}) if slot.eligible else active) - len(slot.excluded) < most_taken:
            return False
    return True


def _needed_behind(wanted: _Wanted, place: int, taken: Sequence[ActionId]) -> Sequence[ActionId]:
    """What a slot must leave to those behind it."""
    behind = {at: [id_ for id_ in actions if id_ not in taken] for at, actions in wanted.items() if at > place}
    return sorted(needed(behind) - {*taken})


def _too_few(short: Sequence[int], allowed: _Wanted) -> FailedPrecondition:
    actions = sorted({id_ for place in short for id_ in allowed[place]})
    places = ", ".join(f"slots[{place}]" for place in short)
    return FailedPrecondition(
        f"{places}: there are {len(short)} of them, and together they have no other eligible actions than "
        f"{', '.join(actions)}; no action is on a page twice, so send fewer slots or leave them more actions",
        reason="NO_ELIGIBLE_ACTION",
    )


def _fill(
    slot: DecisionRequest,
    left_out: Sequence[ActionId],
    version: ExperimentVersion,
    model: Model,
    cache: SlotsCache | None,
    budget: Budget | None,
    counts: Counts | None,
) -> SlotDecision:
    reached = version.limits.reached(counts) if version.limits and counts else NOTHING_REACHED
    eligible = eligible_actions(version, _exclude(slot, left_out, version), History(reached))
    slot = _forget_called(slot, left_out, version)
    return SlotDecision(decide(slot, version, model, cache, budget, eligible=eligible), reached, eligible.withheld)


def _exclude(slot: DecisionRequest, left_out: Sequence[ActionId], version: ExperimentVersion) -> DecisionRequest:
    """Without what is taken or needed behind it. Of actions that only the call knows, a slot knows those that can be
    chosen for it."""
    known = version.choices.keys() | slot.action_features.keys() if slot.action_features else version.choices.keys()
    return slot._replace(excluded=(*slot.excluded, *[id_ for id_ in left_out if id_ in known]))


def _forget_called(slot: DecisionRequest, left_out: Sequence[ActionId], version: ExperimentVersion) -> DecisionRequest:
    """Without these actions of the call: in the log, an action that has features there and is not declared is one
    that could be chosen."""
    called = {id_ for id_ in left_out if id_ in slot.action_features and id_ not in version.choices}
    if not called:
        return slot
    return slot._replace(action_features={id_: f for id_, f in slot.action_features.items() if id_ not in called})
