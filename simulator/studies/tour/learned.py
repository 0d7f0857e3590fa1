"""What is learned, and from what: the caller's own choice, and what the unit did before."""

from __future__ import annotations

from simulator.studies.tour.stage import WINDOW, Scene, Stage, reason

APPRENTICE = f"""
id = "apprentice"
baseline_action = "bestsellers"
learning = "apprentice"
actions = [{{ id = "bestsellers" }}, {{ id = "new-arrivals" }}, {{ id = "sale" }}]
reward = {{ window = "{WINDOW:g}s" }}
"""

HISTORY = f"""
id = "home-offer"
actions = [{{ id = "new-in" }}, {{ id = "reduced" }}]
reward = {{ window = "{WINDOW:g}s", weights = {{ purchase = 1.0 }} }}

[history]
period = "90d"
rewards = ["purchase"]
decisions = true
last_action = true
last_channel = true
"""


def modes(stage: Stage) -> None:
    """The caller's choice is served, learned and compared; then the policy decides."""
    experiment = stage.apply(APPRENTICE)
    own = stage.client.decide(experiment, "visitor-1", default_action="sale")
    stage.expect("an apprentice serves the caller's action", own.action.id, "sale")
    stage.expect("reason and propensity", (reason(own), own.propensity), ("APPRENTICE", 1.0))
    without = stage.client.decide(experiment, "visitor-2")
    stage.expect("without one the baseline", without.action.id, "bestsellers")
    compared = stage.metric("decider_apprentice_decisions_total", experiment=experiment)
    stage.expect("compared with the policy", compared, 2)
    stage.client.reward(own.decision_id)
    stage.until("learned", lambda: stage.metric("decider_learned_total", experiment=experiment) >= 2)
    stage.apply(APPRENTICE.replace('"apprentice"\nactions', '"log-only"\nactions'))
    logged = stage.client.decide(experiment, "visitor-3", default_action="sale")
    stage.expect("log-only serves it too", (logged.action.id, reason(logged)), ("sale", "BASELINE"))
    for mode in ("frozen", "online"):
        stage.apply(APPRENTICE.replace('"apprentice"\nactions', f'"{mode}"\nactions'))
        drawn = stage.client.decide(experiment, "visitor-4", default_action="sale")
        stage.expect(f"{mode}: the policy draws", reason(drawn) in ("EXPLOIT", "EXPLORE"), True)
        stage.expect("by a model that has learned", drawn.model > 0, True)


def history(stage: Stage) -> None:
    """A customer who comes back."""
    experiment = stage.apply(HISTORY)
    first = stage.client.decide(experiment, "visitor-1", channel="mail")
    known = stage.logged_features(first.decision_id)
    stage.expect("a new visitor: decisions before", known["history.decisions"], 0.0)
    stage.client.reward(first.decision_id, "purchase", 1.0)
    second = stage.client.decide(experiment, "visitor-1", channel="app")
    known = stage.logged_features(second.decision_id)
    stage.expect("who comes back: the last action", known["history.last_action"], first.action.id)
    stage.expect("and what became of it", known["history.last_result"], "rewarded")
    stage.expect("channel of the last response", known["history.last_channel"], "mail")
    stage.expect("purchases, log(1 + number)", round(float(str(known["history.purchase.frequency"])), 2), 0.69)


SCENES = (
    Scene(3, "learning modes", modes),
    Scene(12, "features of the unit's own history", history),
)
