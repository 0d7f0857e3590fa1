"""Several slots of a page -> a decision for each, no action twice. Pure, as `decide`, which makes each of them.

A slot is a decision: its pmf is conditional on what the slots before it got, and the eligible actions that are logged
with it are those that were left. So a replay, rewards, the learner and the metrics know nothing of slates. Called by
the server.
"""

from __future__ import annotations

from collections.abc import Sequence

from decider.decide.decide import SlotsCache, decide
from decider.errors import FailedPrecondition
from decider.experiment.definition import ExperimentVersion
from decider.policy.protocol import Model
from decider.policy.work import Budget
from decider.types import ActionId, Decision, DecisionId, DecisionRequest


def slot_id(slate: str, place: int) -> DecisionId:
    """The decision id of a slot.

    >>> slot_id("page-7", 0)
    'page-7/0'
    """
    return DecisionId(f"{slate}/{place}")


def decide_slate(
    slots: Sequence[DecisionRequest],
    version: ExperimentVersion,
    model: Model,
    cache: SlotsCache | None = None,
    budget: Budget | None = None,
) -> tuple[Decision, ...]:
    """A decision for each slot, in order. cache, budget: see `decide`.

    Raises what `decide` raises; FailedPrecondition names the slot for which no action is left.
    """
    taken: list[ActionId] = []
    decisions = []
    for place, slot in enumerate(slots):
        try:
            made = decide(slot._replace(excluded=(*slot.excluded, *taken)), version, model, cache, budget)
        except FailedPrecondition as error:
            raise FailedPrecondition(
                f"slots[{place}]: {error}; the slots before it took {', '.join(taken) or 'none'}", reason=error.reason
            ) from error
        taken.append(made.action)
        decisions.append(made)
    return tuple(decisions)
