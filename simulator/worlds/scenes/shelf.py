"""A shelf of three places for 80 items, of which 0.4 % are clicked: the shape of the Open Bandit Dataset.

Three features tell the items apart, four fields the visitors; every seed draws a new truth. Each place is a decision of
its own, with the place in its context: some are seen more, but none makes another item the best (in that dataset, the
learned shares of two places have a correlation of 0.91 to 0.99). Best: for every visitor the item with the highest
log-odds. In 4,000 visits there are 16 clicks of a uniform choice, for 80 items.
"""

from __future__ import annotations

from simulator.worlds.many_actions import many_actions_world

WORLD = many_actions_world(
    "shelf",
    "80 items on three places, 0.4 % click: the shape of the Open Bandit Dataset.",
    stream=11,
    rate=0.004,
    actions=80,
    features={"category": 10, "brand": 5, "price": 3},
    fields={"segment": 3, "device": 4, "channel": 5, "location": 3},
    own=0.3,
    products=0.25,
    positions=3,
)
