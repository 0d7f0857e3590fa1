"""One run as a pure function of its arguments: names and numbers go in, figures come out. Any engine can map it.

Called by `sweep.py`, in other processes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

import numpy as np

from simulator.run.play import play, play_reference
from simulator.run.policies import StaticPolicy, find_policy
from simulator.worlds.registry import find
from simulator.worlds.world import Floats, Indexes, Visits

POINTS = 100
HORIZONS = (4_000, 20_000, 100_000)
"""Always among the points, where a run is that long."""
_ROUNDING = 1e-9
"""A lift that is a smaller part of what is earned is none."""


@dataclass(frozen=True, slots=True)
class Task:
    """A policy plays a world. delayed: rewards come when the world says, not at once."""

    world: str
    policy: str
    seed: int
    rounds: int
    delayed: bool = True


@dataclass(frozen=True, slots=True)
class Run:
    """What came out, summed up to each of some points.

    rounds: the points. earned, got: mean rewards that the policy's probabilities lead to, and rewards that came. best,
    uniform, fixed: what the best action of every visit, a uniform choice and the best single action would have earned.
    right: how often a best action was chosen. All are cumulative sums.
    """

    task: Task
    rounds: list[int]
    earned: list[float]
    got: list[float]
    best: list[float]
    uniform: list[float]
    fixed: list[float]
    right: list[float]

    def share(self, point: int = -1) -> float:
        """Of the attainable lift: 0 is a uniform choice, 1 the best action of every visit; nan without a lift."""
        earned, best, uniform = (np.array(one[point]) for one in (self.earned, self.best, self.uniform))
        return float(share_of_lift(earned, best=best, uniform=uniform))


def share_of_lift(earned: Floats, *, best: Floats, uniform: Floats) -> Floats:
    """0 for a uniform choice, 1 for the best action of every visit; nan where there is no lift to attain. Of any shape.

    >>> share_of_lift(np.array([3.0, 2.0]), best=np.array([4.0, 2.0]), uniform=np.array([2.0, 2.0])).tolist()
    [0.5, nan]
    """
    lift = best - uniform
    largest = np.maximum(np.abs(earned), np.maximum(np.abs(best), np.abs(uniform)))
    attainable = np.abs(lift) > _ROUNDING * largest
    return np.where(attainable, (earned - uniform) / np.where(attainable, lift, 1.0), np.nan)


def run(task: Task) -> Run:
    """Equal tasks have equal results, in every process. Raises NoSuchWorld or BadPolicy.

    >>> round(run(Task("storefront", "best", seed=1, rounds=100)).share(), 9)
    1.0
    """
    world, visits = find(task.world), _visits(task.world, task.seed, task.rounds)
    best, uniform, fixed = _references(task.world, task.seed, task.rounds)
    player = find_policy(task.policy, world)
    if isinstance(player, StaticPolicy):
        pmfs = player.pmfs(visits)
        earned = got = play_reference(visits, pmfs, random=Random(task.seed))
        good = replace(visits, means=(visits.best > 0).astype(np.float64))
        right = play_reference(good, pmfs, random=Random(task.seed))
    else:
        policy = player.make(task.seed)
        random = Random(task.seed)
        played = play(
            world,
            visits,
            policy,
            floor=player.floor,
            random=random,
            delayed=task.delayed,
            history=player.history,
        )
        earned, got, right = played.earned, played.got, played.right
    points = _points(task.rounds)
    sums = [np.cumsum(one)[points - 1].tolist() for one in (earned, got, best, uniform, fixed, right)]
    return Run(task, points.tolist(), *sums)


def _points(rounds: int) -> Indexes:
    even = np.linspace(0, rounds, POINTS + 1)[1:].round().astype(np.int64)
    return np.unique([*even[even > 0], *[horizon for horizon in HORIZONS if horizon <= rounds]])


@lru_cache(maxsize=1)
def _visits(world: str, seed: int, rounds: int) -> Visits:
    return find(world).draw(seed, rounds)


@lru_cache(maxsize=1)
def _references(world: str, seed: int, rounds: int) -> tuple[Floats, Floats, Floats]:
    """Mean rewards of every round: of the best action, of a uniform choice, of the best single action."""
    visits = _visits(world, seed, rounds)
    singles = [
        play_reference(visits, visits.always(action), random=Random(seed)) for action in range(visits.means.shape[1])
    ]
    fixed = max(singles, key=lambda earned: float(earned.sum()))
    return (
        play_reference(visits, visits.best, random=Random(seed)),
        play_reference(visits, visits.uniform, random=Random(seed)),
        fixed,
    )
