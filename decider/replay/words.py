"""An explanation as sentences for people and as JSON for programs; both say the same. Called by `decider explain` and
by the server's `/decisions/ID`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from decider import text
from decider.decide.slots import SLOTS
from decider.durations import duration_text
from decider.experiment.definition import ExperimentVersion, Learning
from decider.experiment.limits import CAPS, DAILY_BUDGET, ELIGIBLE_IF
from decider.policy.contributions import Gap
from decider.replay.explain import Check, Compared, Explanation
from decider.types import START, ActionId, FeatureValue, Reason, Time

REASONS = {
    Reason.EXPLOIT: "The policy drew it: its most probable action.",
    Reason.EXPLORE: "The policy drew it, by chance, to learn: it was not its most probable action.",
    Reason.HOLDOUT: "The unit is in the control group, which gets the baseline action whatever the policy thinks.",
    Reason.HOLDOUT_UNAVAILABLE: "The unit is in the control group, but the baseline action was not eligible: one of "
    "the others was drawn by lot. It counts neither for the control group nor for the policy.",
    Reason.BASELINE: "The policy is fixed: it always takes the baseline action.",
    Reason.FALLBACK: "The policy failed, or would have taken too long (--decide-budget), so the baseline action was "
    "served. The server's output of that time says why.",
    Reason.ONLY_ELIGIBLE: "It was the only action that was left to choose.",
    Reason.NO_EXPLORATION: "The call switched exploration off (explore = false): the most probable action was served.",
    Reason.WITHHELD: "Caps and budgets left nothing of what the call allows, so the baseline action was served.",
    Reason.APPRENTICE: "The policy is an apprentice and only learns: what the caller shows by default was served.",
}

LOG_ONLY = "The experiment only logs: what the caller shows by default was served."
FLAT = "The policy drew it by lot: it found no action better than the others."

HOW = (
    "A field counts with the mean of what it adds by itself and of what the rest loses without it. In a model that is "
    "linear in the fields these are the same; of a product of two fields each gets one half."
)


def to_json(explanation: Explanation) -> dict[str, Any]:
    """Everything, with names and numbers as the log has them, and the sentences."""
    logged, version = explanation.logged, explanation.version
    decision, experiment = logged.decision, version.experiment
    return {
        "decision_id": decision.decision_id,
        "experiment": experiment.id,
        "version": version.number,
        "time": time_text(logged.time),
        "unit_id": decision.unit_id,
        "action": decision.action,
        "propensity": decision.propensity,
        "reason": decision.reason.value,
        "why": why(explanation),
        "check": {"result": explanation.check.value, "text": check_text(explanation)},
        "actions": list(_actions(explanation)),
        "context": dict(zip(decision.context._fields[:5], decision.context[:5], strict=True))
        | {"features": dict(decision.context.features)},
        "model": {
            "policy": experiment.policy.made_by,
            "position": decision.model,
            "time": time_text(explanation.model_time) if explanation.model_time else None,
            "text": model_text(explanation),
        },
        "comparison": comparison(explanation.compared) if explanation.compared else None,
        "no_comparison": explanation.no_gap,
        "notes": list(notes(explanation)),
    }


def why(explanation: Explanation) -> str:
    """Why this action, in one or two sentences."""
    decision, experiment = explanation.logged.decision, explanation.version.experiment
    if decision.reason is Reason.BASELINE and experiment.fallback is not None:
        return (
            f"The guardrail {experiment.fallback.reward} was crossed, so everybody gets the baseline action until "
            "somebody resumes the experiment."
        )
    if decision.reason is Reason.BASELINE and experiment.learning is Learning.LOG_ONLY:
        return LOG_ONLY
    if decision.reason is Reason.EXPLORE and max(decision.pmf) <= min(decision.pmf) + 1:
        return FLAT
    return REASONS[decision.reason]


def check_text(explanation: Explanation) -> str:
    """Whether the decision is what the code makes again, said so that nobody overlooks that it is not."""
    match explanation.check:
        case Check.EQUAL:
            return "Made again by the code that serves: equal to the log, to the last millionth."
        case Check.DIFFERENT:
            return (
                "NOT WHAT THE LOG SAYS. Made again, the decision is another one, so nothing here explains it. "
                f"Different: {explanation.what}. `simulator verify` checks the whole log."
            )
        case Check.UNCHECKED:
            return f"Not made again: {explanation.what}."


def model_text(explanation: Explanation) -> str:
    """Which model decided, and how old it was."""
    decision = explanation.logged.decision
    if not explanation.version.experiment.policy.learns:
        return "none: this policy does not learn"
    if decision.model == START:
        return "nothing learned yet"
    known = explanation.model_time
    age = "" if known is None else f", {_age(explanation.logged.time - known)} before"
    if not explanation.model_leaves_out:
        return f"learned up to position {decision.model} of the log{age}"
    newest = f"what it knows ends{age.removeprefix(',')} the decision" if known else "it knows nothing"
    left_out = [f"The entry at {one.position} {one.entry}." for one in explanation.model_leaves_out]
    return " ".join([f"at position {decision.model} of the log; {newest}, since something is left out.", *left_out])


def _age(microseconds: int) -> str:
    return duration_text(max(0, microseconds) // 1_000_000 * 1_000_000)


def comparison(compared: Compared) -> dict[str, Any]:
    """The first two actions, and where the gap between them comes from; the parts sum to it."""
    gap = compared.gap
    return {
        "first": _side(compared, gap, 0),
        "second": _side(compared, gap, 1),
        "gap": gap.total,
        "contributions": [{"field": one.field, "value": one.value, "reward": one.reward} for one in gap.contributions],
        "constant": gap.constant,
        "together": gap.together,
        "how": HOW,
        "spread": _spread_text(compared),
    }


def _side(compared: Compared, gap: Gap, index: int) -> dict[str, Any]:
    return {
        "action": (compared.first, compared.second)[index],
        "probability": compared.probabilities[index],
        "expected": gap.expected[index],
        "spread": gap.spread[index] if gap.spread else None,
    }


def _spread_text(compared: Compared) -> str:
    """What stands between the gap and the probabilities."""
    gap = compared.gap
    if gap.spread is None:
        return ""
    surprise = (
        " Although less is expected of the first, it is more probable: less is known about it." if gap.total < 0 else ""
    )
    return f"The probabilities also depend on how unsure the policy is of each (+-).{surprise}"


def _actions(explanation: Explanation) -> Iterator[dict[str, Any]]:
    """Most probable first, then what could not be chosen, and why."""
    decision = explanation.logged.decision
    pairs = sorted(zip(decision.eligible, decision.pmf, strict=True), key=lambda pair: -pair[1])
    for id_, slots in pairs:
        yield {"action": id_, "probability": slots / SLOTS, "drawn": id_ == decision.action, "withheld": "", "text": ""}
    for id_, rule in explanation.withheld.items():
        words = rule_text(explanation.version, id_, rule)
        drawn = id_ == decision.action
        if id_ not in decision.eligible:
            yield {"action": id_, "probability": 0.0, "drawn": drawn, "withheld": rule, "text": words}
    for id_ in explanation.left_out:
        words = "taken by a slot before" if id_ in explanation.slots[:-1] else "not allowed by the call"
        yield {"action": id_, "probability": 0.0, "drawn": False, "withheld": "call", "text": words}


def rule_text(version: ExperimentVersion, action: ActionId, rule: str) -> str:
    """What a rule says that withheld an action. rule: as it is logged."""
    known = version.active.get(action)
    if rule.startswith(f"{CAPS}[") and version.limits is not None:
        cap = version.limits.caps[int(rule[len(CAPS) + 1 : -1])]
        of = f"kind {cap.kind}" if cap.kind is not None else f"action {cap.action}"
        return f"{rule}: the unit had it {cap.most} times in {duration_text(cap.per)}, the most for {of}"
    if known is None:
        return rule
    if rule == ELIGIBLE_IF:
        return f"{rule}: {known.eligible_if} is not so for this context"
    if rule == DAILY_BUDGET:
        return f"{rule}: all {known.daily_budget} decisions of the day were used up"
    at = getattr(known, rule, None)
    return f"{rule}: {time_text(Time(at))}" if isinstance(at, int) else rule


def notes(explanation: Explanation) -> Iterator[str]:
    """What a reader should know besides."""
    version, place = explanation.version, len(explanation.slots) - 1
    experiment = version.experiment
    if place:
        taken = ", ".join(explanation.slots[:-1])
        yield f"It is slot {place} of a slate, decided after the slots before it, which took {taken}."
    if explanation.kept_until:
        until = time_text(explanation.kept_until)
        yield f"The unit keeps it until {until}: its calls get the same answer without a new draw."
    if experiment.minimum_propensity and explanation.compared:
        yield f"Every eligible action has a probability of {experiment.minimum_propensity:g} at least."
    for id_, (least, most) in version.shares.items():
        if explanation.compared and id_ in explanation.logged.decision.eligible:
            yield f"The experiment gives {id_} a probability between {least:g} and {most:g}."
    if experiment.learning is Learning.FROZEN:
        yield "The policy learns no more (learning = frozen)."
    if version.limits is not None:
        yield "What caps and budgets had used up is taken as logged; `simulator verify` counts it again."
    if explanation.unread:
        yield "What the unit did before lies in the archive in part; it is taken as logged."


def time_text(at: Time) -> str:
    """Log time for people, in milliseconds.

    >>> time_text(Time(61_000_000))
    '1970-01-01 00:01:01.000 UTC'
    """
    return datetime.fromtimestamp(at / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"


def figure(amount: float) -> str:
    """An amount; what is left of two equal sums is 0.

    >>> figure(0.123456), figure(-2.0), figure(1e-17)
    ('0.1235', '-2', '0')
    """
    return text.figure(amount if abs(amount) >= text.ROUNDING_ERROR else 0.0)


def value_text(value: FeatureValue) -> str:
    """What a field had.

    >>> value_text(True), value_text(77.2812174568), value_text("1e3")
    ('true', '77.2812', '1e3')
    """
    if isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else f"{value:.6g}"
