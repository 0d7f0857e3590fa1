"""The name of another library's bandit -> a policy that plays a world: `rival:mabwiser-linucb`.

An extension of the names that `simulator/run/policies.py` knows. Only `vw` runs without the bake-off's environment,
which `make bakeoff` makes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from decider.errors import DeciderError
from decider.policy.protocol import PlainPolicy
from decider.policy.vw.workspace import VwPolicy
from simulator.run.policies import EXTENSIONS, LearningPolicy
from simulator.studies.bakeoff.rival_inputs import RivalInputs, sample
from simulator.worlds.world import World

Maker = Callable[[RivalInputs], PlainPolicy]

VW_DEFAULTS = "--cb_explore_adf --cb_type mtr -q CA --quiet"
"""Nothing but what says that it is a contextual bandit, and that actions depend on contexts."""


VW_SQUARECB = f"{VW_DEFAULTS} --squarecb"
"""Its own defaults for all that SquareCB has; the products of context and action, whose features it sees, too."""


class NoSuchRival(DeciderError):
    """There is no rival of that name, or it cannot play here."""

    reason = "NO_SUCH_RIVAL"


@dataclass(frozen=True, slots=True)
class Rival:
    """label: for people. make: with the library's own code; imports it only then. binary: learns from 0 and 1 only.

    longest: rounds that it can play in a reasonable time. package: whose version its results depend on.
    """

    label: str
    make: Maker
    package: str
    binary: bool = False
    longest: int = 100_000


def _vw(arguments: str) -> Maker:
    return lambda given: VwPolicy(arguments, reward_range=given.reward_range)


def _of(module: str, factory: str, *arguments: object) -> Maker:
    """Calls that factory; the module imports the library, so that it is imported late."""

    def make(given: RivalInputs) -> PlainPolicy:
        policy: PlainPolicy = getattr(importlib.import_module(module), factory)(given, *arguments)
        return policy

    return make


_MABWISER, _BOOTSTRAPPED, _COBA = (f"{__package__}.with_{one}" for one in ("mabwiser", "contextualbandits", "coba"))

_MAB = "mabwiser"
_BANDITS = "contextualbandits"
_VW9 = "vowpalwabbit"
_NEXT = "vowpal-wabbit-next"
_SLOW, _SLOWEST = 20_000, 4_000

RIVALS = {
    "vw": Rival("VW's own defaults", _vw(VW_DEFAULTS), _NEXT),
    "vw-squarecb": Rival("VW SquareCB", _vw(VW_SQUARECB), _NEXT),
    "coba-squarecb": Rival("coba VowpalSquarecbLearner", _of(_COBA, "make", "VowpalSquarecbLearner"), _VW9),
    "mabwiser-linucb": Rival("MABWiser LinUCB, alpha 1", _of(_MABWISER, "lin_ucb", 1.0), _MAB),
    "mabwiser-linucb-0.1": Rival("MABWiser LinUCB, alpha 0.1", _of(_MABWISER, "lin_ucb", 0.1), _MAB),
    "mabwiser-lints-0.1": Rival("MABWiser LinTS, alpha 0.1", _of(_MABWISER, "lin_ts", 0.1), _MAB, longest=_SLOW),
    "mabwiser-lingreedy": Rival("MABWiser LinGreedy, epsilon 0.1", _of(_MABWISER, "lin_greedy", 0.1), _MAB),
    "contextualbandits-ucb": Rival(
        "contextualbandits BootstrappedUCB",
        _of(_BOOTSTRAPPED, "make", "BootstrappedUCB"),
        _BANDITS,
        binary=True,
        longest=_SLOWEST,
    ),
    "contextualbandits-ts": Rival(
        "contextualbandits BootstrappedTS",
        _of(_BOOTSTRAPPED, "make", "BootstrappedTS"),
        _BANDITS,
        binary=True,
        longest=_SLOWEST,
    ),
}
"""In the order of the table. All have their default parameters but where a number at the end of the name says other."""


def rival(name: str, world: World, *, seed: int) -> PlainPolicy:
    """A fresh one. Raises NoSuchRival, also where its library is not installed or the world's rewards do not fit it."""
    if name not in RIVALS:
        raise NoSuchRival(f"there is no rival {name!r}; there are {', '.join(RIVALS)}")
    one, known = RIVALS[name], sample(world)
    if one.binary and not known.binary:
        raise NoSuchRival(f"rival:{name} learns from rewards of 0 and 1 only; {world.name} has others")
    try:
        return one.make(RivalInputs.of(world, known, seed=seed))
    except ModuleNotFoundError as error:
        raise NoSuchRival(
            f"rival:{name} needs {error.name}: `make bakeoff` makes an environment that has it"
        ) from error


def takes_part(name: str, world: World) -> bool:
    """Whether that rival can learn from the rewards of that world.

    >>> from simulator.worlds.registry import find
    >>> takes_part("contextualbandits-ucb", find("storefront"))
    True
    """
    return not RIVALS[name].binary or sample(world).binary


def _learner(name: str, world: World) -> LearningPolicy:
    """It has no floor."""
    rival(name, world, seed=1)  # says before the work what there is to say
    return LearningPolicy(lambda seed: rival(name, world, seed=seed), 0.0)


EXTENSIONS["rival"] = _learner
