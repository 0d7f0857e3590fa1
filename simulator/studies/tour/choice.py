"""What may be chosen: rules, schedules, limits, ids that are gone, actions of the call, schemas, settings that cannot
be.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

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

LIMITS = """
id = "exit-offer"
baseline_action = "none"
actions = [
  { id = "none", kind = "none" },
  { id = "ten-percent", kind = "offer", daily_budget = 30 },
  { id = "free-shipping", kind = "offer", max_share = 0.25 },
]
caps = [{ kind = "offer", most = 1, per = "7d" }]
policy = { uniform = {} }
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


def limits(stage: Stage) -> None:
    """Visitors who come three times at once, from many threads."""
    experiment = stage.apply(LIMITS)
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda n: stage.client.decide(experiment, f"visitor-{n % 100}"), range(300)))
    shown = Counter([answer.action.id for answer in answers])
    offered = Counter([n % 100 for n, answer in enumerate(answers) if answer.action.id != "none"])
    stage.expect("most offers to one of 100 visitors; the cap is 1", max(offered.values()), 1)
    stage.expect(f"the budget of 30 a day holds ({shown['ten-percent']} shown)", shown["ten-percent"] <= 30, True)
    stage.expect("`none` is what is left", shown["none"], 300 - offered.total())
    new = stage.client.decide(experiment, "somebody-new", with_ranking=True)
    pmf = {one.action: one.propensity for one in new.ranking}
    stage.expect("free shipping, of which a share of 0.25 is allowed", pmf["free-shipping"] <= 0.25, True)
    withheld = stage.metric("decider_withheld_actions_total", experiment=experiment)
    stage.expect(f"what was withheld is counted ({withheld:g})", withheld > 0, True)


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
    Scene(6, "caps, budgets and shares", limits),
    Scene(8, "retired and unknown ids; actions of the call", actions),
    Scene(10, "a schema of features", schema),
    Scene(11, "settings that cannot work together", settings),
)
