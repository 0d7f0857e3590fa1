"""The posterior of every action's expected reward -> a pmf: P(best)^draws, normalised. Called by `thompson.py`.

The codes of learning differ in how far they look beyond the mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from decider.policy.protocol import Choice, Scores
from decider.policy.thompson.arrays import Floats
from decider.policy.thompson.integral import best_of_all, best_of_rows, share_among_equals
from decider.policy.thompson.names import ActionNames, action_names, context_features
from decider.policy.thompson.posterior import Posterior
from decider.policy.thompson.served import Part, Served, weighted
from decider.types import Context

OPTIMISM, NARROW = 4 / 3, 2 / 3
"""Of `width`: how far above the mean, and how wide the draws are, in standard deviations: 0.6 and 0.3 by default."""

TINY = 1e-9
"""Added to deviations, which may be 0."""


UNDER_WAY = "under_way"
"""Of what a model stores: decisions that were made, and those of them that were sealed."""


class PmfFromPosterior:
    """Turns posteriors into pmfs; see `ThompsonPolicy`. reward_range: (minimum, maximum), in the reward's unit."""

    def __init__(self, width: float, draws: int, reward_range: tuple[float, float]) -> None:
        self._width, self._draws = width, draws
        self._minimum, self._maximum = reward_range
        self._last: tuple[tuple[Choice, ...] | None, ActionNames] = (None, ((), ()))

    def __call__(self, served: Served, context: Context, actions: Sequence[Choice]) -> list[float]:
        (pmf,) = self.several(served, [context], actions)
        return pmf

    def several(self, served: Served, contexts: Sequence[Context], actions: Sequence[Choice]) -> list[list[float]]:
        """The pmf of each context, the same bits as one by one."""
        parts = self._parts(served, contexts, actions)
        pmfs: list[list[float]] = weighted([(one.weight, self._pmfs(one.posterior)) for one in parts]).tolist()
        return pmfs

    def _pmfs(self, posterior: Posterior) -> Floats:
        power = self._power(*self._explore(posterior))
        return np.asarray(power / power.sum(axis=1)[:, None])

    def scores(self, served: Served, context: Context, actions: Sequence[Choice]) -> Scores:
        """In the reward's unit: what is expected, and how wide the pmf's draws are."""
        parts = self._parts(served, [context], actions)
        (mean,) = weighted([(one.weight, one.posterior.mean) for one in parts])
        (deviation,) = weighted([(one.weight, self._explore(one.posterior)[1]) for one in parts])
        size = self._maximum - self._minimum
        return Scores(tuple((self._minimum + size * mean).tolist()), tuple((size * deviation).tolist()))

    def _parts(self, served: Served, contexts: Sequence[Context], actions: Sequence[Choice]) -> list[Part]:
        """Posteriors of (contexts, actions)."""
        ids, own = self._names_of(tuple(actions))
        return served.parts(ids, list(map(context_features, contexts)), own)

    def _power(self, mean: Floats, deviation: Floats) -> Floats:
        """(contexts, actions): P(each one is the best)^draws."""
        power = best = self._best(mean, deviation)
        for _ in range(self._draws - 1):  # multiplied, not `**`: its last bits depend on the C library
            power = power * best
        return power

    def _best(self, mean: Floats, deviation: Floats) -> Floats:
        """(contexts, actions): P(each one is the best)."""
        return best_of_rows(mean, deviation)

    def count_under_way(self, *, decided: int, sealed: int) -> None:
        """See `Policy`. Here it makes no difference."""

    def to_arrays(self) -> dict[str, Any]:
        """What it has counted, to be saved."""
        return {}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Go on from what was saved."""

    def _explore(self, posterior: Posterior) -> tuple[Floats, Floats]:
        """(contexts, actions) each: mean and standard deviation of the normal distributions of which one is the
        largest."""
        raise NotImplementedError

    def _names_of(self, actions: tuple[Choice, ...]) -> ActionNames:
        # The same object as before in most calls: an `is` is cheaper than hashing all choices for the cache.
        last, names = self._last
        if last is not actions:
            names = action_names(actions)
            self._last = (actions, names)
        return names


class FirstPmf(PmfFromPosterior):
    """Learning codes 1 and 2: draws from the posterior, with its deviations times `width`."""

    def _explore(self, posterior: Posterior) -> tuple[Floats, Floats]:
        return posterior.mean, self._width * np.sqrt(posterior.variance) + TINY

    def _best(self, mean: Floats, deviation: Floats) -> Floats:
        return np.array(list(map(best_of_all, mean, deviation)))


class OptimisticPmf(PmfFromPosterior):
    """Learning code 3: narrower draws around a mean that is the higher, the less is known. They are narrower still
    while much is under way: what was drawn before will tell, so nobody need draw it again to learn it.

    Feel-good Thompson sampling: Zhang, SIAM Journal on Mathematics of Data Science 2022.
    """

    def __init__(self, width: float, draws: int, reward_range: tuple[float, float]) -> None:
        super().__init__(width, draws, reward_range)
        self._decided = self._sealed = 0

    def count_under_way(self, *, decided: int, sealed: int) -> None:
        """See `Policy`."""
        self._decided += decided
        self._sealed += sealed

    def to_arrays(self) -> dict[str, Any]:
        """See PmfFromPosterior."""
        return {UNDER_WAY: np.array([self._decided, self._sealed], np.int64)}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """See PmfFromPosterior."""
        self._decided, self._sealed = arrays[UNDER_WAY].tolist()

    def _explore(self, posterior: Posterior) -> tuple[Floats, Floats]:
        deviation = self._width * np.sqrt(posterior.variance)
        return posterior.mean + OPTIMISM * deviation, NARROW * self._known * deviation + TINY

    def _power(self, mean: Floats, deviation: Floats) -> Floats:
        return share_among_equals(super()._power(mean, deviation), mean, deviation)

    @property
    def _known(self) -> float:
        """Square root of the share of decisions that are sealed; 1 before the first."""
        return math.sqrt(self._sealed / self._decided) if self._sealed else 1.0
