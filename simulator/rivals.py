"""The policies to beat: disjoint linear bandits, as most libraries offer them. They draw with certainty.

So their logs have propensities of 1 and 0, from which no other policy can be measured; that is why the server does not
offer them. They are here to tell how much reward that costs. Called by `simulator/study.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from decider.policy.protocol import Choice
from decider.types import CONTEXT_FIELDS, Context
from simulator.worlds.logistic import Floats, Indexes


class Disjoint(ABC):
    """A ridge regression (penalty 1) of the reward on the one-hot context for every action; a subclass adds a bonus.

    values: how many values the context's fields have in all. alpha: width of the bonus. Rewards are brought to [0, 1].
    """

    def __init__(
        self, *, alpha: float, actions: int, values: int, reward_range: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        self._alpha = alpha
        self._minimum, self._maximum = reward_range
        self._inverse: Floats = np.tile(np.eye(values + 1), (actions, 1, 1))
        self._weights: Floats = np.zeros((actions, values + 1))
        self._places: dict[tuple[str, str], int] = {}
        self._known: dict[tuple[str, ...], Indexes] = {}

    def scores(self, context: Context) -> tuple[Floats, Floats]:
        """Of every action: the estimate and its standard deviation at unit noise."""
        places = self._ones(context)
        variance = self._inverse[:, places[:, None], places[None, :]].sum(axis=(1, 2))
        return self._weights[:, places].sum(axis=1), np.sqrt(np.maximum(variance, 0.0))

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """1 for the best score, 0 for the others. `actions` must always be the same."""
        estimate, deviation = self.scores(context)
        best = int(np.argmax(estimate + self._bonus(deviation)))
        return [float(index == best) for index in range(len(actions))]

    @abstractmethod
    def _bonus(self, deviation: Floats) -> Floats:
        """What is added to the estimates."""

    def learn(
        self,
        context: Context,
        actions: Sequence[Choice],  # noqa: ARG002 - the protocol's
        *,
        drawn: int,
        propensity: float,  # noqa: ARG002 - the protocol's
        reward: float,
    ) -> None:
        """One step of recursive least squares: exactly the ridge regression of everything seen."""
        places = self._ones(context)
        inverse, weights = self._inverse[drawn], self._weights[drawn]
        gain = inverse[:, places].sum(axis=1)
        gain_norm = 1 + gain[places].sum()
        scaled = (reward - self._minimum) / (self._maximum - self._minimum)
        weights += gain * ((scaled - weights[places].sum()) / gain_norm)
        inverse -= np.outer(gain, gain / gain_norm)

    def save(self) -> bytes:
        """Everything it has learned."""
        return self._weights.tobytes() + self._inverse.tobytes()

    def _ones(self, context: Context) -> Indexes:
        """Where the one-hot context is 1; the first place is the constant."""
        fields = context[:5]
        places = self._known.get(fields)
        if places is None:
            pairs = zip(CONTEXT_FIELDS, fields, strict=True)
            found = [self._places.setdefault(pair, len(self._places) + 1) for pair in pairs]
            places = self._known[fields] = np.array([0, *found])
        return places


class LinUcb(Disjoint):
    """The estimate plus alpha deviations. Li, Chu, Langford and Schapire, WWW 2010, algorithm 1."""

    def _bonus(self, deviation: Floats) -> Floats:
        return self._alpha * deviation


class LinTs(Disjoint):
    """A draw around the estimate with alpha deviations. Agrawal and Goyal, ICML 2013, algorithm 1, disjoint.

    Actions share no weights, so that drawing the weights and drawing the scores come to the same.
    """

    def __init__(
        self, *, alpha: float, actions: int, values: int, seed: int, reward_range: tuple[float, float] = (0.0, 1.0)
    ) -> None:
        super().__init__(alpha=alpha, actions=actions, values=values, reward_range=reward_range)
        self._rng = np.random.default_rng(seed)

    def _bonus(self, deviation: Floats) -> Floats:
        return self._alpha * deviation * self._rng.standard_normal(len(deviation))
