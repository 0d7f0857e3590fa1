"""What a rival is given of a world before the run: names, the range of rewards, a sample of visits.

The sample is a gift: rivals know from the start which values there are and how large numbers get. Our own policies
are told neither. Called by `rivals.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decider.policy.protocol import Choice
from decider.types import ActionId
from simulator.studies.bakeoff.vectors import Vectors
from simulator.worlds.world import World

SAMPLE = 20_000
SAMPLE_SEED = 987_654_321
"""No run has it."""


@dataclass(frozen=True, slots=True)
class WorldSample:
    """What was learned from a world's visits. amounts: the rewards that may come, in their order, each once."""

    vectors: Vectors
    amounts: tuple[float, ...]

    @property
    def binary(self) -> bool:
        """Whether a reward is either 0 or always the same.

        >>> WorldSample(Vectors({}, {}), (0.0, 5.0)).binary, WorldSample(Vectors({}, {}), (1.0, 2.0)).binary
        (True, False)
        """
        return len({0.0, *self.amounts}) <= 2


_SAMPLES: dict[str, WorldSample] = {}


def sample(world: World) -> WorldSample:
    """Of 20,000 visits that are not those of any run; kept for the world that was asked for last.

    >>> from simulator.worlds.registry import find
    >>> sample(find("storefront")).amounts  # a click or none
    (0.0, 1.0)
    """
    if world.name not in _SAMPLES:
        visits = world.draw(SAMPLE_SEED, SAMPLE)
        _SAMPLES.clear()
        _SAMPLES[world.name] = WorldSample(Vectors.seen_in(visits.contexts), tuple(np.unique(visits.rewards).tolist()))
    return _SAMPLES[world.name]


@dataclass(frozen=True, slots=True)
class RivalInputs:
    """choices: the actions, in the experiment's order. highest: the best reward that may come. seed: for what the
    rival draws.
    """

    choices: tuple[Choice, ...]
    reward_range: tuple[float, float]
    highest: float
    vectors: Vectors
    seed: int

    @classmethod
    def of(cls, world: World, known: WorldSample, *, seed: int) -> RivalInputs:
        """Of that world."""
        reward = world.experiment.reward
        choices = tuple(world.version.choices.values())
        return cls(choices, (reward.minimum, reward.maximum), max(0.0, *known.amounts), known.vectors, seed)

    @property
    def numbers(self) -> dict[ActionId, int]:
        """The place of each action, counted from 0."""
        return {choice.id: place for place, choice in enumerate(self.choices)}

    def scaled(self, reward: float) -> float:
        """Of the declared range, in [0, 1]."""
        low, high = self.reward_range
        return (reward - low) / (high - low)
