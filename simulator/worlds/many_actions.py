"""The family of worlds with many actions that features tell apart: a seed draws the effects as well as the visits.

Log-odds of a click = action + action's feature + context field + context field x action's feature (+ position), all
normal; one constant sets the mean rate. Which action has which features is the same for every seed, since an experiment
says it. Called by `scenes/shelf` and `scenes/catalogue`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import sqrt
from typing import Any

import numpy as np

from decider.experiment.definition import Action
from decider.types import ActionId, Context
from simulator.worlds.logistic import CLICKS, with_rate
from simulator.worlds.scene import define
from simulator.worlds.world import Floats, Indexes, Visits, World

POSITION, FIELD = 0.3, 0.3
"""Standard deviations, in log-odds, of what a position and what a value of the context does for all actions alike."""

FEATURE = 0.4
"""Of what all of an action's features do together, for every context alike."""


def many_actions_world(
    name: str,
    line: str,
    *,
    stream: int,
    rate: float,
    actions: int,
    features: Mapping[str, int],
    fields: Mapping[str, int],
    own: float,
    products: float,
    positions: int = 1,
) -> World:
    """One of the family. stream: tells its randomness from that of the others.

    rate: mean probability of a click, over contexts and actions. features, fields: how many values each feature of an
    action and each field of the context has; contexts are all equally likely. own, products: standard deviations, in
    log-odds, of what each action has of its own and of field's value x feature's value. positions: where the action is
    shown; a feature of the context where there are several, and no action gains more from one than another.

    >>> world = many_actions_world("few", "Few.", stream=9, rate=0.1, actions=5, features={"brand": 2},
    ...     fields={"segment": 3}, own=0.2, products=0.3, positions=2)
    >>> world.draw(1, 500).means.shape, world.experiment.actions[0].features
    ((6, 5), {'brand': 'brand-0'})
    """
    told = _feature_values(stream, actions, features)
    cases = np.array(list(product(*map(range, fields.values()), range(positions))))
    contexts = tuple([_context(fields, row, positions) for row in cases.tolist()])
    evenly = np.full(len(cases), 1 / len(cases))

    def draw(seed: int, rounds: int) -> Visits:
        truth, visitors, luck, delays = (np.random.default_rng([seed, stream, part]) for part in range(4))
        odds = truth.normal(0, own, actions) + truth.normal(0, POSITION, (positions, 1))[cases[:, -1]]
        odds = odds + _effects(truth, cases, told, list(fields.values()), list(features.values()), products)
        means = with_rate(odds, rate, weights=evenly)
        seen = visitors.integers(len(cases), size=rounds)
        happened = luck.random((rounds, 1)) < means[seen]
        return Visits(
            contexts=contexts,
            means=means,
            eligible=np.ones(means.shape, np.bool_),
            seen=seen,
            units=np.arange(rounds),
            delays=delays.exponential(CLICKS.delay, rounds),
            rewards=happened.astype(np.float64),
            names=np.where(happened, 0, -1).astype(np.int8),
        )

    experiment = define(
        name,
        actions=_actions(told, features),
        baseline="item-0",
        window=CLICKS.window,
        weights={CLICKS.reward: 1.0},
    )
    return World(name, line, experiment, draw, (CLICKS.reward,), CLICKS.traffic)


def _feature_values(stream: int, actions: int, features: Mapping[str, int]) -> Indexes:
    """(actions, features): of which value each action is."""
    random = np.random.default_rng(stream)
    return np.stack([random.integers(size, size=actions) for size in features.values()], axis=1)


def _actions(told: Indexes, features: Mapping[str, int]) -> list[Action]:
    return [
        Action(
            ActionId(f"item-{number}"),
            "item",
            {name: f"{name}-{value}" for name, value in zip(features, row, strict=True)},
        )
        for number, row in enumerate(told.tolist())
    ]


def _context(fields: Mapping[str, int], row: list[int], positions: int) -> Context:
    given: dict[str, Any] = {name: f"{name}-{value}" for name, value in zip(fields, row[:-1], strict=True)}
    return Context(**given, features={"position": f"{row[-1] + 1}"}) if positions > 1 else Context(**given)


def _effects(
    truth: np.random.Generator, cases: Indexes, told: Indexes, fields: list[int], features: list[int], products: float
) -> Floats:
    """(cases, actions): what fields and features do, each alone and together."""
    odds = np.zeros((len(cases), len(told)))
    for column, many in enumerate(features):
        odds += truth.normal(0, FEATURE / sqrt(len(features)), many)[told[:, column]]
    for field, size in enumerate(fields):
        odds += truth.normal(0, FIELD, (size, 1))[cases[:, field]]
        for column, many in enumerate(features):
            odds += truth.normal(0, products, (size, many))[cases[:, field]][:, told[:, column]]
    return odds
