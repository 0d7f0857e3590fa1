"""The default as it was before: thompson by its learning code 2, under the name `thompson-code-2`.

It plays the same visits as the default, so that before and after are paired. All is written down here, for a default
may change and the past does not. Called by name from `plan.py`.
"""

from __future__ import annotations

from decider.policy.make import make_policy
from decider.policy.spec import PolicySpec
from simulator.run.policies import EXTENSIONS, LearningPolicy
from simulator.worlds.world import World

BEFORE = "thompson-code-2"
CODE = 2
PARAMETERS = {"width": 0.45, "memory": 1000.0, "draws": 2.0}


def _learner(_: str, world: World) -> LearningPolicy:
    reward = world.experiment.reward
    spec = PolicySpec("thompson", PARAMETERS, ("CA",), (reward.minimum, reward.maximum))
    return LearningPolicy(lambda _: make_policy(spec, code=CODE), floor(world), world.experiment.history)


def floor(world: World) -> float:
    """The minimum propensity that such an experiment had by default.

    >>> from simulator.worlds.registry import find
    >>> floor(find("storefront")), floor(find("catalogue"))
    (0.001, 0.0005)
    """
    return min(0.001, 0.1 / len(world.actions))


EXTENSIONS[BEFORE] = _learner
