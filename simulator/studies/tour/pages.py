"""Pages: several slots, and a client that never breaks one."""

from __future__ import annotations

import numpy as np

from decider.client import Client, Fallback
from decider.v1 import decider_service_pb2 as pb
from simulator.studies.tour.stage import WINDOW, Scene, Stage

PAGE = f"""
id = "front-page"
actions = [{{ id = "a" }}, {{ id = "b" }}, {{ id = "c" }}, {{ id = "d" }}]
reward = {{ window = "{WINDOW:g}s" }}
"""


def slate(stage: Stage) -> None:
    """Three slots, one reward for one of them and one for the page."""
    experiment = stage.apply(PAGE)
    asked = pb.DecideSlateRequest(experiment=experiment, unit_id="visitor-1", slate_id="page-1", slots=[pb.Slot()] * 3)
    answer = stage.stub.DecideSlate(asked)
    shown = [one.action.id for one in answer.decisions]
    stage.expect(f"three slots, no action twice ({', '.join(shown)})", len(set(shown)), 3)
    stage.expect("propensities given the slots before", [round(one.propensity, 2) for one in answer.decisions],
                 [0.25, 0.33, 0.5])  # fmt: skip
    again = stage.stub.DecideSlate(asked)
    stage.expect("the same id again: the same page", [one.action.id for one in again.decisions] == shown, True)
    stage.expect("a reward for a slot", stage.client.reward("page-1/1", "click"), "joined")
    stage.expect("a reward for the page", stage.client.reward("page-1", "purchase"), "joined")
    found = stage.sealed(experiment, 3)
    stage.expect("rewards of the slots", [len(found[f"page-1/{slot}"].rewards) for slot in range(3)], [1, 2, 1])


def client(stage: Stage) -> None:
    """Wrong calls, and no server."""
    experiment = stage.apply(PAGE)
    decided = stage.client.decide(experiment, "visitor-1", price=np.float64(19.9), size=None)
    known = stage.logged_features(decided.decision_id)
    stage.expect("features of the log; size was None, which is unknown", known, {"price": 19.9})
    with Client(stage.server.target, timeout=30.0) as page:
        answer = page.decide("no-such-experiment", "visitor-1", fallback=Fallback("a", payload={"title": "Hello"}))
        stage.expect("unknown experiment: the fallback", answer.action.payload["title"], "Hello")
        stage.expect("reason", _reason(answer), "FALLBACK")
        stage.expect("a reward for it", page.reward(answer.decision_id, "click"), "nothing")
        decision = page.decide(experiment, "visitor-1", fallback="a")
        stage.server.kill()
        stage.expect("server killed: the fallback", page.decide(experiment, "visitor-2", fallback="b").action.id, "b")
        stage.expect("a reward meanwhile", page.reward(decision.decision_id, "click"), "queued")
        stage.server.start()
        stage.expect("delivered when it is back", page.flush(30), True)
        stage.expect("fallbacks, by what went wrong", sum(page.fallbacks.values()), 2)


def _reason(answer: pb.DecideResponse) -> str:
    return str(pb.Reason.Name(answer.reason)).removeprefix("REASON_")


SCENES = (
    Scene(7, "several slots", slate),
    Scene(13, "a client that never breaks the page", client),
)
