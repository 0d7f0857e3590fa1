"""An e-mail campaign: every day a quarter of a list of customers, decided in one batch, campaign after campaign.

How recently, how often and for how much somebody bought decides. Best: `preview` for those who buy often and for much,
`new-collection` for those who bought lately, `sale` for those between, `win-back` for those who have not come for
long, and `none` for those who bought once and about a year ago: they unsubscribe.
"""

from __future__ import annotations

from random import Random

from decider.experiment.definition import Action
from decider.types import ActionId, Context
from simulator.worlds.scene import Outcome, Visitor, chance, define, scene

BATCH = 500
ACTIONS = (
    Action(ActionId("none"), "none"),
    Action(ActionId("new-collection"), "content"),
    Action(ActionId("preview"), "content"),
    Action(ActionId("sale"), "offer", {"discount": 0.2}),
    Action(ActionId("win-back"), "offer", {"discount": 0.3}),
)

_INTERESTED = -2.9
_PER: dict[str, tuple[float, float, float]] = {
    "new-collection": (-1.2, 0.2, 0.0),
    "preview": (-1.0, 0.6, 0.5),
    "sale": (-0.3, 0.1, -0.3),
    "win-back": (0.5, -0.1, -0.3),
}
_ADDS = {"new-collection": 0.7, "preview": -0.4, "sale": 0.4, "win-back": -0.9}
"""Log-odds of a click: of each action, what it adds, and what 100 days since the last order, 5 orders and a spend of
500 add."""
_BUYS = 0.2
"""Of those who are interested."""


def _customer(random: Random) -> Context:
    """One of the list. Who orders often has ordered lately and spent more, in most cases."""
    loyal = random.random()
    orders = 1 + int(14 * loyal * random.random())
    features = {
        "orders": float(orders),
        "recency_days": float(min(365, round(random.expovariate(1 / (40 + 220 * (1 - loyal)))))),
        "spend": float(orders * random.choice((20, 40, 60, 110))),
    }
    return Context(channel="email", device=random.choice(("mobile", "desktop")), features=features)


_LIST = [_customer(Random(number)) for number in range(4 * BATCH)]


def _visitor(random: Random, number: int) -> Visitor:
    unit = 4 * (number % BATCH) + random.randrange(4)
    return Visitor(_LIST[unit], unit)


def outcomes(context: Context, action: ActionId, _phase: int) -> list[Outcome]:
    """What may follow when this customer gets that mail: the names of the rewards, their values and probabilities.

    >>> [one.name for one in outcomes(_LIST[0], ActionId("sale"), 0)], outcomes(_LIST[0], ActionId("none"), 0)
    (['click', 'purchase', 'unsubscribe'], [])
    """
    if action == "none":
        return []
    per = _PER[action]
    recency, orders, spend = (float(context.features[one]) for one in ("recency_days", "orders", "spend"))
    logs = per[0] * recency / 100 + per[1] * orders / 5 + per[2] * spend / 500
    interested = chance(_INTERESTED + _ADDS[action] + logs, {"mobile": 0.1}, context)
    leaves = chance(-4.9 + recency / 150 - orders / 6, {}, context)
    return [
        Outcome("click", 1.0, (1 - _BUYS) * interested),
        Outcome("purchase", 1.0, _BUYS * interested),
        Outcome("unsubscribe", 1.0, leaves),
    ]


WORLD = scene(
    name="email",
    line="A daily e-mail in one batch: recency, orders and spend decide.",
    experiment=define(
        "email",
        actions=ACTIONS,
        baseline="new-collection",
        window=72_000,
        weights={"click": 1.0, "purchase": 4.0, "unsubscribe": -4.0},
        reward_range=(-4.0, 4.0),
    ),
    visitor=_visitor,
    outcomes=outcomes,
    delay=20_000.0,
    traffic=BATCH / 86_400,
    batch=BATCH,
)
