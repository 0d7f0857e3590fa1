"""Logs with a holdout whose units come back, written in a moment: for the tests of the lift."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from decider.decide.decide import decide
from decider.experiment.definition import Experiment
from decider.experiment.schema import from_message
from decider.learn.versions import Versions
from decider.log.open import open_log
from decider.log.protocol import EventLog, NewReward, Tick
from decider.policy.make import make_policy
from decider.policy.protocol import Model
from decider.types import Context, DecisionId, DecisionRequest, Position, Reason
from tests import rpc_clients
from tests.long_logs import PastClock

GROUP = 250
"""Decisions of one commit."""


def shop(**fields: object) -> Experiment:
    """Two actions and a window of a second; a tenth of the units gets "b"."""
    defaults: dict[str, object] = {"holdout": 0.1, "baseline_action": "b", "window": 1.0}
    return from_message(rpc_clients.experiment("shop", "a", "b", **(defaults | fields)))  # type: ignore[arg-type]


def write_visits(
    log: EventLog,
    clock: PastClock,
    versions: Sequence[Experiment],
    *,
    decisions: int,
    units: int = 400,
    rates: tuple[float, float] = (0.5, 0.2),
    seed: int = 1,
    pause: float = 60.0,
) -> None:
    """Each version is applied, then decides so many times; all windows are over at the end.

    rates: of clicks by the policy's units and the holdout's. A click may be a purchase, too, of some amount.
    """
    rng = np.random.default_rng(seed)
    for number, experiment in enumerate(versions):
        Versions(log).apply(experiment)
        for first in range(0, decisions, GROUP):
            ids = [f"{seed}-{number}-{n}" for n in range(first, min(first + GROUP, decisions))]
            _visits(log, rng, ids, units, rates)
            clock.advance(pause)
        clock.advance(60.0)
        log.append([Tick()])


def _visits(
    log: EventLog, rng: np.random.Generator, ids: Sequence[str], units: int, rates: tuple[float, float]
) -> None:
    version = log.versions()[-1]
    model = Model(make_policy(version.experiment.policy))
    requests = [_request(rng, id_, int(rng.integers(units))) for id_ in ids]
    decisions = [decide(request, version, model) for request in requests]
    marks = log.append(decisions)
    sent = []
    for decision, mark in zip(decisions, marks, strict=True):
        assert mark is not None
        rate = rates[1] if decision.reason is Reason.HOLDOUT else rates[0]
        if rng.random() < rate:
            sent += _rewards(rng, mark.position)
    log.append(sent)


def _request(rng: np.random.Generator, id_: str, unit: int) -> DecisionRequest:
    context = Context(segment=f"s{unit % 3}", device=("phone", "desktop")[int(rng.integers(2))])
    return DecisionRequest(DecisionId(id_), f"unit-{unit}", context)


def _rewards(rng: np.random.Generator, decision: Position) -> list[NewReward]:
    found = [NewReward(decision, "click", 1.0)]
    if rng.random() < 0.3:
        found.append(NewReward(decision, "purchase", float(np.exp(rng.standard_normal())), 0.1))
    return found


def visits_db(db: Path, *versions: Experiment, decisions: int = 4_000, **given: object) -> Path:
    """A closed log of such visits, four days old."""
    clock = PastClock(4 * 86_400.0)
    log = open_log(db, clock=clock)
    write_visits(log, clock, versions or [shop()], decisions=decisions, **given)  # type: ignore[arg-type]
    log.close()
    return db
