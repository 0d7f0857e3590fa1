"""A shop with stores, driven against a real server: does a purchase in a store reach the page that led to it?

Everybody looks at the shop twice, on a phone and on a laptop, as two visitors. "collect" sends people to a store, where
the till knows them as customers; "deliver" sells on the page. Whoever counts the page alone favours "deliver"; whoever
credits the store's purchases favours "collect". Run by `python -m simulator.drive.stores LOG.db`; it prints the mean of
each action in the log beside the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

from decider.experiment.definition import Action, Attribution, Experiment, RewardDefinition
from decider.types import ActionId, ExperimentId
from decider.v1 import decider_service_pb2 as pb
from simulator.drive import calls
from simulator.drive.shops import Shop, main, until_answered

ON_THE_PAGE = {"deliver": 0.2, "collect": 0.05}
"""Purchases per visit."""

IN_A_STORE = {"deliver": 0.0, "collect": 0.6}
"""Purchases of a person whose last visit showed that; of every second visit, since each person makes two."""

WINDOW = 8.0
"""Seconds."""


def experiment(id_: str) -> Experiment:
    """Two messages; a purchase of the unit is credited to its last visit."""
    return Experiment(
        ExperimentId(id_),
        tuple(Action(ActionId(action), "offer") for action in ON_THE_PAGE),
        minimum_propensity=0.1,
        reward=RewardDefinition(window=round(WINDOW * 1e6), maximum=2.0, attribution=Attribution.LAST),
    )


def visit(stub: Any, id_: str, numbers: Sequence[int], random: Random, told: bool) -> None:
    """Persons with their purchases, those in stores if they are told. Raises DriveFailed."""
    devices = [
        [
            pb.DecideRequest(experiment=id_, unit_id=f"{id_}-{device}-{one}", decision_id=f"{id_}-{device}-{one:06d}")
            for one in numbers
        ]
        for device in ("phone", "laptop")
    ]
    visits = [until_answered(partial(calls.decide, stub, asked)) for asked in devices]
    bought = [one for made in visits for one in made if random.random() < ON_THE_PAGE[one.action.id]]
    messages = [pb.RewardRequest(decision_id=one.decision_id, name="page", reward_id="page") for one in bought]
    for number, last in zip(numbers, visits[-1], strict=True):
        if told and random.random() < IN_A_STORE[last.action.id]:
            for asked in devices:
                until_answered(partial(calls.link, stub, asked[number - numbers[0]].unit_id, f"{id_}-{number}"))
            messages.append(pb.RewardRequest(unit_id=f"{id_}-{number}", name="store", reward_id="till", experiment=id_))
    if messages:
        until_answered(partial(calls.reward, stub, messages))


SHOP = Shop(
    "stores",
    experiment,
    visit,
    truth={action: page + IN_A_STORE[action] / 2 for action, page in ON_THE_PAGE.items()},
    apparent=ON_THE_PAGE,
)

if __name__ == "__main__":
    main(SHOP, __doc__)
