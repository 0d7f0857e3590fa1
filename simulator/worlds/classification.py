"""A classification data set as a world: which class is this? Called by `registry.py`, for names like `data:digits`.

The way of "A Contextual Bandit Bake-off" (Bietti, Agarwal and Langford, JMLR 2021, section 4.1): one example is one
visit, its features are the context, the classes are the actions, and the reward is 1 for the right class, 0 otherwise.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from google.protobuf.duration_pb2 import Duration

from decider.experiment.definition import Experiment
from decider.experiment.schema import from_message
from decider.types import Context
from decider.v1 import experiment_pb2 as pb
from simulator.datasets.classification import Examples, load, names
from simulator.worlds.world import Flags, Indexes, Visits, World

PREFIX = "data:"
REWARD = "right"
DELAY, WINDOW = 80.0, 600
"""Seconds, as in the storefront: mean from decision to reward, and for how long one is waited for."""


def world_names() -> list[str]:
    """Of the worlds.

    >>> world_names()[2]
    'data:digits'
    """
    return [PREFIX + name for name in names()]


@lru_cache(maxsize=4)
def world(name: str) -> World:
    """The world of a name like `data:digits`. Raises DatasetError where the data are not to be had.

    A seed shuffles the examples. With more rounds than examples they come again, shuffled anew: a policy may then have
    seen an example before, and its reward. The means know the class; where equal features have different classes, no
    policy can earn what the best action earns. Numbers beyond 1,000 reach a policy through a logarithm (`features.py`).
    """
    examples = load(name.removeprefix(PREFIX))
    shape = f"{len(examples.features)} examples, {len(examples.features[0])} features, {len(examples.classes)} classes"
    return World(
        name=name,
        line=f"{examples.about[0].upper()}{examples.about[1:]}; {shape}.",
        experiment=_experiment(name, examples),
        draw=_Draw(examples),
        reward_names=(REWARD,),
    )


def _experiment(name: str, examples: Examples) -> Experiment:
    return from_message(
        pb.Experiment(
            id=name.replace(":", "-"),
            description=examples.about,
            actions=[pb.Action(id=one) for one in examples.classes],
            reward=pb.RewardDefinition(window=Duration(seconds=WINDOW), weights={REWARD: 1.0}),
        )
    )


class _Draw:
    """Seed and rounds -> visits; the first rounds are the same whatever comes after them."""

    def __init__(self, examples: Examples) -> None:
        count = len(examples.labels)
        self._contexts = tuple([Context(features=features) for features in examples.features])
        self._means = np.zeros((count, len(examples.classes)))
        self._means[np.arange(count), examples.labels] = 1.0

    def __call__(self, seed: int, rounds: int) -> Visits:
        seen = _shuffled(len(self._contexts), seed, rounds)
        rewards = self._means[seen]
        eligible: Flags = np.ones(self._means.shape, np.bool_)
        return Visits(
            contexts=self._contexts,
            means=self._means,
            eligible=eligible,
            seen=seen,
            units=np.arange(rounds),
            delays=np.random.default_rng([seed, 1]).exponential(DELAY, rounds),
            rewards=rewards,
            names=np.where(rewards > 0, 0, -1).astype(np.int8),
        )


def _shuffled(count: int, seed: int, rounds: int) -> Indexes:
    rng = np.random.default_rng([seed, 0])
    passes = [rng.permutation(count) for _ in range(0, rounds, count)]
    return np.concatenate([np.zeros(0, np.int64), *passes])[:rounds]
