"""Settings that are right one by one and cannot work together. Called by `learn/versions.py` for what is applied.

`checks.py` says what a definition must be, also for the definitions in old logs. What is refused here was once applied
by builds that did not refuse it: such logs are read, served and replayed all the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from decider.errors import InvalidExperiment, Violation
from decider.experiment.checks import LARGEST_REWARD
from decider.experiment.definition import DEFAULT_ACTION_REASONS, Action, Experiment, Learning, RewardDefinition
from decider.experiment.feature_schema import FeatureSchema, FeatureType
from decider.experiment.rules import equality, is_never
from decider.policy.algorithms import ALGORITHMS, DEFAULT_ALGORITHM
from decider.types import Time

SLACK = 1e-9
"""Of sums of shares: 0.1 + 0.2 is more than 0.3."""


def check_combinations(experiment: Experiment, before: Experiment | None) -> None:
    """Raises InvalidExperiment with everything that cannot work. before: the newest version; None: there is none."""
    violations = [
        *_holdout_violations(experiment),
        *_reward_violations(experiment.reward),
        *_limit_violations(experiment),
        *_share_violations(experiment),
        *_rule_violations(experiment),
        *_apprentice_violations(experiment),
        *_succession_violations(experiment, before),
    ]
    if violations:
        raise InvalidExperiment(violations)


def _holdout_violations(experiment: Experiment) -> Iterator[Violation]:
    if experiment.holdout == 1 and experiment.policy.algorithm != "fixed":
        yield Violation(
            "holdout",
            "1 sends every unit to the control group, so the policy never decides: take a smaller share, or the fixed "
            "policy to serve the baseline action alone",
        )


def _limit_violations(experiment: Experiment) -> Iterator[Violation]:
    """Where caps and budgets leave nothing, the baseline action is served: nothing may withhold it."""
    budgets = any(action.daily_budget is not None for action in experiment.actions)
    if not (experiment.caps or budgets):
        return
    baseline = next((action for action in experiment.actions if action.id == experiment.baseline), None)
    way_out = 'take one that may always be shown, for example an action of kind "none"'
    if baseline is None:
        yield Violation("baseline_action", f"is needed: it is served where caps and budgets leave nothing; {way_out}")
        return
    for index, cap in enumerate(experiment.caps):
        if cap.covers(baseline.id, baseline.kind):
            yield Violation(f"caps[{index}]", f"counts the baseline action, {baseline.id!r}; {way_out}")
    for name in ("daily_budget", "eligible_if", "available_from", "available_until"):
        if getattr(baseline, name) not in (None, ""):
            why = "is served where caps and budgets leave nothing, and cannot have one"
            place = [action.id for action in experiment.actions].index(baseline.id)
            yield Violation(f"actions[{place}].{name}", f"the baseline action, {baseline.id!r}, {why}; {way_out}")


def _share_violations(experiment: Experiment) -> Iterator[Violation]:
    active = [action for action in experiment.actions if not action.retired]
    if not any((action.min_share, action.max_share) != (0, 1) for action in active):
        return
    if experiment.policy.algorithm == "fixed":
        yield Violation("policy", "fixed serves the baseline action alone; take uniform, or a policy that learns")
    more = max(experiment.most_actions - len(active), 0)
    least = sum([max(action.min_share, experiment.minimum_propensity) for action in active])
    if least + more * experiment.minimum_propensity > 1 + SLACK:
        yield Violation(
            "actions",
            f"their smallest shares (min_share, at least minimum_propensity) come to {least:.6g}, more than 1: take "
            "smaller ones",
        )
    if not more and sum([action.max_share for action in active]) < 1 - SLACK:
        most = sum([action.max_share for action in active])
        yield Violation(
            "actions", f"their largest shares (max_share) come to {most:.6g}, less than 1: something has to be shown"
        )
    yield from _low_shares(experiment, active)


def _low_shares(experiment: Experiment, active: list[Action]) -> Iterator[Violation]:
    for action in active:
        if action.max_share < experiment.minimum_propensity:
            yield Violation(
                f"actions[{experiment.actions.index(action)}].max_share",
                f"{action.max_share} is below minimum_propensity, {experiment.minimum_propensity}: take a smaller "
                "minimum_propensity, or a larger share",
            )


def _apprentice_violations(experiment: Experiment) -> Iterator[Violation]:
    if experiment.learning is not Learning.APPRENTICE:
        return
    name = experiment.policy.algorithm
    if not experiment.policy.learns:
        yield Violation(
            "learning",
            f"APPRENTICE teaches the policy by what is served, and {name} learns nothing: take LOG_ONLY, or a policy "
            "that learns",
        )
    elif why := ALGORITHMS[name].no_apprentice:
        yield Violation("learning", f"APPRENTICE is not for {name}: {why}. Take LOG_ONLY, or another policy")


def _rule_violations(experiment: Experiment) -> Iterator[Violation]:
    """Rules that hold for nobody. On one action they are a switch; here they contradict what else is said."""
    active = [action for action in experiment.actions if not action.retired]
    never = [action for action in active if is_never(action.eligible_if)]
    for action in never:
        if action.min_share > 0:
            yield Violation(
                f"actions[{experiment.actions.index(action)}].min_share",
                f"{action.min_share:g} of an action whose eligible_if, {action.eligible_if!r}, is never true: take out "
                "one of the two",
            )
    if active and len(never) == len(active) and not experiment.most_actions:
        yield Violation("actions", "each has an eligible_if that is never true, so no call gets one: change a rule")


def combination_warnings(experiment: Experiment, at: Time, before: Experiment | None = None) -> Iterator[str]:
    """What can be meant, and surprises, in words. at: when it is applied. before: what it follows."""
    yield from _new_action_warnings(experiment, before)
    yield from _default_action_warnings(experiment)
    yield from _sticky_warnings(experiment)
    yield from _deprecated_policy_warnings(experiment)
    active = [action for action in experiment.actions if not action.retired]
    for action in active:
        if action.unavailable(at) == "available_until":
            yield f"available_until of action {action.id!r} is over: it is not chosen; set a later time, or retire it"
        yield from _value_warnings(action, experiment.schema)
    count = max(len(active), experiment.most_actions)
    if count > 1 and experiment.policy.learns and experiment.minimum_propensity * count >= 1 - SLACK:
        yield (
            f"its minimum_propensity {experiment.minimum_propensity:g} x {count} actions is 1, so each gets the same "
            f"share and {experiment.policy.algorithm} decides nothing where all may be chosen; take a smaller one, or "
            "the uniform policy"
        )


def _new_action_warnings(experiment: Experiment, before: Experiment | None) -> Iterator[str]:
    if before is None or experiment.learning is not Learning.ONLINE or experiment.policy.algorithm != DEFAULT_ALGORITHM:
        return
    known = {action.id for action in before.actions}
    new = [one.id for one in experiment.actions if one.id not in known and not one.retired and one.max_share == 1]
    if new:
        window = f"{experiment.reward.window / 1_000_000:g} s"
        yield (
            f"nothing is known yet of what is new, {', '.join(map(repr, new))}: until its first rewards are final "
            f"(reward.window, {window}) an action may get most of the decisions. Give it a max_share to bound that"
        )


def _deprecated_policy_warnings(experiment: Experiment) -> Iterator[str]:
    name = experiment.policy.algorithm
    if ALGORITHMS[name].deprecated:
        yield (
            f"its policy {name} is deprecated: {ALGORITHMS[name].deprecated}. Leave `policy` out to take the default"
        )


def _sticky_warnings(experiment: Experiment) -> Iterator[str]:
    if experiment.sticky > experiment.reward.window:
        seconds = experiment.sticky / 1_000_000, experiment.reward.window / 1_000_000
        yield (
            f"units keep a decision for {seconds[0]:g} s (sticky), and rewards count for {seconds[1]:g} s "
            "(reward.window): what later visits earn is LATE and is not learned. Make reward.window as long as sticky"
        )


def _value_warnings(action: Action, schema: FeatureSchema | None) -> Iterator[str]:
    wanted = equality(action.eligible_if)
    rule = schema.rules.get(wanted.feature) if schema and wanted else None
    if not (wanted and wanted.value and rule):
        return
    if rule.type is not FeatureType.CATEGORY:
        yield (
            f"eligible_if of action {action.id!r} compares {wanted.feature} with a text, and the schema says "
            f"that it is a {rule.type}; change one of the two"
        )
    elif rule.values and wanted.value not in rule.values:
        yield (
            f"eligible_if of action {action.id!r} wants {wanted.feature} == {wanted.value!r}, which is not among the "
            "schema's values; change one of the two"
        )


def _default_action_warnings(experiment: Experiment) -> Iterator[str]:
    """What surprises where default actions are served."""
    if experiment.learning not in DEFAULT_ACTION_REASONS:
        return
    mode = experiment.learning.upper()
    if experiment.baseline is None:
        yield f"its learning is {mode} and it has no baseline_action, so calls without a default_action are refused"
    if experiment.holdout:
        yield f"its learning is {mode}, so everybody gets a default action and there is no control group (holdout)"
    if any((action.min_share, action.max_share) != (0, 1) for action in experiment.actions):
        yield f"its learning is {mode}, so min_share and max_share do not hold: callers say what is served"


def _reward_violations(reward: RewardDefinition) -> Iterator[Violation]:
    if reward.weights and not any(reward.weights.values()):
        yield Violation("reward.weights", "are all 0, so rewards count for nothing: give one another weight")
        return
    range_ = f"reward.range [{reward.minimum:g}, {reward.maximum:g}]"
    for name, weight in reward.weights.items():
        path = f"reward.weights[{name}]"
        if weight < 0 <= reward.minimum:
            yield Violation(
                path,
                f"{weight:g} makes every value above 0 a reward below 0, and {range_} begins at {reward.minimum:g}: "
                "declare a minimum below 0, or a weight above 0",
            )
        elif abs(weight) * LARGEST_REWARD < max(reward.minimum, -reward.maximum):
            yield Violation(path, f"{weight:g} x a value, at most {LARGEST_REWARD:g}, is never in {range_}")


def _succession_violations(experiment: Experiment, before: Experiment | None) -> Iterator[Violation]:
    if before is None and experiment.learning is Learning.FROZEN and experiment.policy.learns:
        yield Violation(
            "learning",
            "FROZEN from the first version on: the model has learned nothing, and never will. Begin with ONLINE, or "
            "take the uniform policy",
        )
    if before is not None and before.most_actions and not experiment.most_actions:
        yield Violation(
            "actions_in_calls",
            "was set before and has to stay: the log has actions that only calls knew. Bring none in the calls, or "
            "begin an experiment with another id",
        )
