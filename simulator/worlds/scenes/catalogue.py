"""200 products told apart by three features, of which 5 % are clicked; every seed draws a new truth.

Best: for every visitor the product with the highest log-odds, which is mostly a matter of its features and the three
fields of the context: a product has little of its own. Who learns each product alone has 20 visits for each in 4,000.
"""

from __future__ import annotations

from simulator.worlds.many_actions import many_actions_world

WORLD = many_actions_world(
    "catalogue",
    "200 products told apart by features; 5 % click, and what fits whom lies in the features.",
    stream=9,
    rate=0.05,
    actions=200,
    features={"category": 8, "style": 4, "price": 5},
    fields={"segment": 4, "device": 3, "channel": 4},
    own=0.2,
    products=0.5,
)
