"""Purchases: 3 % buy, for amounts of 20 to 200 that depend on the action.

Best: for every visit the action with the highest probability of a purchase times its mean amount; most of what is seen
is the luck of single amounts.
"""

from __future__ import annotations

from simulator.worlds.logistic import logistic_world

WORLD = logistic_world(
    "purchases",
    "3 % buy, for 20 to 200; the amount depends on the action.",
    stream=5,
    rate=0.03,
    amounts=True,
)
