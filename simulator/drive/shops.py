"""A shop twice on one real server: once it tells everything that happens to its purchases, once only a part.

What the log then says of each action stands beside the truth. Called by `returns.py` and `stores.py`, which say what
visitors of theirs do.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import numpy as np

from decider.experiment.aggregate import final_reward
from decider.experiment.definition import Experiment
from decider.experiment.schema import to_message
from decider.log.open import open_reader
from decider.log.protocol import LogReader
from decider.types import Time
from simulator.drive import calls
from simulator.drive.send import PATIENCE, PAUSE
from simulator.drive.server import serving
from simulator.drive.target import LOOK_AGAIN, DriveFailed, apply, connection, model_at
from simulator.worlds.world import Floats

T = TypeVar("T")

BATCH = 50
"""Persons at once: what they do has arrived before the next ones come."""

Visit = Callable[[Any, str, Sequence[int], Random, bool], None]
"""(stub, experiment id, numbers of persons, random, told): sends their visits and what comes of them. told: everything
of it."""


@dataclass(frozen=True, slots=True)
class Shop:
    """truth: purchases per visit that count, by action; apparent: what they look like where not everything is told.

    name: begins the ids of its two experiments.
    """

    name: str
    experiment: Callable[[str], Experiment]
    visit: Visit
    truth: Mapping[str, float]
    apparent: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one action. truth, apparent: see Shop. mean, error: of the final rewards in the log, each weighted with
    1/propensity, and its standard error. share: of the last third of the visits."""

    action: str
    truth: float
    apparent: float
    mean: float
    error: float
    share: float


def play(shop: Shop, db: Path, *, persons: int, seed: int = 1) -> dict[bool, list[Measured]]:
    """Drive both on a server of their own: the one that tells everything (True) and the one that does not. persons: of
    each; before the last third of them the policy learns what there is. Raises DriveFailed."""
    experiments = {told: shop.experiment(f"{shop.name}-{'told' if told else 'untold'}") for told in (True, False)}
    randoms = {told: Random(seed) for told in experiments}
    third = persons // 3
    with serving(db) as server, connection(server.target) as stub, closing(open_reader(db)) as log:
        for experiment in experiments.values():
            apply(server.target, to_message(experiment))
        for part in (range(persons - third), range(persons - third, persons)):
            for told, experiment in experiments.items():
                for at in range(0, len(part), BATCH):
                    shop.visit(stub, experiment.id, part[at : at + BATCH], randoms[told], told)
            for experiment in experiments.values():
                _wait_until_learned(log, server.target, experiment)
        return {told: measure(shop, log, experiment) for told, experiment in experiments.items()}


def _wait_until_learned(log: LogReader, target: str, experiment: Experiment) -> None:
    """Until the model that serves knows every decision with what came of it. Raises DriveFailed."""
    patient_until = time.monotonic() + experiment.reward.window / 1e6 + PATIENCE
    while log.next_deadline(after=log.time_at(model_at(target, experiment.id)), experiment=experiment.id):
        if time.monotonic() > patient_until:
            raise DriveFailed(f"{experiment.id}: the server has not learned all that came of its decisions")
        time.sleep(LOOK_AGAIN)


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


def measure(shop: Shop, log: LogReader, experiment: Experiment) -> list[Measured]:
    """What the log says of each action, beside the truth."""
    sealed = sorted(
        log.sealed_decisions(experiment.id, after=Time(0), until=log.head().time), key=lambda one: one.position
    )
    drawn = np.array([one.decision.action for one in sealed])
    propensities = np.array([one.decision.propensity for one in sealed])
    weighted = np.array([final_reward(experiment.reward, one.rewards) for one in sealed]) / propensities
    return [_measured(shop, action.id, drawn == action.id, weighted) for action in experiment.actions]


def _measured(shop: Shop, action: str, drawn: Any, weighted: Floats) -> Measured:
    terms = np.where(drawn, weighted, 0.0)
    return Measured(
        action,
        truth=shop.truth[action],
        apparent=shop.apparent[action],
        mean=float(terms.mean()),
        error=float(terms.std(ddof=1) / np.sqrt(len(terms))),
        share=float(drawn[-len(drawn) // 3 :].mean()),
    )


def lines(played: Mapping[bool, Sequence[Measured]]) -> Iterator[str]:
    """A table.

    >>> print(*lines({True: [Measured("full-price", 0.19, 0.2, 0.1875, 0.01, 0.9)]}), sep="\\n")
    told            action         truth/visit  seen/visit    mean in the log  share of the last third
    everything      full-price           0.190       0.200   0.188 +- 0.010                       0.90
    """
    yield "told            action         truth/visit  seen/visit    mean in the log  share of the last third"
    for told, actions in played.items():
        for one in actions:
            yield (
                f"{'everything' if told else 'a part':<16}{one.action:<15}{one.truth:>11.3f}{one.apparent:>12.3f}"
                f"{one.mean:>8.3f} +- {one.error:.3f}{one.share:>27.2f}"
            )


def main(shop: Shop, text: str | None) -> None:
    """The command. text: what it does."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("db", type=Path, help="a new log")
    parser.add_argument("--persons", type=int, default=2_000, help="of each of the two shops [2000]")
    given = parser.parse_args()
    print(*lines(play(shop, given.db, persons=given.persons)), sep="\n")
