"""Clicks at a rate of 2 %: as `clicks`, with a fifth of the rewards to learn from.

Best: for every visit the action with the highest log-odds, a sum of what the action and each of the five fields say:
the difficulty is that nearly nothing is ever clicked.
"""

from __future__ import annotations

from simulator.worlds.logistic import logistic_world

WORLD = logistic_world(
    "rare",
    "2 % click: as clicks, with a fifth of the rewards to learn from.",
    stream=3,
    rate=0.02,
)
