"""coba's Vowpal Wabbit learners as policies, in the bake-off's environment: `vowpalwabbit` 9 beneath.

Their own parameters and interactions; contexts as coba writes them, names to values, and so are actions with features.
Each has a pmf of its own, from which the sampler draws. Called by name from `rivals.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from decider.policy.protocol import Choice, PlainPolicy
from decider.types import Context
from simulator.studies.bakeoff.context_cache import ContextCache
from simulator.studies.bakeoff.rival_inputs import RivalInputs
from simulator.studies.bakeoff.vectors import categories


def make(given: RivalInputs, name: str) -> PlainPolicy:
    """The learner of that name with its default parameters."""
    from coba import learners  # type: ignore[import-not-found] # only in the bake-off's environment

    return CobaPolicy(given, getattr(learners, name)(seed=given.seed))


class CobaPolicy:
    """Hands every decision on: actions by their ids and features, rewards in [0, 1], numbers scaled."""

    def __init__(self, given: RivalInputs, learner: Any) -> None:
        self._scaled = given.scaled
        self._contexts = ContextCache(lambda context: dict(categories(context)) | dict(given.vectors.scaled(context)))
        self._learner = learner

    def pmf(self, context: Context, actions: Sequence[Choice]) -> Sequence[float]:
        """The learner's own."""
        pmf: Sequence[float] = self._learner._pmf(self._contexts(context), _told(actions))[0]
        return pmf

    def learn(
        self, context: Context, actions: Sequence[Choice], *, drawn: int, propensity: float, reward: float
    ) -> None:
        """With the probability that the action was drawn with."""
        told = _told(actions)
        self._learner.learn(self._contexts(context), told[drawn], self._scaled(reward), propensity, told)


def _told(actions: Sequence[Choice]) -> list[Any]:
    return [{"id": action.id, **action.features} if action.features else action.id for action in actions]
