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


def creative(draws: Draws, random: Random) -> Mapping[str, Field]:
    """Each action has ten pictures, of which one is shown by chance."""
    names = tuple([f"picture {one}" for one in range(40)])
    return {"picture": category(10 * draws.action + random.integers(0, 10, len(draws)), names)}


def discount(draws: Draws, _: Random) -> Mapping[str, Field]:
    """In per cent, of the sale alone; for the others the cell is empty."""
    return {"discount": Number(np.where(draws.action == 0, 30.0, np.nan))}


def slogan(draws: Draws, random: Random) -> Mapping[str, Field]:
    """Of the shown action in half of the decisions; the others show the shop's own."""
    said = np.where(random.random(len(draws)) < 0.5, draws.action, 4)
    return {"slogan": category(said, ("Save", "Look", "Free", "For you", "Your shop"))}


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


def seconds_to_click(draws: Draws, random: Random) -> Mapping[str, Field]:
    """Until the click; empty where none came."""
    return {"seconds": Number(np.where(draws.reward > 0, random.exponential(20, len(draws)), np.nan))}


def order(draws: Draws, random: Random) -> Mapping[str, Field]:
    """The payment of those who click and buy, 6 of 10; empty for the others."""
    bought = (draws.reward > 0) & (random.random(len(draws)) < 0.6)
    return {"payment": category(np.where(bought, random.integers(0, 3, len(draws)), -1), ("card", "bill", "cash"))}


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
        ("action: 40 pictures", creative, r"\bpicture\b"),
        ("action: discount of one", discount, r"\bdiscount\b"),
        ("action: slogan in every other row", slogan, r"\bslogan\b"),
        ("action: copy of the propensity", propensity_copy, r"\bp_copy\b"),
        ("outcome: conversion and revenue", revenue, r"\b(conversion|revenue)\b"),
        ("outcome: dwell time", dwell, r"\bdwell_time\b"),
        ("outcome: seconds to the click", seconds_to_click, r"\bseconds\b"),
        ("outcome: payment", order, r"\bpayment\b"),
        ("outcome: last page", thanks, r"\blast_page\b"),
    )
    for with_pmf in (True, False)
)
