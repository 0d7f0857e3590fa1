"""Right logs: each must be answered, with intervals that hold, and without a false alarm. Listed in `registry.py`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from simulator.logs.columns import Floats, LeftOutRows, Number
from simulator.logs.options import reward_range
from simulator.studies.kinds.known import (
    MEAN,
    PMF,
    SEGMENTS,
    SHARE,
    SHOP,
    Case,
    Draws,
    Kind,
    Random,
    World,
    bernoulli,
    by_segment,
    case,
    category,
    columns_of,
    draw,
    fixed,
    pick,
    shop_questions,
    uniform,
    world_of,
)

ROWS = 2_000
LOG_MEAN, LOG_SPREAD = 3.0, 0.7
"""Of a purchase: the mean is exp(3 + 0.7^2 / 2), about 26."""


def of_world(world: World, *, with_pmf: bool, decisions: int = ROWS) -> Callable[[Random], Case]:
    """Logs of a world as it is: the truth is the sum over its cells."""

    def make(random: Random) -> Case:
        draws = draw(world, decisions, random)
        return case(columns_of(draws, pmf=draws.pmf if with_pmf else None), world)

    return make


def greedy(epsilon: float) -> World:
    """The log draws each segment's favourite, and any action with epsilon / 4."""
    pmf = np.full((3, 4), epsilon / 4)
    pmf[[0, 1, 2], [0, 1, 0]] += 1 - epsilon
    return world_of(pmf, MEAN, share=SHARE)


def softmax() -> World:
    """Probabilities in proportion to exp(4 x mean reward): the log knows the rewards well."""
    return world_of(np.exp(4 * MEAN), MEAN, share=SHARE)


def position(random: Random) -> Case:
    """Nine cells: a segment at a position of the page; rewards fall by position, the draws depend on both."""
    scale = np.tile([1.0, 0.6, 0.3], 3)
    pmf = np.repeat(PMF, 3, axis=0) ** np.tile([1.0, 0.5, 0.25], 3)[:, np.newaxis]
    segment = tuple(np.repeat(SEGMENTS, 3).tolist())
    mean = np.repeat(MEAN, 3, axis=0) * scale[:, np.newaxis]
    world = world_of(pmf, mean, segment=segment, share=np.repeat(SHARE, 3) / 3)
    draws = draw(world, ROWS, random)
    where = Number((draws.cell % 3 + 1).astype(np.float64))
    return case(columns_of(draws, pmf=draws.pmf, more={"position": where}), world)


def drift(random: Random) -> Case:
    """Twelve cells: a segment in one of four phases, each with as many decisions, its own policy and own rewards."""
    phase = np.repeat(np.arange(4), 3)
    pmf = np.array([np.roll(PMF[cell % 3], phase[cell]) for cell in range(12)])
    mean = np.tile(MEAN, (4, 1)) * (0.6 + 0.25 * phase)[:, np.newaxis]
    world = world_of(pmf, mean, segment=SEGMENTS * 4, share=np.tile(SHARE, 4) / 4)
    cell = (np.arange(ROWS) * 4 // ROWS) * 3 + random.choice(3, ROWS, p=SHARE)
    draws = draw(world, ROWS, random, cell=cell)
    return case(columns_of(draws, pmf=draws.pmf), world)


def learner(choose: Callable[[Floats], Floats]) -> Callable[[Random], Case]:
    """A policy learns from its own log after every 20 decisions; the logged one's truth is the mean over its states.

    choose: (3, 4) mean rewards so far -> its pmfs.
    """

    def make(random: Random) -> Case:
        cell = random.choice(3, ROWS, p=SHARE)
        action, reward, pmfs = np.empty(ROWS, np.int32), np.empty(ROWS), np.empty((ROWS, 4))
        earned, times, value = np.full((3, 4), 0.5), np.ones((3, 4)), 0.0
        for start in range(0, ROWS, 20):
            rows = slice(start, start + 20)
            now = choose(earned / times)
            value += SHOP.value(now) * 20 / ROWS
            pmfs[rows] = now[cell[rows]]
            action[rows] = pick(pmfs[rows], random)
            reward[rows] = bernoulli(MEAN[cell[rows], action[rows]], random)
            np.add.at(earned, (cell[rows], action[rows]), reward[rows])
            np.add.at(times, (cell[rows], action[rows]), 1)
        draws = Draws(SHOP, cell, action, reward)
        columns = columns_of(draws, pmf=pmfs, propensity=draws.drawn(pmfs), model=np.arange(ROWS) // 20)
        return Case(columns, shop_questions(), value)

    return make


def learn_greedily(means: Floats) -> Floats:
    """0.2-greedy on the means so far."""
    pmf = np.full(means.shape, 0.05)
    pmf[np.arange(len(means)), means.argmax(axis=1)] += 0.8
    return pmf


def learn_softly(means: Floats) -> Floats:
    """In proportion to exp(4 x mean so far), with at least 0.02."""
    weight = np.exp(4 * means)
    return np.asarray(0.92 * weight / weight.sum(axis=1, keepdims=True) + 0.02)


def units(random: Random) -> Case:
    """40 units with 50 decisions each; half of them earn half as much, the others 1.5 times: 1 on average."""
    unit = np.repeat(np.arange(40), 50)
    draws = draw(SHOP, len(unit), random)
    luck = random.choice([0.5, 1.5], 40)[unit]
    draws = replace(draws, reward=bernoulli(luck * draws.drawn(SHOP.mean[draws.cell]), random))
    return case(columns_of(draws, pmf=draws.pmf, unit=unit), SHOP)


def purchases(random: Random) -> Case:
    """Who buys (with the shop's chances) spends a lognormal amount, whose mean is exp(mu + sigma^2 / 2)."""
    amount = math.exp(LOG_MEAN + LOG_SPREAD**2 / 2)
    world = replace(SHOP, mean=SHOP.mean * amount)
    draws = draw(SHOP, ROWS, random)
    reward = draws.reward * random.lognormal(LOG_MEAN, LOG_SPREAD, ROWS)
    columns = columns_of(replace(draws, reward=reward), pmf=draws.pmf)
    return case(replace(columns, reward_range=reward_range(reward, None), range_declared=False), world)


def negative(random: Random) -> Case:
    """Rewards are costs: -1 with the shop's chances, else 0."""
    draws = draw(SHOP, ROWS, random)
    world = replace(SHOP, mean=-SHOP.mean)
    return case(columns_of(replace(draws, reward=-draws.reward), pmf=draws.pmf, reward_range=(-1.0, 0.0)), world)


def eligible_sets(with_pmf: bool) -> Callable[[Random], Case]:
    """Twelve cells: a segment with one of four sets of eligible actions; a policy is renormalised over the set."""
    sets = np.array([[1, 1, 1, 1], [1, 1, 0, 1], [0, 1, 1, 1], [1, 0, 0, 1]], np.bool_)
    pmf, mean = np.tile(PMF, (4, 1)), np.tile(MEAN, (4, 1))
    share = np.outer([0.4, 0.2, 0.2, 0.2], SHARE).ravel()
    world = world_of(pmf, mean, segment=SEGMENTS * 4, share=share, eligible=np.repeat(sets, 3, axis=0))
    return of_world(world, with_pmf=with_pmf)


def many_fields(random: Random) -> Case:
    """The shop's log with 20 categories and 5 numbers that mean nothing."""
    draws = draw(SHOP, ROWS, random)
    values = ("a", "b", "c", "d", "e")
    noise = {f"category {one}": category(random.integers(0, 5, ROWS), values) for one in range(20)}
    numbers = {f"number {one}": Number(random.normal(size=ROWS)) for one in range(5)}
    return case(columns_of(draws, pmf=draws.pmf, more={**noise, **numbers}), SHOP)


def ages(with_pmf: bool) -> Callable[[Random], Case]:
    """40 cells: visitors from 20 to 59 years; draws and rewards are smooth in the age, a number of the log."""
    age = np.arange(20, 60)
    young = (60 - age)[:, np.newaxis] / 40
    pmf = 0.1 + np.hstack([young, 1 - young, 0.3 + 0 * young, 0.5 * young])
    mean = np.hstack([0.4 * young, 0.4 * (1 - young), 0.1 + 0 * young, 0.2 + 0 * young])
    world = world_of(pmf, mean, segment=tuple(map(str, age.tolist())))

    def make(random: Random) -> Case:
        draws = draw(world, ROWS, random)
        fields = {"age": Number(age[draws.cell].astype(np.float64)), "income": Number(random.lognormal(size=ROWS))}
        columns = columns_of(draws, pmf=draws.pmf if with_pmf else None, fields=fields)
        return case(columns, world, (uniform(world), fixed(world, "outfit")))

    return make


def rare_clicks(decisions: int) -> Callable[[Random], Case]:
    """The shop with a fiftieth of its rewards: 0.4 % click."""
    return of_world(replace(SHOP, mean=SHOP.mean / 50), with_pmf=True, decisions=decisions)


def loyalty(others: Floats, loyals: Floats) -> Callable[[Random], Case]:
    """Six cells: a segment, loyal or not. Loyal visitors click more often, whatever they see. Both: mean rewards."""
    mean = np.vstack([others, loyals])
    world = world_of(np.tile(PMF, (2, 1)), mean, segment=SEGMENTS * 2, share=np.tile(SHARE, 2) / 2)

    def make(random: Random) -> Case:
        draws = draw(world, ROWS, random)
        loyal = {"loyal": category(draws.cell // 3, ("no", "yes"))}
        return case(columns_of(draws, pmf=draws.pmf, more=loyal), world)

    return make


def favourite(with_pmf: bool) -> Callable[[Random], Case]:
    """The greedy log with a column that says the favourite: known before the draw, so it is context."""
    world = greedy(0.2)

    def make(random: Random) -> Case:
        draws = draw(world, ROWS, random)
        best = {"recommended": category(world.pmf.argmax(axis=1)[draws.cell], world.actions)}
        return case(columns_of(draws, pmf=draws.pmf if with_pmf else None, more=best), world)

    return make


def lost_by_chance(random: Random) -> Case:
    """Every tenth decision of the shop is left out, whatever it was."""
    draws = draw(SHOP, ROWS, random)
    columns = columns_of(draws, pmf=draws.pmf)
    lost = random.random(ROWS) < 0.1
    rows = LeftOutRows(columns.action[lost], columns.reward[lost], columns.time[lost])
    kept = columns.take(~lost)
    return case(replace(kept, left_out={"bad tag": int(lost.sum())}, left_out_rows=rows), SHOP)


def daily_visitors(random: Random) -> Case:
    """The shop's visitors come 1 to 5 times, each keeps the segment, and every visit is a draw of its own."""
    unit = np.repeat(np.arange(ROWS), random.integers(1, 6, ROWS))[:ROWS]
    cell = random.choice(3, ROWS, p=SHARE)[unit]
    draws = draw(SHOP, ROWS, random, cell=cell)
    return case(columns_of(draws, unit=unit), SHOP)


def wide(random: Random) -> Case:
    """Twenty actions drawn evenly; the k-th earns 0.05 + k / 100 in every segment."""
    names = tuple([f"item {one}" for one in range(20)])
    mean = np.tile(0.05 + np.arange(20) / 100, (3, 1))
    world = world_of(np.ones((3, 20)), mean, share=SHARE, actions=names)
    draws = draw(world, ROWS, random)
    return case(columns_of(draws, pmf=draws.pmf), world, (uniform(world), fixed(world, "item 3"), by_segment(world)))


NEARLY_TOLD = Kind(
    "a field that nearly tells the reward",
    loyalty(MEAN / 4, 0.8 + MEAN / 4),
    "cover",
    r"\bloyal\b",
)
"""It cannot be told from a field that was made of the reward: to name it and to leave it out is right, too."""

RIGHT = tuple(
    Kind(name, make, "silence")
    for name, make in {
        "logging by segment, pmfs": of_world(SHOP, with_pmf=True),
        "logging by segment, no pmfs": of_world(SHOP, with_pmf=False),
        "greedy logger, epsilon 0.2, pmfs": of_world(greedy(0.2), with_pmf=True),
        "greedy logger, epsilon 0.2, no pmfs": of_world(greedy(0.2), with_pmf=False),
        "softmax logger, pmfs": of_world(softmax(), with_pmf=True),
        "softmax logger, no pmfs": of_world(softmax(), with_pmf=False),
        "position as context": position,
        "drift of policy and rewards": drift,
        "a learner's own log, greedy": learner(learn_greedily),
        "a learner's own log, softmax": learner(learn_softly),
        "40 units x 50": units,
        "visitors come back": daily_visitors,
        "lognormal purchases": purchases,
        "negative rewards": negative,
        "eligible sets, pmfs": eligible_sets(with_pmf=True),
        "eligible sets, no pmfs": eligible_sets(with_pmf=False),
        "25 more fields": many_fields,
        "numbers as context, pmfs": ages(with_pmf=True),
        "numbers as context, no pmfs": ages(with_pmf=False),
        "a field that foretells the reward": loyalty(MEAN / 2, MEAN + 0.3),
        "the favourite as a field, pmfs": favourite(with_pmf=True),
        "the favourite as a field, no pmfs": favourite(with_pmf=False),
        "20 actions": wide,
        "left out by chance": lost_by_chance,
        "clicks 0.4 %": rare_clicks(ROWS),
        "clicks 0.4 %, 10,000 rows": rare_clicks(10_000),
        "300 rows, pmfs": of_world(SHOP, with_pmf=True, decisions=300),
        "300 rows, no pmfs": of_world(SHOP, with_pmf=False, decisions=300),
        "10,000 rows, pmfs": of_world(SHOP, with_pmf=True, decisions=10_000),
        "10,000 rows, no pmfs": of_world(SHOP, with_pmf=False, decisions=10_000),
    }.items()
)
