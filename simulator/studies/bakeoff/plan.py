"""Who plays where, how often and how long: the tasks of the bake-off. Called by `__main__.py`.

A run of 100,000 rounds also tells what came out after 4,000 and after 20,000. Shorter runs with other seeds are added,
so that most seeds are where they cost least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from decider.policy.algorithms import ALGORITHMS, DEFAULT_ALGORITHM
from simulator.run.task import HORIZONS, Task
from simulator.studies.bakeoff.rivals import RIVALS, takes_part
from simulator.worlds.classification import PREFIX
from simulator.worlds.registry import find

FIRST_SEED = 10_001
"""Seeds before took part in choosing the defaults."""

DEFAULT = "default"
_OTHERWISE = [name for name, one in ALGORITHMS.items() if one.learns and name != DEFAULT_ALGORITHM]
OURS = {DEFAULT: f"our default ({DEFAULT_ALGORITHM})"} | {name: f"our {name}" for name in _OTHERWISE}
OTHERS = {f"rival:{name}": rival.label for name, rival in RIVALS.items()}
LABELS = OURS | OTHERS
"""Every policy that takes part, with its name for people, in the order of the tables."""


@dataclass(frozen=True, slots=True)
class Seeds:
    """How many seeds are played to each horizon, each of them another."""

    at_4k: int
    at_20k: int
    at_100k: int

    def runs(self) -> list[tuple[int, int]]:
        """(seed, rounds), the longest first.

        >>> Seeds(at_4k=1, at_20k=2, at_100k=1).runs()
        [(10001, 100000), (10002, 20000), (10003, 20000), (10004, 4000)]
        """
        counts = (self.at_4k, self.at_20k, self.at_100k)
        ordered = [rounds for rounds, count in zip(HORIZONS, counts, strict=True) for _ in range(count)][::-1]
        return [(FIRST_SEED + place, rounds) for place, rounds in enumerate(ordered)]


def tasks(worlds: Sequence[str], policies: Sequence[str], seeds: Seeds) -> list[Task]:
    """All runs; those of the same visits next to each other. Raises what `find` raises.

    >>> found = tasks(["storefront"], ["default", "rival:mabwiser-lints-0.1"], Seeds(at_4k=0, at_20k=1, at_100k=1))
    >>> [(one.policy, one.rounds, one.delayed) for one in found]  # doctest: +NORMALIZE_WHITESPACE
    [('default', 100000, False), ('default', 100000, True), ('default', 20000, False), ('default', 20000, True),
     ('rival:mabwiser-lints-0.1', 20000, False), ('rival:mabwiser-lints-0.1', 20000, True)]
    """
    able = {(world, policy) for world in worlds for policy in policies if _learns(policy, world)}
    found = []
    for (seed, rounds), world in product(seeds.runs(), worlds):
        there = min(rounds, HORIZONS[0]) if world.startswith(PREFIX) else rounds
        playing = [policy for policy in policies if (world, policy) in able and there <= _longest(policy)]
        found += [Task(world, policy, seed, there, delayed) for policy in playing for delayed in (False, True)]
    return found


def _longest(policy: str) -> int:
    return RIVALS[policy.removeprefix("rival:")].longest if policy in OTHERS else HORIZONS[-1]


def _learns(policy: str, world: str) -> bool:
    """From rewards as they are there."""
    return policy not in OTHERS or takes_part(policy.removeprefix("rival:"), find(world))
