"""Pairs of fields decide: what a segment clicks differs from stage to stage.

Best: for every visit the action that its segment and stage of buying together call for; what is linear in field x
action sees only the smaller part of it.
"""

from __future__ import annotations

from simulator.worlds.logistic import logistic_world

WORLD = logistic_world(
    "interactions",
    "Segment and stage of buying decide together, not each alone.",
    stream=6,
    rate=0.10,
    linear=0.25,
    pairwise=0.9,
)
