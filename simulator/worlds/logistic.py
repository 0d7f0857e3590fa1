"""The family of four worlds whose effects are drawn at random: a seed draws the effects as well as the visits.

Log-odds of a reward = action + field's value + field's value x action (+ segment x intent stage x action), all normal;
one constant sets the mean rate. So these say how a policy does over many truths, not in one. Called by `scenes/clicks`,
`rare`, `purchases` and `interactions`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from itertools import product
from statistics import NormalDist

import numpy as np

from decider.experiment.definition import Action
from decider.types import NO_FEATURES, ActionId, Context
from simulator.worlds.scene import define
from simulator.worlds.world import Floats, Visits, World

FIELDS = {"segment": 4, "device": 3, "channel": 5, "location": 6, "intent_stage": 4}
"""How many values each field of the context has."""

VALUES = np.array(list(product(*map(range, FIELDS.values()))))
"""(contexts, fields): every combination."""

CONTEXTS = tuple(
    [
        Context._make([*[f"{field}-{value}" for field, value in zip(FIELDS, row, strict=True)], NO_FEATURES])
        for row in VALUES.tolist()
    ]
)

KINDS = ("content", "offer", "service")
ACTIONS = tuple(Action(ActionId(f"action-{i}"), KINDS[i % len(KINDS)]) for i in range(8))

LEAST, MOST = 20.0, 200.0
"""Smallest and largest purchase."""

SPREAD = 0.7
"""Standard deviation of a purchase's logarithm, before it is clipped to [LEAST, MOST]."""


def logistic_world(
    name: str,
    line: str,
    *,
    stream: int,
    rate: float,
    linear: float = 0.45,
    pairwise: float = 0.0,
    amounts: bool = False,
) -> World:
    """One of the family. stream: tells its randomness from that of the others.

    rate: mean probability of a reward, over contexts and actions. linear, pairwise: standard deviations, in log-odds,
    of field's value x action and of segment x intent stage x action. amounts: a reward is a purchase, not a click.

    >>> world = logistic_world("few", "Few clicks.", stream=9, rate=0.02)
    >>> world.draw(1, 500).rewards.shape
    (500, 8)
    """
    kind = PURCHASES if amounts else CLICKS

    def draw(seed: int, rounds: int) -> Visits:
        truth, visitors, luck, delays, values = (np.random.default_rng([seed, stream, part]) for part in range(5))
        weights = _field_weights(truth)
        means = with_rate(_log_odds(truth, linear=linear, pairwise=pairwise), rate, weights=_joint(weights))
        medians = truth.uniform(40, 90, len(ACTIONS))
        seen = visitors.choice(len(CONTEXTS), size=rounds, p=_joint(weights))
        happened = luck.random((rounds, 1)) < means[seen]
        return Visits(
            contexts=CONTEXTS,
            means=means * kind.mean(medians),
            eligible=np.ones(means.shape, np.bool_),
            seen=seen,
            units=np.arange(rounds),
            delays=delays.exponential(kind.delay, rounds),
            rewards=happened * kind.worth(values, medians, rounds),
            names=np.where(happened, 0, -1).astype(np.int8),
        )

    experiment = define(
        name,
        actions=ACTIONS,
        baseline=ACTIONS[0].id,
        window=kind.window,
        weights={kind.reward: 1.0},
        reward_range=(0.0, kind.most),
    )
    return World(name, line, experiment, draw, (kind.reward,), kind.traffic)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a reward is. window, delay: seconds, of all and on average. mean: of each action, given its median.

    worth: what each action's reward is in each round, one luck for all of them.
    """

    reward: str
    most: float
    window: float
    delay: float
    traffic: float
    mean: Callable[[Floats], Floats]
    worth: Callable[[np.random.Generator, Floats, int], Floats]


def _purchases(rng: np.random.Generator, medians: Floats, rounds: int) -> Floats:
    return np.asarray(np.clip(medians * np.exp(rng.normal(0, SPREAD, (rounds, 1))), LEAST, MOST))


CLICKS = _Kind("click", 1.0, 600, 170, 2.0, np.ones_like, lambda _, medians, rounds: np.ones((rounds, len(medians))))
PURCHASES = _Kind(
    "purchase", MOST, 86_400, 24_000, 0.01, lambda medians: np.array([mean_purchase(m) for m in medians]), _purchases
)


def _field_weights(rng: np.random.Generator) -> list[Floats]:
    """How likely each value of each field is; fields are independent of each other."""
    return [rng.dirichlet(np.full(size, 4.0)) for size in FIELDS.values()]


def _joint(weights: list[Floats]) -> Floats:
    """How likely each context is."""
    return reduce(np.multiply, [one[VALUES[:, field]] for field, one in enumerate(weights)])


def _log_odds(rng: np.random.Generator, *, linear: float, pairwise: float) -> Floats:
    """(contexts, actions), up to a constant."""
    actions = len(ACTIONS)
    odds = np.tile(rng.normal(0, 0.3, actions), (len(VALUES), 1))
    for field, size in enumerate(FIELDS.values()):
        odds += rng.normal(0, 0.2, (size, 1))[VALUES[:, field]]
        odds += rng.normal(0, linear, (size, actions))[VALUES[:, field]]
    if pairwise:
        shape = (FIELDS["segment"], FIELDS["intent_stage"], actions)
        odds += rng.normal(0, pairwise, shape)[VALUES[:, 0], VALUES[:, -1]]
    return odds


def with_rate(odds: Floats, rate: float, *, weights: Floats) -> Floats:
    """Probabilities whose mean over contexts and actions is `rate`: the constant is found by bisection.

    odds: (contexts, actions), log-odds up to that constant. weights: (contexts,), how likely each context is.
    """
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
