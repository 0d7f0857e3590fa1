"""Kinds whose fault is one of reading: tables as people write them, read by `open_log`. Listed in `registry.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from decider.errors import DeciderError
from simulator.logs.open import ReadOptions, open_log
from simulator.studies.kinds.known import (
    SHOP,
    Case,
    Draws,
    Kind,
    Question,
    Random,
    World,
    bernoulli,
    draw,
    fixed,
    segment_field,
    shop_questions,
    uniform,
    world_of,
)

Table = Mapping[str, Sequence[Any]]
"""Cells by column."""

READ = ReadOptions()

COIN = world_of(np.full((1, 2), 0.5), np.full((1, 2), 0.3), segment=("all",), actions=("a", "b"))
"""Two actions that earn 0.3 each: what is hard about its logs is who comes."""


def read(table: Table, world: World, questions: tuple[Question, ...], *, options: ReadOptions = READ) -> Case:
    """The table through a CSV file and the reader."""
    header = ",".join(table)
    lines = [",".join(map(str, row)) for row in zip(*table.values(), strict=True)]
    logged = world.value(world.pmf)
    with TemporaryDirectory() as folder:
        path = Path(folder, "log.csv")
        path.write_text("\n".join([header, *lines, ""]), encoding="utf-8")
        try:
            return Case(open_log(str(path), options), questions, logged)
        except DeciderError as error:
            return Case(None, questions, logged, str(error).removeprefix(folder))


def table_of(draws: Draws, **more: Sequence[Any]) -> dict[str, Sequence[Any]]:
    """Action, reward, propensity and segment, and other columns."""
    field = segment_field(draws)
    return {
        "action": [draws.world.actions[one] for one in draws.action],
        "reward": draws.reward.astype(int).tolist(),
        "propensity": draws.drawn(draws.pmf).tolist(),
        "segment": [field.values[one] for one in field.codes],
        **more,
    }


def units_named(column: str, *, units: int, id_of: Callable[[int], str]) -> Callable[[Random], Case]:
    """Each unit comes 50 times and has a click rate of its own, Beta(0.6, 1.4): 0.3 on average, for both actions."""

    def make(random: Random) -> Case:
        unit = np.repeat(np.arange(units), 50)
        draws = draw(COIN, len(unit), random)
        rate = random.beta(0.6, 1.4, units)[unit]
        table = table_of(replace(draws, reward=bernoulli(rate, random)))
        table = {"action": table["action"], "reward": table["reward"], "propensity": table["propensity"]}
        return read({**table, column: [id_of(one) for one in unit.tolist()]}, COIN, (uniform(COIN), fixed(COIN, "a")))

    return make


def empty_ids(random: Random) -> Case:
    """One segment of the shop, half of its decisions, is logged without ids: each of them is a decision."""
    draws = draw(SHOP, 2_000, random)
    ids = [f"e{row}" if cell else "" for row, cell in enumerate(draws.cell)]
    return read(table_of(draws, event_id=ids), SHOP, shop_questions())


def constant_id(random: Random) -> Case:
    """All decisions have one id: only the first would be left."""
    draws = draw(SHOP, 2_000, random)
    return read(table_of(draws, event_id=["e"] * len(draws)), SHOP, (uniform(SHOP),))


def copies(random: Random) -> Case:
    """Half of the shop's decisions stand there twice, to the second and the cent, and there is no id."""
    draws = draw(SHOP, 1_000, random)
    table = table_of(
        draws, time=list(range(1_700_000_000, 1_700_001_000)), basket=random.random(1_000).round(6).tolist()
    )
    twice = np.sort(np.concatenate([np.arange(1_000), np.flatnonzero(random.random(1_000) < 0.5)]))
    return read({name: [cells[row] for row in twice] for name, cells in table.items()}, SHOP, shop_questions())


def empty_clicks(options: ReadOptions) -> Callable[[Random], Case]:
    """A click is 1, none is empty (a LEFT JOIN): with the meaning 0 the truth is the shop's."""

    def make(random: Random) -> Case:
        draws = draw(SHOP, 2_000, random)
        clicks = ["1" if one else "" for one in draws.reward]
        return read({**table_of(draws), "reward": clicks}, SHOP, shop_questions(), options=options)

    return make


def empty_amounts(options: ReadOptions) -> Callable[[Random], Case]:
    """Who buys spends 20 to 80, evenly; who does not has an empty cell, which means 0."""
    world = replace(SHOP, mean=SHOP.mean * 50)

    def make(random: Random) -> Case:
        draws = draw(SHOP, 2_000, random)
        amounts = [f"{20 + 60 * random.random():.4f}" if one else "" for one in draws.reward]
        return read({**table_of(draws), "reward": amounts}, world, shop_questions(world), options=options)

    return make


def many_actions(count: int, *, decisions: int, options: ReadOptions = READ) -> Callable[[Random], Case]:
    """Actions drawn evenly, with mean rewards from 0.115 to 0.315, 0.215 on average; some are never drawn."""
    names = tuple([f"i{one}" for one in range(count)])
    mean = np.linspace(0.115, 0.315, count)[np.newaxis]
    world = world_of(np.ones((1, count)), mean, segment=("all",), actions=names)

    def make(random: Random) -> Case:
        table = table_of(draw(world, decisions, random))
        table = {name: table[name] for name in ("action", "reward", "propensity")}
        return read(table, world, (uniform(world),), options=options)

    return make


EMPTY = r"empty|left out|left_out|skipp|no reward|without a reward"
UNSEEN = r"could be drawn, and only"
DROP, ZERO = ReadOptions(empty_reward="drop"), ReadOptions(empty_reward=0.0)
OF_200, OF_1000 = ReadOptions(actions=200), ReadOptions(actions=1_000)

FILES = (
    Kind("ids: userId, 20 units x 50", units_named("userId", units=20, id_of="u{}".format), "cover"),
    Kind("ids: userId, 40 units x 50", units_named("userId", units=40, id_of="u{}".format), "cover"),
    Kind("ids: userId of digits, 20 units x 50", units_named("userId", units=20, id_of="{}".format), "cover"),
    Kind("ids: Visitor ID, 20 units x 50", units_named("Visitor ID", units=20, id_of="v-{:04}".format), "cover"),
    Kind("ids: customerID, 20 units x 50", units_named("customerID", units=20, id_of="{:08x}".format), "cover"),
    Kind(
        "ids: by shape alone, 20 units x 50", units_named("who", units=20, id_of="{:032x}".format), "alarm", r"\bwho\b"
    ),
    Kind("decision ids, half of them empty", empty_ids, "cover"),
    Kind("decision ids, all the same", constant_id, "alarm", r"\bid\b|left out|duplicate"),
    Kind("copies of rows, no id", copies, "alarm", r"cop(y|ies)|twice|duplicate"),
    Kind("200 actions, 400 rows, not declared", many_actions(200, decisions=400), "alarm", UNSEEN),
    Kind("1,000 actions, not declared", many_actions(1_000, decisions=2_000), "alarm", UNSEEN),
    Kind("200 actions, 400 rows, declared", many_actions(200, decisions=400, options=OF_200), "cover"),
    Kind("1,000 actions, declared", many_actions(1_000, decisions=2_000, options=OF_1000), "cover"),
    Kind("empty clicks", empty_clicks(READ), "alarm", EMPTY),
    Kind("empty clicks, dropped", empty_clicks(DROP), "alarm", EMPTY),
    Kind("empty clicks, meaning 0", empty_clicks(ZERO), "cover"),
    Kind("empty amounts", empty_amounts(READ), "alarm", EMPTY),
    Kind("empty amounts, dropped", empty_amounts(DROP), "alarm", EMPTY),
    Kind("empty amounts, meaning 0", empty_amounts(ZERO), "cover"),
)
