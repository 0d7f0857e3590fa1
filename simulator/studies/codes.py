"""The default policy by a version of its learning code. Called by the studies that set the newest beside an older one:
what did it cost, what did it bring?
"""

from __future__ import annotations

from random import Random

from decider.policy.algorithms import DEFAULT_ALGORITHM, code_versions
from decider.policy.make import make_policy
from decider.policy.protocol import PlainPolicy, Policy
from simulator.run.play import Rounds, play
from simulator.worlds.world import Visits, World

BEFORE = 2
"""The learning code that others are compared with."""


def codes() -> tuple[int, ...]:
    """BEFORE and the newest; only one where they are the same."""
    return tuple(sorted({BEFORE, code_versions()[DEFAULT_ALGORITHM]}))


def policy_of(world: World, code: int) -> Policy:
    """The default of the world's experiment, which has learned nothing yet."""
    return make_policy(world.experiment.policy, code=code)


def play_as_served(world: World, visits: Visits, policy: PlainPolicy, *, seed: int, delayed: bool) -> Rounds:
    """Any policy, with the minimum propensity of the world's experiment."""
    made = world.experiment
    random = Random(seed)
    return play(
        world, visits, policy, floor=made.minimum_propensity, random=random, history=made.history, delayed=delayed
    )
