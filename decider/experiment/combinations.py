"""Settings that are right one by one and cannot work together. Called by `learn/versions.py` for what is applied.

`checks.py` says what a definition must be, also for the definitions in old logs. What is refused here was once applied
by builds that did not refuse it: such logs are read, served and replayed all the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from decider.errors import InvalidExperiment, Violation
from decider.experiment.checks import LARGEST_REWARD
from decider.experiment.definition import DEFAULT_ACTION_REASONS, Experiment, Learning, RewardDefinition
from decider.policy.algorithms import ALGORITHMS


def check_combinations(experiment: Experiment, before: Experiment | None) -> None:
    """Raises InvalidExperiment with everything that cannot work. before: the newest version; None: there is none."""
    violations = [
        *_holdout_violations(experiment),
        *_reward_violations(experiment.reward),
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


def default_action_warnings(experiment: Experiment) -> Iterator[str]:
    """What surprises where default actions are served, in words."""
    if experiment.learning not in DEFAULT_ACTION_REASONS:
        return
    mode = experiment.learning.upper()
    if experiment.baseline is None:
        yield f"its learning is {mode} and it has no baseline_action, so calls without a default_action are refused"
    if experiment.holdout:
        yield f"its learning is {mode}, so everybody gets a default action and there is no control group (holdout)"


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
