"""The posterior of every action's expected reward -> a pmf: P(best)^draws, normalised. Called by `thompson.py`.

The codes of learning differ in how far they look beyond the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from decider.policy.protocol import Choice, Scores
from decider.policy.thompson.arrays import Floats
from decider.policy.thompson.integral import best_of_all, best_of_rows, share_among_equals
from decider.policy.thompson.names import ActionNames, action_names, context_features
from decider.policy.thompson.posterior import Posterior, Predictor
from decider.types import Context

OPTIMISM, NARROW = 8 / 9, 2 / 3
"""Of `width`: how far above the mean, and how wide the draws are, in standard deviations: 0.4 and 0.3 by default."""

TINY = 1e-9
"""Added to deviations, which may be 0."""


class PmfFromPosterior:
    """Turns posteriors into pmfs; see `ThompsonPolicy`. reward_range: (minimum, maximum), in the reward's unit."""

    def __init__(self, width: float, draws: int, reward_range: tuple[float, float]) -> None:
        self._width, self._draws = width, draws
        self._minimum, self._maximum = reward_range
        self._last: tuple[tuple[Choice, ...] | None, ActionNames] = (None, ((), ()))

    def __call__(self, predictor: Predictor, context: Context, actions: Sequence[Choice]) -> list[float]:
        (pmf,) = self.several(predictor, [context], actions)
        return pmf

    def several(
        self, predictor: Predictor, contexts: Sequence[Context], actions: Sequence[Choice]
    ) -> list[list[float]]:
        """The pmf of each context, the same bits as one by one."""
        mean, deviation = self._explore(self._posteriors(predictor, contexts, actions))
        power = self._power(mean, deviation)
        pmfs: list[list[float]] = (power / power.sum(axis=1)[:, None]).tolist()
        return pmfs

    def scores(self, predictor: Predictor, context: Context, actions: Sequence[Choice]) -> Scores:
        """In the reward's unit: what is expected, and how wide the pmf's draws are."""
        posterior = self._posteriors(predictor, [context], actions)
        _, deviation = self._explore(posterior)
        size = self._maximum - self._minimum
        return Scores(tuple((self._minimum + size * posterior.mean[0]).tolist()), tuple((size * deviation[0]).tolist()))

    def _posteriors(self, predictor: Predictor, contexts: Sequence[Context], actions: Sequence[Choice]) -> Posterior:
        ids, own = self._names_of(tuple(actions))
        return predictor.posteriors(ids, list(map(context_features, contexts)), own)

    def _power(self, mean: Floats, deviation: Floats) -> Floats:
        """(contexts, actions): P(each one is the best)^draws."""
        power = best = self._best(mean, deviation)
        for _ in range(self._draws - 1):  # multiplied, not `**`: its last bits depend on the C library
            power = power * best
        return power

    def _best(self, mean: Floats, deviation: Floats) -> Floats:
        """(contexts, actions): P(each one is the best)."""
        return best_of_rows(mean, deviation)

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
    """Learning code 3: narrower draws around a mean that is the higher, the less is known.

    Feel-good Thompson sampling: Zhang, SIAM Journal on Mathematics of Data Science 2022.
    """

    def _explore(self, posterior: Posterior) -> tuple[Floats, Floats]:
        deviation = self._width * np.sqrt(posterior.variance)
        return posterior.mean + OPTIMISM * deviation, NARROW * deviation + TINY

    def _power(self, mean: Floats, deviation: Floats) -> Floats:
        return share_among_equals(super()._power(mean, deviation), mean, deviation)
