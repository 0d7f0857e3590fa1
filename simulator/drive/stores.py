"""A shop with stores, driven against a real server: does a purchase in a store reach the page that led to it?

Everybody looks at the shop twice, on a phone and on a laptop, as two visitors. "collect" sends people to a store, where
the till knows them as customers; "deliver" sells on the page. Whoever counts the page alone favours "deliver"; whoever
credits the store's purchases favours "collect". Run by `python -m simulator.drive.stores LOG.db`; it prints the mean of
each action in the log beside the truth.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from decider.experiment.definition import Action, Attribution, Experiment, RewardDefinition
from decider.experiment.schema import to_message
from decider.log.open import open_reader
from decider.types import ActionId, ExperimentId
from decider.v1 import decider_service_pb2 as pb
from simulator.drive import calls
from simulator.drive.returns import until_answered, weigh
from simulator.drive.server import serving, wait_until_sealed
from simulator.drive.target import apply, connection

ON_THE_PAGE = {"deliver": 0.2, "collect": 0.05}
"""Purchases per visit."""

IN_A_STORE = {"deliver": 0.0, "collect": 0.6}
"""Purchases of a person whose last visit showed that; of every second visit, since each person makes two."""

ACTIONS = tuple(ON_THE_PAGE)

WINDOW = 8.0
"""Seconds."""

BATCH = 50
"""Persons at once."""


@dataclass(frozen=True, slots=True)
class Earned:
    """Of one action. truth: purchases per visit; page: those on the page. mean, error: of the final rewards in the log,
    each weighted with 1/propensity, and its standard error."""

    action: str
    truth: float
    page: float
    mean: float
    error: float


def experiment(id_: str) -> Experiment:
    """Two messages; a purchase of the unit is credited to its last visit."""
    return Experiment(
        ExperimentId(id_),
        tuple(Action(ActionId(action), "offer") for action in ACTIONS),
        minimum_propensity=0.1,
        reward=RewardDefinition(window=round(WINDOW * 1e6), maximum=2.0, attribution=Attribution.LAST),
    )


def drive(target: str, id_: str, *, persons: int, seed: int, stores: bool) -> None:
    """Send persons with their purchases, those in stores if these are told. Raises DriveFailed."""
    apply(target, to_message(experiment(id_)))
    random = Random(seed)
    with connection(target) as stub:
        for first in range(0, persons, BATCH):
            _shop(stub, id_, range(first, min(first + BATCH, persons)), random, stores=stores)
            time.sleep(WINDOW * BATCH / 8_000)


def _shop(stub: Any, id_: str, numbers: Sequence[int], random: Random, *, stores: bool) -> None:
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
        if stores and random.random() < IN_A_STORE[last.action.id]:
            for asked in devices:
                until_answered(partial(calls.link, stub, asked[number - numbers[0]].unit_id, f"{id_}-{number}"))
            messages.append(pb.RewardRequest(unit_id=f"{id_}-{number}", name="store", reward_id="till", experiment=id_))
    if messages:
        until_answered(partial(calls.reward, stub, messages))


def play(db: Path, *, persons: int, seed: int = 1) -> dict[bool, list[Earned]]:
    """Drive both shops on a server of its own: the one that tells of its stores (True) and the one that does not."""
    ids = {True: "stores-told", False: "stores-untold"}
    with serving(db) as server:
        for told, id_ in ids.items():
            drive(server.target, id_, persons=persons, seed=seed, stores=told)
            wait_until_sealed(db, id_, window=WINDOW)
    with closing(open_reader(db)) as log:
        return {
            told: [
                Earned(
                    action,
                    truth=ON_THE_PAGE[action] + IN_A_STORE[action] / 2,
                    page=ON_THE_PAGE[action],
                    mean=weighed.mean,
                    error=weighed.error,
                )
                for action, weighed in weigh(log, experiment(id_)).items()
            ]
            for told, id_ in ids.items()
        }


def lines(played: dict[bool, list[Earned]]) -> Iterator[str]:
    """A table.

    >>> print(*lines({True: [Earned("collect", 0.35, 0.05, 0.347, 0.01)]}), sep="\\n")
    stores          action         page/visit  purchases/visit    mean in the log
    told            collect             0.050            0.350   0.347 +- 0.010
    """
    yield "stores          action         page/visit  purchases/visit    mean in the log"
    for told, actions in played.items():
        for one in actions:
            yield (
                f"{'told' if told else 'not told':<15} {one.action:<15}{one.page:>10.3f}{one.truth:>17.3f}"
                f"{one.mean:>8.3f} +- {one.error:.3f}"
            )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("db", type=Path, help="a new log")
    parser.add_argument("--persons", type=int, default=2_000, help="of each shop [2000]")
    given = parser.parse_args()
    print(*lines(play(given.db, persons=given.persons)), sep="\n")


if __name__ == "__main__":
    main()
