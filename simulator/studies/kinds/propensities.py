"""Logs whose propensities are not those of the draws, or whose actions were changed afterwards. In `registry.py`.

The draws are those of a world, whose cells give the truth; what is written down beside them is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from simulator.logs.columns import Floats, Number
from simulator.studies.kinds.known import (
    MEAN,
    SEGMENTS,
    SHARE,
    SHOP,
    Case,
    Draws,
    Kind,
    Random,
    World,
    bernoulli,
    case,
    columns_of,
    draw,
    fixed,
    shop_questions,
    uniform,
    world_of,
)

CAUSE = r"propensities|propensity calibration|logged pmfs|pmf's value|balance"
"""Any finding that says that draws and propensities do not fit."""

ROWS = 2_000
Belief = Callable[[World], Floats]
"""The pmfs that are written down, (cells, actions)."""

STRONG = world_of(np.array([[0.8, 0.1, 0.05, 0.05], [0.1, 0.8, 0.05, 0.05], [0.1, 0.1, 0.4, 0.4]]), MEAN, share=SHARE)
"""The draws depend on the segment much more than in the shop."""


def even(world: World) -> Floats:
    """1/n of n actions, whatever the context."""
    return np.full(world.pmf.shape, 1 / len(world.actions))


def overall(world: World) -> Floats:
    """Each action's overall share, whatever the context."""
    return np.tile(world.marginal, (len(world.share), 1))


def halved(world: World) -> Floats:
    """Half of each: the action was drawn after a coin was tossed twice."""
    return world.pmf / 2


def swapped(world: World) -> Floats:
    """The first two segments in each other's place."""
    return world.pmf[[1, 0, 2]]


def one_digit(world: World) -> Floats:
    """Rounded to one digit, but not to 0."""
    return np.maximum(0.1, np.round(world.pmf, 1))


def off_by(factor: float) -> Belief:
    """The propensity of one action is wrong by a factor; a pmf sums to 1 again."""

    def belief(world: World) -> Floats:
        pmf = world.pmf.copy()
        pmf[:, -1] *= factor
        return pmf

    return belief


def belief_log(world: World, belief: Belief, *, with_pmf: bool) -> Callable[[Random], Case]:
    """A log of the world with these pmfs written beside it, or the drawn action's part of them alone."""

    def make(random: Random) -> Case:
        draws = draw(world, ROWS, random)
        pmf = belief(world)[draws.cell]
        if with_pmf:
            pmf = pmf / pmf.sum(axis=1, keepdims=True)
        return case(columns_of(draws, pmf=pmf if with_pmf else None, propensity=draws.drawn(pmf)), world)

    return make


def by_number(belief: Belief, *, with_pmf: bool) -> Callable[[Random], Case]:
    """The same, where the draws depend on a number: the segment's place in the number is its cell."""

    def make(random: Random) -> Case:
        draws = draw(STRONG, ROWS, random)
        basket = Number(30 * draws.cell + 30 * random.random(ROWS))
        pmf = belief(STRONG)[draws.cell]
        columns = columns_of(
            draws, pmf=pmf if with_pmf else None, propensity=draws.drawn(pmf), fields={"basket": basket}
        )
        return case(columns, STRONG, (uniform(STRONG), fixed(STRONG, "gift")))

    return make


def greedy_as_softmax(random: Random) -> Case:
    """The most probable action is always shown, and the pmf that it was taken from is logged."""
    pmf = np.exp(4 * MEAN) / np.exp(4 * MEAN).sum(axis=1, keepdims=True)
    draws = draw(replace(SHOP, pmf=np.eye(4)[pmf.argmax(axis=1)]), ROWS, random)
    columns = columns_of(draws, pmf=pmf[draws.cell], propensity=draws.drawn(pmf[draws.cell]))
    return Case(columns, shop_questions(), draws.world.value(draws.world.pmf))


Override = Callable[[Draws, Random], np.ndarray[tuple[int], np.dtype[np.int32]]]
"""The shown actions, (n,)."""


def to_sale(draws: Draws, random: Random) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """Every fifth decision is shown the sale, whatever was drawn."""
    return np.where(random.random(len(draws)) < 0.2, 0, draws.action).astype(np.int32)


def out_of_stock(draws: Draws, random: Random) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """Half of the gifts are replaced by free shipping."""
    gone = (draws.action == 3) & (random.random(len(draws)) < 0.5)
    return np.where(gone, 2, draws.action).astype(np.int32)


def for_regulars(draws: Draws, random: Random) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """Three in ten regular visitors are shown the outfit."""
    theirs = (draws.cell == SEGMENTS.index("regular")) & (random.random(len(draws)) < 0.3)
    return np.where(theirs, 1, draws.action).astype(np.int32)


def override(shown: Override, *, with_pmf: bool) -> Callable[[Random], Case]:
    """The shown action stands in the log with the probability with which it would have been drawn; rewards are its."""

    def make(random: Random) -> Case:
        draws = draw(SHOP, ROWS, random)
        action = shown(draws, random)
        reward = bernoulli(SHOP.mean[draws.cell, action], random)
        changed = replace(draws, action=action, reward=reward)
        return case(columns_of(changed, pmf=changed.pmf if with_pmf else None), SHOP)

    return make


def _both(name: str, make: Callable[..., Callable[[Random], Case]], *given: object) -> tuple[Kind, Kind]:
    return (
        Kind(f"{name}, pmfs", make(*given, with_pmf=True), "alarm", CAUSE),
        Kind(f"{name}, no pmfs", make(*given, with_pmf=False), "alarm", CAUSE),
    )


PROPENSITIES = (
    *_both("context-free: 1/n, by segment", belief_log, STRONG, even),
    *_both("context-free: shares, by segment", belief_log, STRONG, overall),
    *_both("context-free: 1/n, by number", by_number, even),
    *_both("context-free: shares, by number", by_number, overall),
    *_both("context-free: shares, by segment, mild", belief_log, SHOP, overall),
    *_both("one propensity x 0.5", belief_log, SHOP, off_by(0.5)),
    *_both("one propensity x 0.8", belief_log, SHOP, off_by(0.8)),
    *_both("one propensity x 1.25", belief_log, SHOP, off_by(1.25)),
    *_both("one propensity x 2", belief_log, SHOP, off_by(2.0)),
    Kind("all propensities halved, no pmfs", belief_log(SHOP, halved, with_pmf=False), "alarm", CAUSE),
    *_both("two segments swapped", belief_log, STRONG, swapped),
    *_both("rounded to one digit", belief_log, SHOP, one_digit),
    Kind("greedy draws, softmax logged, pmfs", greedy_as_softmax, "alarm", CAUSE),
    *_both("override: a fifth to the sale", override, to_sale),
    *_both("override: half of the gifts", override, out_of_stock),
    *_both("override: in one segment", override, for_regulars),
)
