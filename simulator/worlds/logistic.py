"""Worlds with known means: five categorical fields decide, in log-odds, how often each of eight actions is rewarded.

Log-odds = action + field's value + field's value x action (+ segment x intent stage x action), all normal; one constant
sets the mean rate. A seed draws the effects and all visits beforehand, with what every action would earn there, so
that all policies meet the same visitors and the same luck. Called by `simulator/study.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from decider.policy.encode import action_line
from decider.types import NO_FEATURES, ActionId, Context

Floats = NDArray[np.float64]
Indexes = NDArray[np.int64]

FIELDS = {"segment": 4, "device": 3, "channel": 5, "location": 6, "intent_stage": 4}
"""How many values each field of the context has."""

KINDS = ("content", "offer", "service")
ACTIONS = tuple(action_line(ActionId(f"action-{i}"), KINDS[i % len(KINDS)], NO_FEATURES) for i in range(8))

LEAST, MOST = 20.0, 200.0
"""Smallest and largest purchase."""

SPREAD = 0.7
"""Standard deviation of a purchase's logarithm, before it is clipped to [LEAST, MOST]."""


@dataclass(frozen=True, slots=True)
class World:
    """What tells one world from another.

    rate: mean probability of a reward, over visits and actions. linear, pairwise: standard deviations, in log-odds, of
    field's value x action and of segment x intent stage x action. amounts: a reward is a purchase, not 1.
    delay, batch: rounds until a reward is known; how many are learned at a time. stream: worlds with the same one have
    the same visitors.
    """

    name: str
    stream: int
    rate: float
    linear: float = 0.45
    pairwise: float = 0.0
    amounts: bool = False
    delay: int = 0
    batch: int = 1

    @property
    def reward_range(self) -> tuple[float, float]:
        """As an experiment would declare it."""
        return (0.0, MOST) if self.amounts else (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Visits:
    """The rounds of one world and seed. contexts: the distinct ones. seen: each round's index into them.

    means: (contexts, actions), true mean rewards. rewards: (rounds, actions), what each action would earn there.
    """

    contexts: tuple[Context, ...]
    seen: Indexes
    means: Floats
    rewards: Floats


def draw_visits(world: World, *, seed: int, rounds: int) -> Visits:
    """The same for the same arguments.

    >>> visits = draw_visits(World("clicks", stream=1, rate=0.1), seed=1, rounds=500)
    >>> visits.rewards.shape, round(float(visits.means[visits.seen].mean()), 6)
    ((500, 8), 0.1)
    """
    rng = np.random.default_rng([seed, world.stream])
    distinct, seen = np.unique(_field_values(rng, rounds), axis=0, return_inverse=True)
    seen = seen.reshape(rounds)
    odds = _log_odds(world, rng, distinct)
    means = _with_rate(odds, world.rate, weights=np.bincount(seen))
    rewards = (rng.random((rounds, 1)) < means[seen]).astype(np.float64)
    if world.amounts:
        medians = rng.uniform(40, 90, len(ACTIONS))
        rewards *= np.clip(medians * np.exp(rng.normal(0, SPREAD, (rounds, 1))), LEAST, MOST)
        means *= [mean_purchase(median) for median in medians]
    return Visits(tuple(map(_context, distinct.tolist())), seen, means, rewards)


def _field_values(rng: np.random.Generator, rounds: int) -> Indexes:
    """(rounds, fields): each field's value, independent of the others, some more frequent than others."""
    columns = [rng.choice(n, size=rounds, p=rng.dirichlet(np.full(n, 4.0))) for n in FIELDS.values()]
    return np.stack(columns, axis=1)


def _log_odds(world: World, rng: np.random.Generator, distinct: Indexes) -> Floats:
    """(contexts, actions), up to a constant."""
    actions = len(ACTIONS)
    odds = np.tile(rng.normal(0, 0.3, actions), (len(distinct), 1))
    for field, size in enumerate(FIELDS.values()):
        odds += rng.normal(0, 0.2, (size, 1))[distinct[:, field]]
        odds += rng.normal(0, world.linear, (size, actions))[distinct[:, field]]
    if world.pairwise:
        shape = (FIELDS["segment"], FIELDS["intent_stage"], actions)
        odds += rng.normal(0, world.pairwise, shape)[distinct[:, 0], distinct[:, -1]]
    return odds


def _with_rate(odds: Floats, rate: float, *, weights: Indexes) -> Floats:
    """Probabilities whose mean over visits is `rate`: the constant is found by bisection."""
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        mean = np.average(_logistic(odds + middle).mean(axis=1), weights=weights)
        low, high = (middle, high) if mean < rate else (low, middle)
    return _logistic(odds + low)


def _logistic(odds: Floats) -> Floats:
    return 1 / (1 + np.exp(-odds))


def mean_purchase(median: float) -> float:
    """Mean of a log-normal purchase that is clipped to [LEAST, MOST]; `median` is that before clipping."""
    log = NormalDist(float(np.log(median)), SPREAD)
    tilted = NormalDist(log.mean + log.variance, SPREAD)
    low, high = float(np.log(LEAST)), float(np.log(MOST))
    between = float(np.exp(log.mean + log.variance / 2)) * (tilted.cdf(high) - tilted.cdf(low))
    return LEAST * log.cdf(low) + between + MOST * (1 - log.cdf(high))


def _context(values: list[int]) -> Context:
    return Context._make([*[f"{field}-{value}" for field, value in zip(FIELDS, values, strict=True)], NO_FEATURES])
