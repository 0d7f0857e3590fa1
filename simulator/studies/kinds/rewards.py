"""Logs that cannot show everything, or whose rewards are unusual. Listed in `registry.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from simulator.logs.columns import Flags, LeftOutRows
from simulator.logs.options import reward_range
from simulator.studies.kinds.known import (
    MEAN,
    SEGMENTS,
    SHARE,
    SHOP,
    Case,
    Draws,
    Kind,
    Random,
    bernoulli,
    case,
    columns_of,
    draw,
    fixed,
    uniform,
    world_of,
)

ROWS = 2_000


def missing_support(*, share: float, with_pmf: bool) -> Callable[[Random], Case]:
    """A rare segment never gets the gift, which would earn 0.9 there and 0.2 elsewhere."""
    mean = np.vstack([np.hstack([MEAN[:, :3], np.full((3, 1), 0.2)]), [0.1, 0.1, 0.1, 0.9]])
    pmf = np.vstack([SHOP.pmf, [0.4, 0.3, 0.3, 0.0]])
    segments = (*SEGMENTS, "rare")
    world = world_of(pmf, mean, segment=segments, share=np.append(SHARE * (1 - share), share))

    def make(random: Random) -> Case:
        draws = draw(world, ROWS, random)
        return case(columns_of(draws, pmf=draws.pmf if with_pmf else None), world)

    return make


def jackpots(chance: float, *, declared: bool) -> Callable[[Random], Case]:
    """Rewards of 100 with a small chance, beside 1 with 0.2, whatever is drawn: 100 chance + 0.2 (1 - chance)."""
    world = replace(SHOP, mean=np.full((3, 4), 100 * chance + 0.2 * (1 - chance)))

    def make(random: Random) -> Case:
        draws = draw(world, ROWS, random)
        reward = np.where(random.random(ROWS) < chance, 100.0, bernoulli(np.full(ROWS, 0.2), random))
        found = (0.0, 100.0) if declared else reward_range(reward, None)
        columns = columns_of(replace(draws, reward=reward), pmf=draws.pmf, reward_range=found, range_declared=declared)
        return case(columns, world, (uniform(world), fixed(world, "sale")))

    return make


def plus_minus(*, sign: float) -> Callable[[Random], Case]:
    """Ten actions drawn evenly: +1 with 0.99 for the first, 0.01 for the last, 0.5 else; or its mirror."""
    chance = np.full((3, 10), 0.5)
    chance[:, 0], chance[:, 9] = 0.99, 0.01
    names = tuple([f"k{one}" for one in range(10)])
    world = world_of(np.ones((3, 10)), sign * (2 * chance - 1), share=SHARE, actions=names)

    def make(random: Random) -> Case:
        draws = draw(world, ROWS, random)
        success = bernoulli(draws.drawn(chance[draws.cell]), random)
        columns = columns_of(replace(draws, reward=sign * (2 * success - 1)), reward_range=(-1.0, 1.0))
        return case(columns, world, (uniform(world), fixed(world, "k0"), fixed(world, "k9")))

    return make


def nearly_always(random: Random) -> Case:
    """The sale succeeds in 99.5 % of the visits, anything else in 90 %."""
    mean = np.tile([0.995, 0.9, 0.9, 0.9], (3, 1))
    world = replace(SHOP, mean=mean)
    draws = draw(world, ROWS, random)
    return case(columns_of(draws, pmf=draws.pmf), world, (uniform(world), fixed(world, "sale")))


Loss = Callable[[Draws, Random], Flags]
"""(n,): which decisions are left out."""


def lose_sales(draws: Draws, random: Random) -> Flags:
    """Four in ten that drew the sale."""
    return np.asarray((draws.action == 0) & (random.random(len(draws)) < 0.4))


def lose_unrewarded(draws: Draws, random: Random) -> Flags:
    """Half of those without a click."""
    return np.asarray((draws.reward == 0) & (random.random(len(draws)) < 0.5))


def lose_the_end(draws: Draws, random: Random) -> Flags:
    """Eight in ten of the last fifth."""
    late = np.arange(len(draws)) >= 0.8 * len(draws)
    return np.asarray(late & (random.random(len(draws)) < 0.8))


FALLING = world_of(
    np.tile(SHOP.pmf, (2, 1)),
    np.vstack([MEAN, MEAN / 3]),
    segment=SEGMENTS * 2,
    share=np.outer([0.8, 0.2], SHARE).ravel(),
)
"""Six cells: the shop's segments before and in the last fifth of the time, when a third as many click."""


def left_out(loss: Loss) -> Callable[[Random], Case]:
    """A log without some of its decisions, whose action, reward and time the reader knows."""

    def make(random: Random) -> Case:
        late = np.arange(ROWS) >= 0.8 * ROWS
        draws = draw(FALLING, ROWS, random, cell=3 * late + random.choice(3, ROWS, p=SHARE))
        columns, lost = columns_of(draws, pmf=draws.pmf), loss(draws, random)
        rows = LeftOutRows(columns.action[lost], columns.reward[lost], columns.time[lost])
        kept = replace(columns.take(~lost), left_out={"bad tag": int(lost.sum())}, left_out_rows=rows)
        return case(kept, FALLING)

    return make


REWARDS = (
    Kind("missing support in 2 %, pmfs", missing_support(share=0.02, with_pmf=True), "cover", "support|could not"),
    Kind("missing support in 4 %, pmfs", missing_support(share=0.04, with_pmf=True), "cover", "support|could not"),
    Kind(
        "missing support in 4 %, no pmfs",
        missing_support(share=0.04, with_pmf=False),
        "cover",
        "support|could not|never drawn",
    ),
    *[
        Kind(
            f"100 with a chance of {chance}, {'declared' if declared else 'no range'}",
            jackpots(chance, declared=declared),
            "cover",
            "--reward-range|range of rewards",
        )
        for chance in (0.0005, 0.001, 0.003)
        for declared in (False, True)
    ],
    Kind("rewards +1 and -1", plus_minus(sign=1.0), "cover"),
    Kind("rewards +1 and -1, mirror", plus_minus(sign=-1.0), "cover"),
    Kind("an action with 99.5 % successes", nearly_always, "cover"),
    Kind("left out by action", left_out(lose_sales), "alarm", "left out"),
    Kind("left out by outcome", left_out(lose_unrewarded), "alarm", "left out"),
    Kind("left out by time", left_out(lose_the_end), "alarm", "left out"),
)
