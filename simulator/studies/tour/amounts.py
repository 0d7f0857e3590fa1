"""What rewards are worth: above the range, changed, taken back, final, of a unit, late and learned anew."""

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


def final(stage: Stage) -> None:
    """The last word about a decision whose window would last for a day."""
    experiment = stage.apply(SHOP.replace('"shop"', '"paid"').replace(f"{WINDOW:g}s", "1d"))
    decided = stage.client.decide(experiment, "visitor-1").decision_id
    stage.expect("paid: the last word", stage.client.reward(decided, "purchase", 80, final=True), "joined")
    stage.expect("sealed at once, with", stage.sealed(experiment, 1)[decided].rewards, (80.0,))
    stage.expect("what comes behind it", stage.client.reward(decided, "purchase", 5), "late")


def by_unit(stage: Stage) -> None:
    """A purchase at a till, by somebody whom the page knew as a visitor."""
    experiment = stage.apply(SHOP.replace('"shop"', '"tills"') + 'attribution = "last"\n')
    first, last = (stage.client.decide(experiment, "visitor-42").decision_id for _ in range(2))
    early = stage.client.reward_unit("customer-7", "purchase", 10, reward_id="till-0")
    stage.expect("a customer whom no page has seen", early, "no_decision")
    stage.expect("visitor and customer are one", stage.client.link_units("visitor-42", "customer-7"), "linked")
    stage.expect("a purchase", stage.client.reward_unit("customer-7", "purchase", 80, reward_id="till-1"), "joined")
    stage.expect("sent again, by the page", stage.client.reward_unit("visitor-42", "purchase", 80, reward_id="till-1"),
                 "duplicate")  # fmt: skip
    found = stage.sealed(experiment, 2)
    stage.expect("of the first and the last decision", (found[first].rewards, found[last].rewards), ((), (80.0,)))


def relearn(stage: Stage) -> None:
    """Purchases that came after the window."""
    experiment = stage.apply(SHOP.replace('"shop"', '"slow-payers"'))
    decided = [stage.client.decide(experiment, f"visitor-{number}").decision_id for number in range(20)]
    stage.sealed(experiment, len(decided))
    outcomes = {stage.client.reward(id_, "purchase", 100) for id_ in decided}
    stage.expect("purchases after the window", outcomes, {"late"})
    done = stage.run("decider", "relearn", experiment, "--db", str(stage.server.db), "--wait")
    stage.say("   " + done.replace("\n", "\n   "))
    answer = stage.client.decide(experiment, "visitor-1")
    stage.expect("version that serves then", answer.experiment_version, 2)
    stage.expect("it has learned", answer.model > 0, True)
    again = stage.run("decider", "relearn", experiment, "--db", str(stage.server.db))
    stage.say("   again: " + again)


SCENES = (
    Scene(4, "rewards: clipped, corrected, retracted, late", rewards),
    Scene(4, "the last word", final),
    Scene(4, "rewards by unit", by_unit),
    Scene(4, "learning anew", relearn),
)
