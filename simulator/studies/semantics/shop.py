"""The serving code in this process, on a log in a file, with a clock that the study holds. Called by the scenes.

Handlers, rules, sampler, log, leader and follower are those of `decider serve`; only the ports are missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

from decider.decide.decide import RULES
from decider.experiment.schema import from_message
from decider.learn.leader import Leader, Pace
from decider.learn.versions import Versions
from decider.log.open import open_log
from decider.log.protocol import EventLog
from decider.policy.algorithms import code_versions
from decider.server.service import DeciderService
from decider.serving.current import Current
from decider.serving.follower import Copies, Follower
from decider.types import Time
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.studies.prepared import SECOND, SetClock

BEGIN = Time(1_800_000_000 * SECOND)


class Shop:
    """One experiment that is served. Time stands still but for `wait`."""

    def __init__(self, log: EventLog, experiment: experiment_pb2.Experiment, clock: SetClock) -> None:
        self._clock = clock
        log.name_build({"codes": code_versions(), "rules": RULES})
        Versions(log).apply(from_message(experiment))
        current, copies = Current(), Copies()
        self._leader = Leader(log, log.lease(), copies, clock=clock, pace=Pace(interval=0.0))
        self._follower = Follower(log, current, copies)
        self._leader.catch_up()
        self._follower.follow()
        self._service = DeciderService(current, log, append=log.append, clock=clock)
        self._experiment = experiment.id
        self._ids = count()

    def wait(self, seconds: float) -> None:
        """Time passes; what was sealed by then is learned and serves."""
        self._clock.time = Time(self._clock.time + round(seconds * SECOND))
        while self._leader.step():
            pass
        self._follower.follow()

    def decide(self, *requests: pb.DecideRequest) -> Sequence[pb.DecideResponse]:
        """Of several visitors at once. Ids are those of a counter, so that a seed gives the same draws."""
        for request in requests:
            request.experiment, request.decision_id = self._experiment, f"d{next(self._ids)}"
        return [one.response for one in self._service.DecideBatch(pb.DecideBatchRequest(requests=requests)).results]

    def decide_slate(self, request: pb.DecideSlateRequest) -> pb.DecideSlateResponse:
        """A page."""
        request.experiment = self._experiment
        return self._service.DecideSlate(request)

    def activate(self, decision: str, shown: str = "") -> None:
        """What was shown; without an action the drawn one."""
        self._service.Activate(pb.ActivateRequest(decision_id=decision, action=shown))

    def reward(self, *decisions: str) -> None:
        """A click for each, or for all slots of a slate."""
        self.send([pb.RewardRequest(decision_id=one, name="click") for one in decisions])

    def send(self, rewards: Sequence[pb.RewardRequest]) -> list[pb.RewardOutcome]:
        """Rewards of any kind, and changes of them, in one call. What became of each; none may be refused."""
        if not rewards:
            return []
        results = self._service.RewardBatch(pb.RewardBatchRequest(requests=rewards)).results
        if refused := [one.error.message for one in results if one.HasField("error")]:
            raise ValueError(refused[0])
        return [one.response.outcome for one in results]

    def link(self, unit: str, same_as: str) -> None:
        """They are one person."""
        self._service.LinkUnits(pb.LinkUnitsRequest(unit_id=unit, same_as=same_as))

    def close(self) -> None:
        """The last round of the leader."""
        self._leader.finish()


@contextmanager
def open_shop(db: Path, experiment: experiment_pb2.Experiment) -> Iterator[Shop]:
    """On a new log, whose time is that of the shop."""
    clock = SetClock(BEGIN)
    with closing(open_log(db, clock=clock)) as log, closing(Shop(log, experiment, clock)) as shop:
        yield shop
