"""One process of a log without ports: leader, follower and what serves, put together as the server does it."""

from __future__ import annotations

import math
from collections.abc import Callable

from decider.decide.decide import RULES
from decider.experiment.definition import Experiment
from decider.learn.guard import Guard
from decider.learn.leader import Leader, Pace
from decider.learn.versions import ApplyResult, Versions
from decider.log.protocol import EventLog
from decider.policy.algorithms import code_versions
from decider.policy.memory import PolicyMemory
from decider.serving.current import Current
from decider.serving.follower import Copies, Follower
from decider.types import ExperimentId
from tests.conftest import Clock

PACE = Pace(interval=0.0, slice=math.inf)
"""A round is made whenever the test says so, and learns up to STRIDE entries, however slow the machine is."""


class Process:
    """A log, what serves, its leader and its follower; time passes and rounds are made when the test says so.

    heard: (experiment, decisions) of every round of learning; failed: experiments whose round failed. interfere: called
    after every round of learning. memory: bounds its policies.
    """

    def __init__(self, log: EventLog, clock: Clock, *, memory: PolicyMemory | None = None) -> None:
        self.log, self.clock, self.memory = log, clock, memory
        self.heard: list[tuple[ExperimentId, int]] = []
        self.failed: list[ExperimentId] = []
        self.interfere: Callable[[], object] = lambda: None
        self.copies = Copies()
        self.start()

    def start(self, pace: Pace = PACE) -> None:
        """A process on the log."""
        self.log.name_build({"codes": code_versions(), "rules": RULES})
        self.lease = self.log.lease()
        self.current = Current()
        self.versions = Versions(self.log)
        self.follower = Follower(self.log, self.current, self.copies, memory=self.memory)
        self.guard = Guard(self.log)
        self.leader = Leader(
            self.log,
            self.lease,
            self.copies,
            clock=self.clock,
            pace=pace,
            memory=self.memory,
            guard=self.guard,
            on_learned=self._hear,
            on_failed=self.failed.append,
        )
        assert self.leader.catch_up()
        self.follower.follow()

    def _hear(self, experiment: ExperimentId, count: int, _: float) -> None:
        self.heard.append((experiment, count))
        self.interfere()

    def restart(self, pace: Pace = PACE) -> None:
        """The process is killed; a new one on the same log."""
        self.lease.release()  # as the operating system does
        self.copies = Copies()
        self.start(pace)

    def step(self) -> None:
        """Rounds of the leader until nobody is behind, and what serves follows."""
        while self.leader.step():
            pass
        self.leader.step()
        self.follower.follow()

    def apply(self, experiment: Experiment, *, validate_only: bool = False) -> ApplyResult:
        """As the RPC does."""
        applied = self.versions.apply(experiment, validate_only=validate_only)
        self.follower.follow()
        return applied

    def set_paused(self, id_: ExperimentId, *, paused: bool) -> ApplyResult:
        """As the RPC does."""
        applied = self.versions.set_paused(id_, paused=paused)
        self.follower.follow()
        return applied
