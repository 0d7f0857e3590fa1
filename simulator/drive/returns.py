"""A shop whose purchases are sent back, driven against a real server: is what was retracted not learned?

A deep discount sells twice as often as the full price, and most of it is returned. Whoever learns what was sold favours
the discount; whoever learns what was kept favours the full price. Run by `python -m simulator.drive.returns LOG.db`; it
prints the mean of each action in the log beside the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from decider.experiment.definition import Action, Experiment, RewardDefinition
from decider.types import ActionId, ExperimentId
from decider.v1 import decider_service_pb2 as pb
from simulator.drive import calls
from simulator.drive.shops import Shop, main, until_answered

SOLD = {"full-price": 0.2, "deep-discount": 0.4}
RETURNED = {"full-price": 0.05, "deep-discount": 0.75}
KEPT = {action: sold * (1 - RETURNED[action]) for action, sold in SOLD.items()}

WINDOW = 3.0
"""Seconds."""


def experiment(id_: str) -> Experiment:
    """Two prices, the default policy, 1 for each purchase that is in force when its window ends."""
    return Experiment(
        ExperimentId(id_),
        tuple(Action(ActionId(action), "offer") for action in SOLD),
        minimum_propensity=0.05,
        reward=RewardDefinition(window=round(WINDOW * 1e6), weights={"purchase": 1.0}),
    )


def visit(stub: Any, id_: str, numbers: Sequence[int], random: Random, told: bool) -> None:
    """Visitors with their purchases, and their returns if they are told. Raises DriveFailed."""
    asked = [
        pb.DecideRequest(experiment=id_, unit_id=f"{id_}-{one}", decision_id=f"{id_}-{one:06d}") for one in numbers
    ]
    decided = until_answered(lambda: calls.decide(stub, asked))
    sold = [one for one in decided if random.random() < SOLD[one.action.id]]
    back = [one for one in sold if random.random() < RETURNED[one.action.id]]
    messages = [_purchase(one) for one in sold]
    messages += [_return(one) for one in back if told]
    random.shuffle(messages)  # queues reorder: some returns come before their purchase
    if messages:
        until_answered(lambda: calls.reward(stub, messages))


def _purchase(decided: pb.DecideResponse) -> pb.RewardRequest:
    return pb.RewardRequest(decision_id=decided.decision_id, name="purchase", reward_id="order")


def _return(decided: pb.DecideResponse) -> pb.RewardRequest:
    return pb.RewardRequest(decision_id=decided.decision_id, name="purchase", reward_id="order", retract=True)


SHOP = Shop(
    "returns",
    experiment,
    visit,
    truth=KEPT,
    apparent=SOLD,
)

if __name__ == "__main__":
    main(SHOP, __doc__)
