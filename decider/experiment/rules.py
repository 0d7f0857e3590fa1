"""The rules that act before sampling: who may be chosen, who is in the holdout, what needs no policy.

Pure functions of (version, request), in the order in which `decide` asks them.
"""

from __future__ import annotations

from decider.errors import InvalidArgument, NotFound, Refused, Violation
from decider.experiment.definition import ExperimentVersion
from decider.policy.sampler import SLOTS, Slots, hash_ticket, one_slot, uniform_slots
from decider.types import ActionId, DecisionRequest, Reason


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
