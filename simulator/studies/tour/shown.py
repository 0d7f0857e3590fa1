"""What visitors have seen: calls that were given up, pages that were rendered, the same answer again."""

from __future__ import annotations

import os
import signal

from decider.types import Reason
from decider.v1 import decider_service_pb2 as pb
from simulator.studies.tour.stage import WINDOW, Scene, Stage, reason, refusal

CART = f"""
id = "cart"
baseline_action = "none"
actions = [{{ id = "none", kind = "none" }}, {{ id = "ten-percent", kind = "offer" }}]
reward = {{ window = "{WINDOW:g}s" }}
"""

SLOW = "slow-page-3"
"""An id that draws the offer."""


def given_up(stage: Stage) -> None:
    """A server that stands still, a caller with a deadline."""
    experiment = stage.apply(CART)
    asked = pb.DecideRequest(experiment=experiment, unit_id="visitor-1", decision_id=SLOW)
    os.kill(stage.server.process.pid, signal.SIGSTOP)
    answer = refusal(lambda: stage.stub.Decide(asked, timeout=0.2))
    os.kill(stage.server.process.pid, signal.SIGCONT)
    stage.expect("the call, with a deadline of 200 ms", answer.partition(":")[0], "DEADLINE_EXCEEDED")
    stage.expect("Activate with the fallback", stage.client.activate(SLOW, "none"), "remembered", "overridden")
    stage.say(f"   the decision is in the log: {stage.logged(SLOW) is not None}")
    again = stage.client.decide(experiment, "visitor-1", decision_id=SLOW)
    stage.expect("the same id again is answered with it", again.decision_id, SLOW)
    stage.expect("drawn", again.action.id, "ten-percent")
    stage.expect("it counts as overridden", stage.sealed(experiment, 1)[SLOW].overridden, True)


def activation(stage: Stage) -> None:
    """Three pages: not rendered, rendered, rendered with something else."""
    experiment = stage.apply('activation = "required"\n' + CART.replace('"cart"', '"deferred"'))
    unseen, seen, other = (stage.client.decide(experiment, f"visitor-{n}") for n in range(3))
    instead = "none" if other.action.id == "ten-percent" else "ten-percent"
    stage.expect("Activate", stage.client.activate(seen.decision_id), "activated")
    stage.expect("again", stage.client.activate(seen.decision_id), "duplicate")
    stage.expect(f"Activate with {instead!r}", stage.client.activate(other.decision_id, instead), "overridden")
    found = stage.sealed(experiment, 3)
    stage.expect("the page that was not rendered counts", found[unseen.decision_id].activated, False)
    stage.expect("the one that was", found[seen.decision_id].activated, True)
    kept = found[other.decision_id].decision
    same = (kept.action, kept.propensity) == (other.action.id, other.propensity)
    stage.expect("the overridden one keeps its drawn action and propensity", same, True)
    stage.expect("Activate after the window", stage.client.activate(unseen.decision_id), "late")
    stage.expect(
        "sealed and not activated", stage.metric("decider_sealed_not_activated_total", experiment=experiment), 1
    )


def sticky(stage: Stage) -> None:
    """A page that is loaded again."""
    experiment = stage.apply('sticky = "1h"\n' + CART.replace('"cart"', '"sticky-offer"'))
    first, second = (stage.client.decide(experiment, "visitor-1") for _ in range(2))
    same = (first.decision_id, first.action.id, first.propensity)
    again = (second.decision_id, second.action.id, second.propensity)
    stage.expect("the same id, action and propensity", again == same, True)
    stage.expect("reason", reason(second), "STICKY")
    stage.expect("decisions in the log", stage.metric("decider_decisions_total", experiment=experiment), 1)


def holdout(stage: Stage) -> None:
    """A control group, where its action is not eligible."""
    experiment = stage.apply("holdout = 0.5\n" + CART.replace('"cart"', '"clean-holdout"'))
    for number in range(20):
        stage.client.decide(experiment, f"visitor-{number}", excluded_actions=["none"])
    counts = {
        reason: stage.metric("decider_decisions_total", experiment=experiment, reason=reason.value)
        for reason in (Reason.HOLDOUT, Reason.HOLDOUT_UNAVAILABLE)
    }
    stage.expect("called HOLDOUT", counts[Reason.HOLDOUT], 0)
    stage.expect("some are called HOLDOUT_UNAVAILABLE", counts[Reason.HOLDOUT_UNAVAILABLE] > 0, True)


SCENES = (
    Scene(1, "given up is not shown", given_up),
    Scene(2, "only what was activated counts", activation),
    Scene(5, "sticky", sticky),
    Scene(9, "a clean holdout", holdout),
)
