"""Callers with a deadline against a server that stands still now and then: is anything learned that nobody saw?

`python -m simulator.studies.given_up` sends 2,000 calls, 50 in flight, each with a deadline of 200 ms, while the server
is stopped (SIGSTOP) and continued every second. A caller sends its own decision id; where it gets no answer it shows
its fallback, and says so with Activate. Then the log is compared with what was shown. Exits with 1 where they differ.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
from google.protobuf.duration_pb2 import Duration

from decider.log.open import open_reader
from decider.types import ExperimentId, Time
from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from decider.v1 import experiment_service_pb2 as experiments_pb
from decider.v1.decider_service_pb2_grpc import DeciderServiceStub
from decider.v1.experiment_service_pb2_grpc import ExperimentServiceStub
from simulator.drive.server import serving
from simulator.verify import Verification, verify

FALLBACK = "none"
ACTIONS = ("none", "ten-percent", "free-shipping")
ID = "cart"

PATIENCE = 60.0
"""Seconds for which an activation is sent again."""


@dataclass(frozen=True, slots=True)
class Load:
    """deadline, stop_every, stopped: seconds. window: of the rewards, in seconds; longer than it takes to say what was
    shown, also on a busy machine."""

    calls: int = 2_000
    in_flight: int = 50
    deadline: float = 0.2
    stop_every: float = 1.0
    stopped: float = 0.5
    window: float = 15.0


@dataclass(frozen=True, slots=True)
class Result:
    """shown: by decision id, the action that its caller has shown; fallbacks: ids of callers without an answer.
    sealed: by decision id, what the log says was drawn, and whether it says that another action was shown. late: ids
    whose activation came after the window."""

    shown: dict[str, str]
    fallbacks: frozenset[str]
    sealed: dict[str, tuple[str, bool]]
    late: frozenset[str]
    verification: Verification

    @property
    def not_logged(self) -> int:
        """Fallbacks whose decision is not in the log."""
        return len(self.fallbacks - self.sealed.keys())

    @property
    def corrected(self) -> int:
        """Fallbacks whose decision is in the log, and known to be overridden."""
        return sum(overridden for id_, (_, overridden) in self.sealed.items() if id_ in self.fallbacks)

    @property
    def wrong(self) -> list[str]:
        """Decisions that count as shown and were not, or the other way round."""
        return [id_ for id_, (drawn, over) in self.sealed.items() if (self.shown[id_] == drawn) == over]

    @property
    def lost(self) -> list[str]:
        """Answered and not in the log."""
        return [id_ for id_ in self.shown if id_ not in self.fallbacks and id_ not in self.sealed]


class _Callers:
    """What was shown, by decision id."""

    def __init__(self, target: str, load: Load) -> None:
        self._channel = grpc.insecure_channel(target)
        self._stub = DeciderServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._load = load
        self.shown: dict[str, str] = {}
        self.fallbacks: set[str] = set()
        self.late: set[str] = set()

    def close(self) -> None:
        """Let go of the connection."""
        self._channel.close()

    def visit(self, number: int) -> None:
        """One visitor: the answer, or the fallback."""
        id_ = f"d-{number}"
        request = pb.DecideRequest(experiment=ID, unit_id=f"u-{number}", decision_id=id_)
        try:
            self.shown[id_] = self._stub.Decide(request, timeout=self._load.deadline).action.id
        except grpc.RpcError:
            self.shown[id_] = FALLBACK
            self.fallbacks.add(id_)
            self._say(pb.ActivateRequest(decision_id=id_, action=FALLBACK))

    def _say(self, request: pb.ActivateRequest) -> None:
        """Until it is answered: a client queues what it has to say."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                reply = self._stub.Activate(request, timeout=1.0)
                if reply.outcome == pb.ACTIVATION_OUTCOME_LATE:
                    self.late.add(request.decision_id)
                return
            except grpc.RpcError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)


@contextmanager
def _standing_still(process: int, load: Load) -> Iterator[None]:
    """Meanwhile the process is stopped and continued."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(load.stop_every - load.stopped):
            os.kill(process, signal.SIGSTOP)
            over.wait(load.stopped)
            os.kill(process, signal.SIGCONT)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def play(db: Path, load: Load) -> Result:
    """Everything, on a new log."""
    with serving(db) as server:
        _apply(server.target, load)
        callers = _Callers(server.target, load)
        with _standing_still(server.process.pid, load), ThreadPoolExecutor(load.in_flight) as pool:
            for done in [pool.submit(callers.visit, number) for number in range(load.calls)]:
                done.result()
        callers.close()
        _wait_until_sealed(db)
    with closing(open_reader(db)) as log:
        verification = verify(log)
    return Result(callers.shown, frozenset(callers.fallbacks), _sealed(db), frozenset(callers.late), verification)


def _apply(target: str, load: Load) -> None:
    experiment = experiment_pb2.Experiment(
        id=ID, actions=[experiment_pb2.Action(id=one) for one in ACTIONS], baseline_action=FALLBACK
    )
    window = Duration()
    window.FromMicroseconds(round(load.window * 1e6))
    experiment.reward.window.CopyFrom(window)
    with grpc.insecure_channel(target) as channel:
        stub = ExperimentServiceStub(channel)  # type: ignore[no-untyped-call]
        stub.ApplyExperiment(experiments_pb.ApplyExperimentRequest(experiment=experiment), timeout=30)


def _wait_until_sealed(db: Path) -> None:
    end = time.monotonic() + PATIENCE
    while len(_sealed(db)) < _decided(db) and time.monotonic() < end:
        time.sleep(0.1)


def _decided(db: Path) -> int:
    with closing(open_reader(db)) as log:
        return log.count_decisions()


def _sealed(db: Path) -> dict[str, tuple[str, bool]]:
    with closing(open_reader(db)) as log:
        found = log.sealed_decisions(ExperimentId(ID), after=Time(0), until=log.head().time)
        return {one.decision.decision_id: (one.decision.action, one.overridden) for one in found}


def words(result: Result) -> str:
    """What people read."""
    drawn = Counter(drawn for id_, (drawn, _) in result.sealed.items() if id_ in result.fallbacks)
    return "\n".join(
        [
            f"{len(result.shown):,} calls; {len(result.fallbacks):,} got no answer in time and showed {FALLBACK!r}.",
            f"Of these {result.not_logged:,} are not in the log; {len(result.fallbacks) - result.not_logged:,} are, "
            f"drawn {dict(drawn)}: {result.corrected:,} overridden.",
            f"{len(result.wrong):,} decisions count as shown and were not ({len(result.late):,} activations came after "
            f"the window); {len(result.lost):,} answers are lost.",
            f"verify: {result.verification.equal:,} of {result.verification.decisions:,} equal.",
        ]
    )


def main() -> int:
    """Play it and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Load()
    parser.add_argument("--calls", type=int, default=default.calls)
    parser.add_argument("--in-flight", type=int, default=default.in_flight)
    parser.add_argument("--deadline", type=float, default=default.deadline, help="seconds")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        load = Load(given.calls, given.in_flight, given.deadline)
        result = play(Path(folder, "log.db"), load)
    print(words(result))
    return int(bool(result.wrong or result.lost))


if __name__ == "__main__":
    raise SystemExit(main())
