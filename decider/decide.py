"""(request, experiment version, model) -> decision. Pure: no I/O, no clock, no global randomness.

The server calls it to serve and `simulator verify` calls it to recompute what was served: one code path, so that the
log reproduces every decision. Rules first, then the policy's pmf, then the one sampler.
"""

from __future__ import annotations

from decider.experiment.definition import ExperimentVersion
from decider.experiment.rules import baseline_slots, eligible_actions, preset
from decider.policy.protocol import Model
from decider.policy.sampler import SLOTS, Slots, UnusablePmf, draw, hash_ticket, one_slot, to_slots
from decider.types import ActionId, Decision, DecisionRequest, Reason


def decide(request: DecisionRequest, version: ExperimentVersion, model: Model) -> Decision:
    """Choose one action.

    Raises NotFound, InvalidArgument or Refused where the request's actions do not fit the experiment.
    """
    eligible = eligible_actions(version, request)
    slots, reason = preset(version, request, eligible) or _ask_policy(request, version, model, eligible)
    experiment = version.experiment
    index = draw(slots, hash_ticket(experiment.id, experiment.salt, "draw", request.decision_id))
    return Decision(
        decision_id=request.decision_id,
        version=version.position,
        unit_id=request.unit_id,
        context=request.context,
        eligible=eligible,
        action_features=request.action_features,
        pmf=slots,
        action=eligible[index],
        propensity=slots[index] / SLOTS,
        reason=reason or _drawn_reason(slots, index),
        model=model.position,
    )


def _ask_policy(
    request: DecisionRequest, version: ExperimentVersion, model: Model, eligible: tuple[ActionId, ...]
) -> tuple[Slots, Reason | None]:
    try:
        pmf = model.policy.pmf(request.context, version.encoded(eligible, request.action_features))
        slots = to_slots(pmf, minimum=version.experiment.minimum_propensity)
    except UnusablePmf:
        return baseline_slots(version, eligible), Reason.FALLBACK
    if not request.explore:
        return one_slot(slots.index(max(slots)), len(slots)), Reason.NO_EXPLORATION
    return slots, None


def _drawn_reason(slots: Slots, index: int) -> Reason:
    """EXPLOIT for the most probable action; a flat pmf (uniform up to rounding) has none."""
    most = max(slots)
    return Reason.EXPLOIT if slots[index] == most and most > min(slots) + 1 else Reason.EXPLORE
