"""What may be chosen: rules, schedules, ids that are gone, actions of the call, schemas, settings that cannot be."""

from __future__ import annotations

from decider.errors import DeciderError
from decider.experiment.schema import parse_toml
from decider.v1 import decider_service_pb2 as pb
from simulator.studies.tour.stage import Scene, Stage, refusal

RULES = """
id = "vip-offer"

[[actions]]
id = "none"

[[actions]]
id = "vip-only"
eligible_if = "segment == 'vip' && features.age >= 18"

[[actions]]
id = "last-year"
available_until = "2025-12-31T00:00:00Z"
"""

FEED = """
id = "feed"

[[actions]]
id = "editor-pick"

[[actions]]
id = "old-offer"
state = "retired"

[actions_in_calls]
most = 50

[policy.squarecb]
"""

SCHEMA = """
id = "typed"
actions = [{ id = "a" }, { id = "b" }]

[schema.features.segment]
values = ["new", "vip"]

[schema.features.cart_value]
range = { minimum = 0, maximum = 5000 }
on_problem = "refuse"
"""

IMPOSSIBLE = """
id = "impossible"
holdout = 1.0
actions = [{ id = "a" }, { id = "b" }]
baseline_action = "a"
"""


def rules(stage: Stage) -> None:
    """The pmf has what the rules left."""
    experiment = stage.apply(RULES)
    new = stage.client.decide(experiment, "visitor-1", with_ranking=True)
    stage.expect("a new visitor may get", [one.action for one in new.ranking], ["none"])
    vip = stage.client.decide(experiment, "visitor-2", with_ranking=True, segment="vip", age=31)
    stage.expect("a vip of 31 may get", sorted(one.action for one in vip.ranking), ["none", "vip-only"])


def actions(stage: Stage) -> None:
    """Retired, unknown, and of today."""
    experiment = stage.apply(FEED)
    asked = pb.DecideRequest(
        experiment=experiment, unit_id="visitor-1", eligible_actions=["editor-pick", "old-offer", "never-heard-of"]
    )
    answer = stage.stub.Decide(asked)
    stage.expect("answered with", answer.action.id, "editor-pick")
    stage.expect("left out and told", sorted(answer.ignored_actions), ["never-heard-of", "old-offer"])
    articles = [{"id": f"article-{n}", "kind": "article", "features": {"topic": "sport"}} for n in range(3)]
    ranked = stage.client.decide(experiment, "visitor-2", actions=articles, with_ranking=True)
    stage.expect("actions in play with three of the call", len(ranked.ranking), 4)


def schema(stage: Stage) -> None:
    """Counted or refused."""
    experiment = stage.apply(SCHEMA)
    stage.client.decide(experiment, "visitor-1", segment="vpi", cart_value=10)
    counted = stage.metric("decider_feature_problems_total", experiment=experiment, feature="segment")
    stage.expect("segment 'vpi' is counted", counted, 1)
    asked = pb.DecideRequest(experiment=experiment, unit_id="visitor-1")
    asked.context.features["cart_value"] = "12"
    answer = refusal(lambda: stage.stub.Decide(asked))
    stage.expect(f"a price as text ({answer})", answer.partition(":")[0], "INVALID_ARGUMENT")


def settings(stage: Stage) -> None:
    """What cannot work is refused when it is applied."""
    try:
        stage.apply(IMPOSSIBLE)
        answer = "applied"
    except DeciderError as error:
        answer = str(error)
    stage.expect(f"a holdout of 1 ({answer})", answer != "applied", True)
    window = parse_toml(RULES + '\n[reward]\nwindow = "10m"', "the tour").reward.window.seconds
    stage.expect('window = "10m", in seconds', window, 600)


SCENES = (
    Scene(6, "rules on the context, and a schedule", rules),
    Scene(8, "retired and unknown ids; actions of the call", actions),
    Scene(10, "a schema of features", schema),
    Scene(11, "settings that cannot work together", settings),
)
