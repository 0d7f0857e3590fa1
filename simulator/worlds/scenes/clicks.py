"""Clicks at a rate of 10 %: eight actions, five fields, and effects that every seed draws anew.

Best: for every visit the action with the highest log-odds, a sum of what the action and each of the five fields say:
what is linear in field x action can find it.
"""

from __future__ import annotations

from simulator.worlds.logistic import logistic_world

WORLD = logistic_world(
    "clicks",
    "10 % click; five fields have a say; every seed draws a new truth.",
    stream=2,
    rate=0.10,
)
