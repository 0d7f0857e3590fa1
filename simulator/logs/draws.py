"""Draws from a policy's pmf, and what exploration cost each of them, as columns. Called by `groups.py`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decider.log.exploration import Shape, shape_of
from decider.log.totals import POLICY_DRAWS
from decider.types import Reason
from simulator.logs.columns import Category, Flags, Floats, Longs


@dataclass(frozen=True, slots=True)
class Draws:
    """(n,) each. cost: what the policy's most probable action would have earned more, by weighting."""

    bucket: Longs
    cost: Floats


def is_draw(reason: Category) -> Flags:
    """(n,): whether a policy's pmf was drawn from."""
    return np.array([*[text in POLICY_DRAWS for text in reason.values], False], np.bool_)[reason.codes]


def exploration_costs(reason: Category, propensity: Floats, pmf: Category, reward: Floats) -> Floats:
    """(n,) `exploration_cost` of draws. pmf: millionths between commas."""
    exploits = np.array([*[text == Reason.EXPLOIT for text in reason.values], False], np.bool_)[reason.codes]
    # Of most draws nothing but the propensity matters; what a pmf looks like is only read where it does.
    count = np.round(1.0 / propensity)
    is_even = np.abs(propensity * count - 1.0) <= 2e-6 * count
    shapes: dict[int, Shape] = {}
    most, flat = np.ones(len(reward)), np.zeros(len(reward), np.bool_)
    for at in np.flatnonzero(np.where(exploits, propensity <= 0.5, is_even)).tolist():
        code = int(pmf.codes[at])
        shape = shapes[code] = shapes.get(code) or shape_of([int(slots) for slots in pmf.values[code].split(",")])
        most[at], flat[at] = shape
    weight = np.where(exploits, 1.0 / (propensity * most), flat.astype(np.float64))
    costs: Floats = reward * (weight - 1.0)
    return costs
