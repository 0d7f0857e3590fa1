"""Columns that are made of the drawn action or of the outcome, and look like context. Listed in `registry.py`.

All are logs of the shop with true propensities, so its cells give the truth; what is wrong is one column more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from simulator.logs.columns import Field, Number
from simulator.studies.kinds.known import SHOP, Case, Draws, Kind, Random, case, category, columns_of, draw

PRICES = np.array([9.9, 19.9, 4.9, 29.9])
Extra = Callable[[Draws, Random], Mapping[str, Field]]


def price(draws: Draws, _: Random) -> Mapping[str, Field]:
    """Of the shown action."""
    return {"price": Number(PRICES[draws.action])}


def discount_price(draws: Draws, random: Random) -> Mapping[str, Field]:
    """Of the shown action, with a discount by chance."""
    return {"price": Number(PRICES[draws.action] * (1 - 0.3 * random.random(len(draws))))}


def banner(draws: Draws, _: Random) -> Mapping[str, Field]:
    """The text of the shown action."""
    return {"banner": category(draws.action, ("50 % off", "Your new look", "Free shipping", "A gift for you"))}


def colour(draws: Draws, _: Random) -> Mapping[str, Field]:
    """Of the banner; two actions share one."""
    return {"colour": category(np.array([0, 1, 1, 2])[draws.action], ("red", "blue", "green"))}


def propensity_copy(draws: Draws, _: Random) -> Mapping[str, Field]:
    """The drawn action's propensity under another name."""
    return {"p_copy": Number(draws.drawn(draws.pmf))}


def revenue(draws: Draws, random: Random) -> Mapping[str, Field]:
    """A click leads to a purchase in 6 of 10 cases."""
    bought = draws.reward * (random.random(len(draws)) < 0.6)
    spent = np.round(bought * random.normal(23, 2, len(draws)))
    return {"conversion": Number(bought), "revenue": Number(spent)}


def dwell(draws: Draws, random: Random) -> Mapping[str, Field]:
    """Seconds on the page: three times as many after a click."""
    return {"dwell_time": Number(random.exponential(10 + 20 * draws.reward))}


def thanks(draws: Draws, random: Random) -> Mapping[str, Field]:
    """The page seen last: after a click it is the product in 8 of 10 cases, without one in 1 of 10."""
    product = random.random(len(draws)) < 0.1 + 0.7 * draws.reward
    return {"last_page": category(product.astype(np.int32), ("home", "product"))}


def leak(extra: Extra, *, with_pmf: bool) -> Callable[[Random], Case]:
    """The shop's log with the columns."""

    def make(random: Random) -> Case:
        draws = draw(SHOP, 2_000, random)
        columns = columns_of(draws, pmf=draws.pmf if with_pmf else None, more=extra(draws, random))
        return case(columns, SHOP)

    return make


LEAKS = tuple(
    Kind(f"leak by {what}{'' if with_pmf else ', no pmfs'}", leak(extra, with_pmf=with_pmf), "alarm", cause)
    for what, extra, cause in (
        ("action: price", price, r"\bprice\b"),
        ("action: price less a discount", discount_price, r"\bprice\b"),
        ("action: banner text", banner, r"\bbanner\b"),
        ("action: colour of two banners", colour, r"\bcolour\b"),
        ("action: copy of the propensity", propensity_copy, r"\bp_copy\b"),
        ("outcome: conversion and revenue", revenue, r"\b(conversion|revenue)\b"),
        ("outcome: dwell time", dwell, r"\bdwell_time\b"),
        ("outcome: last page", thanks, r"\blast_page\b"),
    )
    for with_pmf in (True, False)
)
