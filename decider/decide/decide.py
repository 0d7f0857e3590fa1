"""(request, experiment version, model) -> decision. Pure: no I/O, no clock, no global randomness.

The server calls it to serve and `simulator verify` calls it to recompute what was served: one code path, so that the
log reproduces every decision. Rules first, then the policy's pmf, then the one sampler.
"""

from __future__ import annotations

from decider.decide.slots import SLOTS, Slots, draw, hash_ticket, one_slot, to_slots, uniform_slots
from decider.errors import InvalidArgument, NotFound, Refused, Violation
from decider.experiment.definition import ExperimentVersion
from decider.policy.protocol import Model, UnusablePmf
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


# The rules that act before sampling, in the order in which `decide` asks them.


def eligible_actions(version: ExperimentVersion, request: DecisionRequest) -> tuple[ActionId, ...]:
    """The actions that may be chosen, in the experiment's order.

    Raises NotFound for an action that the experiment does not have, InvalidArgument for a retired one asked for,
    Refused when none is left.
    """
    if not (request.eligible or request.excluded or request.action_features):
        return version.all_active
    _check_known(version, request)
    wanted = set(request.eligible or version.all_active) - set(request.excluded)
    eligible = tuple([id_ for id_ in version.all_active if id_ in wanted])
    if not eligible:
        raise Refused(
            f"no action of experiment {version.experiment.id!r} is left: {len(version.all_active)} active, "
            f"eligible_actions names {len(request.eligible)}, excluded_actions {len(request.excluded)}",
            reason="NO_ELIGIBLE_ACTION",
        )
    return eligible


def _check_known(version: ExperimentVersion, request: DecisionRequest) -> None:
    for id_ in (*request.eligible, *request.excluded, *request.action_features):
        if id_ not in version.lines:
            raise NotFound(
                f"experiment {version.experiment.id!r} has no action {id_!r}; it has {', '.join(version.lines)}",
                reason="ACTION_NOT_FOUND",
            )
    for id_ in request.eligible:
        if id_ not in version.active:
            raise InvalidArgument([Violation("eligible_actions", f"action {id_!r} is retired")])


def preset(
    version: ExperimentVersion, request: DecisionRequest, eligible: tuple[ActionId, ...]
) -> tuple[Slots, Reason] | None:
    """The slots where a rule decides and no policy is asked; None where the policy is."""
    if version.experiment.holdout and in_holdout(version, request.unit_id):
        return baseline_slots(version, eligible), Reason.HOLDOUT
    if len(eligible) == 1:
        return one_slot(0, 1), Reason.ONLY_ELIGIBLE
    if version.experiment.policy.algorithm == "fixed":
        return baseline_slots(version, eligible), Reason.BASELINE
    return None


def in_holdout(version: ExperimentVersion, unit_id: str) -> bool:
    """Whether the unit belongs to the control group; the same for every version with this id and salt."""
    experiment = version.experiment
    return hash_ticket(experiment.id, experiment.salt, "holdout", unit_id) < experiment.holdout * SLOTS


def baseline_slots(version: ExperimentVersion, eligible: tuple[ActionId, ...]) -> Slots:
    """Everything to the baseline action; evenly to all where it is not eligible."""
    baseline = version.experiment.baseline
    if baseline in eligible:
        return one_slot(eligible.index(baseline), len(eligible))
    return uniform_slots(len(eligible))
