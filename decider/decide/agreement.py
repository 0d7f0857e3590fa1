"""How far an experiment's policy agrees with an action that was served in its place. Pure.

Called by the server for each decision of an apprentice, and by `simulator agreement`: one code path, so both say the
same of a decision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from decider.decide.decide import SlotsAndReason, fits_budget, policy_slots
from decider.decide.slots import SLOTS
from decider.experiment.definition import ExperimentVersion
from decider.policy.protocol import Model
from decider.policy.work import Budget
from decider.types import ActionId, Decision, DecisionRequest, Reason


class Agreement(NamedTuple):
    """probability: with which the policy would have drawn the action that was served. best: whether that is the
    policy's most probable action; a flat pmf has none."""

    probability: float
    best: bool


def agreement_of(
    request: DecisionRequest,
    decision: Decision,
    version: ExperimentVersion,
    model: Model,
    ask: Callable[[DecisionRequest, ExperimentVersion, Model, tuple[ActionId, ...]], SlotsAndReason] = policy_slots,
    budget: Budget | None = None,
) -> Agreement | None:
    """Of the policy with the decision. ask: a cache of `policy_slots`.

    None where there is nothing to compare: it is no apprentice's decision, the policy would cost more than the budget,
    or it failed.
    """
    eligible = decision.eligible
    if decision.reason is not Reason.APPRENTICE or (budget and not fits_budget(request, version, eligible, budget)):
        return None
    slots, reason = ask(request, version, model, eligible)
    if reason is not None:
        return None
    served, most = slots[eligible.index(decision.action)], max(slots)
    return Agreement(served / SLOTS, served == most > min(slots) + 1)  # uniform up to rounding: nothing is best
