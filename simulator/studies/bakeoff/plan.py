"""Who plays where, how often and how long: the tasks of the bake-off, as `PLAN.md` has them. Called by `__main__.py`.

A run of 100,000 rounds also tells what came out after 4,000 and after 20,000. Shorter runs with other seeds are added,
so that most seeds are where they cost least.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from decider.policy.algorithms import ALGORITHMS, DEFAULT_ALGORITHM
from simulator.run.task import HORIZONS, Task
from simulator.studies.bakeoff.before import BEFORE
from simulator.studies.bakeoff.rivals import RIVALS, takes_part
from simulator.worlds.classification import PREFIX
from simulator.worlds.registry import find

FIRST_SEED = 20_001
"""Seeds before took part in choosing: the defaults of every algorithm, and the rivals below."""

DEFAULT = "default"
_OTHERWISE = [name for name, one in ALGORITHMS.items() if one.learns and name != DEFAULT_ALGORITHM]
OURS = {
    DEFAULT: f"our default ({DEFAULT_ALGORITHM})",
    BEFORE: "our default before (code 2)",
    **{name: f"our {name}" for name in _OTHERWISE},
}
OTHERS = {f"rival:{name}": rival.label for name, rival in RIVALS.items()}
LABELS = OURS | OTHERS
"""Every policy that can take part, with its name for people, in the order of the tables."""

BEST_RIVALS = {
    "anonymous": ("mabwiser-linucb", "mabwiser-linucb-0.1", "mabwiser-lints-0.1"),
    "arrival": ("mabwiser-linucb", "mabwiser-linucb-0.1", "mabwiser-lints-0.1"),
    "asking": ("mabwiser-linucb", "mabwiser-linucb-0.1", "mabwiser-lints-0.1", "mabwiser-lingreedy"),
    "cart-offer": ("mabwiser-linucb-0.1", "mabwiser-lingreedy"),
    "catalogue": ("vw-squarecb", "mabwiser-linucb-0.1", "mabwiser-lingreedy"),
    "channels": ("coba-squarecb", "mabwiser-linucb-0.1", "mabwiser-lints-0.1"),
    "clicks": ("mabwiser-linucb", "mabwiser-linucb-0.1", "mabwiser-lints-0.1"),
    "data:bananas": ("coba-squarecb", "mabwiser-linucb"),
    "data:breast-cancer": ("mabwiser-linucb-0.1", "mabwiser-lints-0.1"),
    "data:digits": ("mabwiser-linucb-0.1", "mabwiser-lints-0.1"),
    "data:image-segments": ("mabwiser-linucb", "mabwiser-lints-0.1"),
    "data:iris": ("coba-squarecb", "mabwiser-linucb-0.1"),
    "data:phishing": ("coba-squarecb", "mabwiser-linucb"),
    "data:shuttle": ("mabwiser-linucb", "mabwiser-lints-0.1"),
    "data:wine": ("mabwiser-linucb-0.1", "mabwiser-lints-0.1"),
    "email": ("mabwiser-linucb-0.1", "mabwiser-lints-0.1", "mabwiser-lingreedy"),
    "interactions": ("coba-squarecb", "mabwiser-linucb", "mabwiser-linucb-0.1", "mabwiser-lints-0.1"),
    "product-cta": ("mabwiser-linucb", "mabwiser-linucb-0.1", "mabwiser-lints-0.1"),
    "purchases": ("mabwiser-linucb-0.1", "mabwiser-lingreedy"),
    "push": ("mabwiser-linucb", "mabwiser-lints-0.1", "mabwiser-lingreedy"),
    "rare": ("mabwiser-linucb-0.1", "mabwiser-lingreedy"),
    "returning": ("mabwiser-linucb-0.1", "mabwiser-lints-0.1", "mabwiser-lingreedy"),
    "season": ("coba-squarecb", "mabwiser-linucb"),
    "shelf": ("vw-squarecb", "mabwiser-linucb-0.1", "mabwiser-lingreedy"),
    "storefront": ("mabwiser-linucb", "mabwiser-linucb-0.1", "mabwiser-lints-0.1"),
}
"""The two rivals with the greatest mean share over both kinds of rewards at each horizon, together, on seeds before
FIRST_SEED; VW's SquareCB beside them where features tell the actions apart. In a world that is not here, all play."""


MADE_FOR_IT = ("shelf", "catalogue")
"""Worlds that were made for what the default before was known to be bad at: its change is told without them, too."""


@dataclass(frozen=True, slots=True)
class Seeds:
    """How many seeds are played to each horizon at least; a seed that is played longer counts at all before."""

    at_4k: int
    at_20k: int
    at_100k: int

    def runs(self) -> list[tuple[int, int]]:
        """(seed, rounds), the shortest first: most of the table is there early. The first seeds are played the longest.

        >>> Seeds(at_4k=4, at_20k=2, at_100k=1).runs()
        [(20004, 4000), (20003, 4000), (20002, 20000), (20001, 100000)]
        """
        counts = (self.at_4k, self.at_20k, self.at_100k)
        longest = [
            max(horizon for horizon, count in zip(HORIZONS, counts, strict=True) if place < count)
            for place in range(max(counts))
        ]
        return [(FIRST_SEED + place, rounds) for place, rounds in enumerate(longest)][::-1]


def in_plan(world: str, policy: str) -> bool:
    """The default, what it was before, and the best rivals of that world.

    >>> in_plan("season", "default"), in_plan("season", "rival:vw"), in_plan("season", "bag")
    (True, False, False)
    """
    rivals = BEST_RIVALS.get(world, tuple(RIVALS))
    return policy in (DEFAULT, BEFORE) or policy in [f"rival:{name}" for name in rivals]


def everywhere(_world: str, _policy: str) -> bool:
    """All, everywhere."""
    return True


def tasks(
    worlds: Sequence[str],
    policies: Sequence[str],
    seeds: Seeds,
    plays: Callable[[str, str], bool] = everywhere,
) -> list[Task]:
    """All runs of those that play: (world, policy). Those of the same visits are next to each other. A policy that is
    slow plays the first rounds of a long seed. Raises what `find` raises.

    >>> found = tasks(["storefront"], ["default", "rival:mabwiser-lints-0.1"], Seeds(at_4k=0, at_20k=0, at_100k=1))
    >>> [(one.policy, one.rounds, one.delayed) for one in found]  # doctest: +NORMALIZE_WHITESPACE
    [('default', 100000, False), ('default', 100000, True),
     ('rival:mabwiser-lints-0.1', 20000, False), ('rival:mabwiser-lints-0.1', 20000, True)]
    """
    able = [(world, policy) for world in worlds for policy in policies if plays(world, policy)]
    able = [(world, policy) for world, policy in able if _learns(policy, world)]
    return [
        Task(world, policy, seed, min(rounds, _longest(world), _slowest(policy)), delayed)
        for (seed, rounds), (world, policy) in product(seeds.runs(), able)
        for delayed in (False, True)
    ]


def _longest(world: str) -> int:
    return HORIZONS[0] if world.startswith(PREFIX) else HORIZONS[-1]


def _slowest(policy: str) -> int:
    return RIVALS[policy.removeprefix("rival:")].longest if policy in OTHERS else HORIZONS[-1]


def _learns(policy: str, world: str) -> bool:
    """From rewards as they are there."""
    return policy not in OTHERS or takes_part(policy.removeprefix("rival:"), find(world))
