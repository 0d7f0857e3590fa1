"""A shop whose purchases are sent back, driven against a real server: is what was retracted not learned?

A deep discount sells twice as often as the full price, and most of it is returned. Whoever learns what was sold favours
the discount; whoever learns what was kept favours the full price. Run by `python -m simulator.drive.returns LOG.db`; it
prints the mean of each action in the log beside the truth.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeVar

import numpy as np

from decider.experiment.aggregate import final_reward
from decider.experiment.definition import Action, Experiment, RewardDefinition
from decider.experiment.schema import to_message
from decider.log.open import open_reader
from decider.log.protocol import LogReader
from decider.types import ActionId, ExperimentId, Time
from decider.v1 import decider_service_pb2 as pb
from simulator.drive import calls
from simulator.drive.send import PATIENCE, PAUSE
from simulator.drive.server import serving, wait_until_sealed
from simulator.drive.target import DriveFailed, apply, connection
from simulator.worlds.world import Floats

T = TypeVar("T")

SOLD = {"full-price": 0.2, "deep-discount": 0.4}
RETURNED = {"full-price": 0.05, "deep-discount": 0.75}
ACTIONS = tuple(SOLD)

WINDOW = 1.0
"""Seconds."""

BATCH = 50
"""Visitors at once: their purchases and returns arrive before the next ones come."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Of one action. truth: purchases per visit that are kept; sold: those that are made. mean, error: of the final
    rewards in the log, each weighted with 1/propensity, and its standard error. share: of the last third of the visits.
    """

    action: str
    truth: float
    sold: float
    mean: float
    error: float
    share: float


def experiment(id_: str) -> Experiment:
    """Two prices, the default policy, 1 for each purchase that is in force when its window ends."""
    return Experiment(
        ExperimentId(id_),
        tuple(Action(ActionId(action), "offer") for action in ACTIONS),
        minimum_propensity=0.05,
        reward=RewardDefinition(window=round(WINDOW * 1e6), weights={"purchase": 1.0}),
    )


def drive(target: str, id_: str, *, visitors: int, seed: int, retract: bool) -> None:
    """Send visitors with their purchases, and their returns if they are told. Raises DriveFailed."""
    apply(target, to_message(experiment(id_)))
    random = Random(seed)
    with connection(target) as stub:
        for first in range(0, visitors, BATCH):
            _visit(stub, id_, range(first, min(first + BATCH, visitors)), random, retract=retract)
            time.sleep(WINDOW * BATCH / 1_000)  # so that the policy learns on the way


def _visit(stub: Any, id_: str, numbers: Sequence[int], random: Random, *, retract: bool) -> None:
    asked = [
        pb.DecideRequest(experiment=id_, unit_id=f"{id_}-{one}", decision_id=f"{id_}-{one:06d}") for one in numbers
    ]
    decided = until_answered(lambda: calls.decide(stub, asked))
    sold = [one for one in decided if random.random() < SOLD[one.action.id]]
    back = [one for one in sold if random.random() < RETURNED[one.action.id]]
    messages = [_purchase(one) for one in sold]
    messages += [_return(one) for one in back if retract]
    random.shuffle(messages)  # queues reorder: some returns come before their purchase
    if messages:
        until_answered(lambda: calls.reward(stub, messages))


def until_answered(call: Callable[[], T]) -> T:
    """Sent again with the same ids: whatever was carried out counts once. Raises DriveFailed."""
    patient_until = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except calls.Unanswered as failed:
            if not failed.again or time.monotonic() > patient_until:
                raise DriveFailed(str(failed)) from failed
        time.sleep(PAUSE)


def _purchase(decided: pb.DecideResponse) -> pb.RewardRequest:
    return pb.RewardRequest(decision_id=decided.decision_id, name="purchase", reward_id="order")


def _return(decided: pb.DecideResponse) -> pb.RewardRequest:
    return pb.RewardRequest(decision_id=decided.decision_id, name="purchase", reward_id="order", retract=True)


def measure(log: LogReader, id_: str) -> list[Kept]:
    """What the log says of each action, beside the truth."""
    weighed = weigh(log, experiment(id_))
    return [
        Kept(action, truth=SOLD[action] * (1 - RETURNED[action]), sold=SOLD[action], **weighed[action]._asdict())
        for action in ACTIONS
    ]


class Weighed(NamedTuple):
    """Of one action: mean and standard error of its final rewards, each weighted with 1/propensity; and its share of
    the last third of the visits."""

    mean: float
    error: float
    share: float


def weigh(log: LogReader, experiment: Experiment) -> dict[str, Weighed]:
    """What a log says of each action."""
    sealed = sorted(
        log.sealed_decisions(experiment.id, after=Time(0), until=log.head().time), key=lambda one: one.position
    )
    actions = np.array([one.decision.action for one in sealed])
    propensities = np.array([one.decision.propensity for one in sealed])
    rewards = np.array([final_reward(experiment.reward, one.rewards) for one in sealed])
    return {action.id: _weighed(actions == action.id, rewards / propensities) for action in experiment.actions}


def _weighed(drawn: Any, weighted: Floats) -> Weighed:
    terms = np.where(drawn, weighted, 0.0)
    error = float(terms.std(ddof=1) / np.sqrt(len(terms)))
    return Weighed(float(terms.mean()), error, float(drawn[-len(drawn) // 3 :].mean()))


def play(db: Path, *, visitors: int, seed: int = 1) -> dict[bool, list[Kept]]:
    """Drive both shops on a server of its own: the one that tells of returns (True) and the one that does not."""
    ids = {True: "returns-told", False: "returns-untold"}
    with serving(db) as server:
        for told, id_ in ids.items():
            drive(server.target, id_, visitors=visitors, seed=seed, retract=told)
            wait_until_sealed(db, id_, window=WINDOW)
    with closing(open_reader(db)) as log:
        return {told: measure(log, id_) for told, id_ in ids.items()}


def lines(played: dict[bool, list[Kept]]) -> Iterator[str]:
    """A table.

    >>> print(*lines({True: [Kept("full-price", 0.19, 0.2, 0.1875, 0.01, 0.9)]}), sep="\\n")
    returns         action         sold/visit  kept/visit    mean in the log  share of the last third
    retracted       full-price          0.200       0.190   0.188 +- 0.010                      0.90
    """
    yield "returns         action         sold/visit  kept/visit    mean in the log  share of the last third"
    for told, actions in played.items():
        for one in actions:
            yield (
                f"{'retracted' if told else 'not told':<15} {one.action:<15}{one.sold:>10.3f}{one.truth:>12.3f}"
                f"{one.mean:>8.3f} +- {one.error:.3f}{one.share:>26.2f}"
            )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("db", type=Path, help="a new log")
    parser.add_argument("--visitors", type=int, default=4_000, help="of each shop [4000]")
    given = parser.parse_args()
    print(*lines(play(given.db, visitors=given.visitors)), sep="\n")


if __name__ == "__main__":
    main()
