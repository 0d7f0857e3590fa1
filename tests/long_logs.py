"""Long logs in a moment: decisions, rewards and ticks of the past, appended as a server would have done."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from decider.decide.decide import decide
from decider.experiment.definition import Experiment
from decider.experiment.schema import from_message
from decider.learn.versions import Versions
from decider.log.open import open_log
from decider.log.protocol import EventLog, NewReward, Tick
from decider.policy.make import make_policy
from decider.policy.protocol import Model
from decider.types import Context, DecisionId, DecisionRequest, Time, now
from tests import rpc_clients

GROUP = 500
"""Decisions of one commit."""


class PastClock:
    """A clock that moves when it is told to."""

    def __init__(self, seconds_ago: float) -> None:
        self.now = Time(now() - round(seconds_ago * 1e6))

    def __call__(self) -> Time:
        return self.now

    def advance(self, seconds: float) -> None:
        """Later by that much."""
        self.now = Time(self.now + round(seconds * 1e6))


def shop(id_: str = "shop", **fields: object) -> Experiment:
    """An experiment of two actions with a window of a second."""
    return from_message(rpc_clients.experiment(id_, "a", "b", window=1.0, **fields))


def write_past(db: Path, decisions: int, *experiments: Experiment, pause: float = 0.05) -> None:
    """So many sealed decisions of the first experiment, a third of them rewarded; no model was ever made of them."""
    clock = PastClock(86_400.0)
    with closing(open_log(db, clock=clock)) as log:
        for experiment in experiments:
            Versions(log).apply(experiment)
        for first in range(0, decisions, GROUP):
            _group(log, first, min(GROUP, decisions - first))
            clock.advance(pause)
        clock.advance(60.0)
        log.append([Tick()])


def _group(log: EventLog, first: int, count: int) -> None:
    version = log.versions()[0]
    model = Model(make_policy(version.experiment.policy))
    requests = [
        DecisionRequest(DecisionId(f"d{n}"), f"u{n}", Context(segment=f"s{n % 7}", features={"age": float(n % 60)}))
        for n in range(first, first + count)
    ]
    marks = log.append([decide(request, version, model) for request in requests])
    log.append([NewReward(mark.position, "click", 1.0) for mark in marks[::3] if mark is not None])
