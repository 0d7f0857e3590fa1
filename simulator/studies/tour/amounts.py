"""What rewards are worth: above the range, changed, taken back."""

from __future__ import annotations

from simulator.studies.tour.stage import WINDOW, Scene, Stage

SHOP = f"""
id = "shop"
actions = [{{ id = "none", kind = "none" }}, {{ id = "free-shipping", kind = "offer" }}]

[reward]
window = "{WINDOW:g}s"
weights = {{ purchase = 1.0, click = 0.0 }}
range = {{ minimum = 0.0, maximum = 200.0 }}
"""


def rewards(stage: Stage) -> None:
    """One visit each."""
    experiment = stage.apply(SHOP)
    large, changed, returned = (stage.client.decide(experiment, f"visitor-{n}").decision_id for n in range(3))
    stage.expect("an order of 259.90, range up to 200", stage.client.reward(large, "purchase", 259.9), "clipped")
    stage.expect("an order of 80", stage.client.reward(changed, "purchase", 80, reward_id="order-1"), "joined")
    stage.expect("sent again", stage.client.reward(changed, "purchase", 80, reward_id="order-1"), "duplicate")
    stage.expect("now 60", stage.client.reward(changed, value=60, reward_id="order-1", correct=True), "corrected")
    stage.expect("another order", stage.client.reward(returned, "purchase", 50, reward_id="order-2"), "joined")
    stage.expect("sent back", stage.client.reward(returned, reward_id="order-2", retract=True), "retracted")
    found = stage.sealed(experiment, 3)
    learned = [sum(found[id_].rewards) for id_ in (large, changed, returned)]
    stage.expect("rewards in force (the first is cut off at 200)", learned, [259.9, 60.0, 0.0], [259.9, 60.0, 0])
    stage.expect("a purchase after the window", stage.client.reward(large, "purchase", 5), "late")


SCENES = (Scene(4, "rewards: clipped, corrected, retracted, late", rewards),)
