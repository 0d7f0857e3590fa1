"""What happens to the server during the soak: other policies, a pause, an archive run, a copy. Called by `__main__.py`.

Each has a thread beside the load and begins at a stated share of the soak's time: one that takes long delays no other.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc

from decider.v1 import experiment_pb2
from decider.v1 import experiment_service_pb2 as service
from decider.v1.experiment_service_pb2_grpc import ExperimentServiceStub
from simulator.studies.served import ALL_CORES, Served
from simulator.studies.soak.traffic import LOADED, PAUSED, WINDOW, experiment

DEFAULT = experiment_pb2.Policy(thompson=experiment_pb2.Thompson())
"""Of the experiment with most of the traffic. What it is changed to takes as long, so that thirds can be compared."""
SQUARE_CB = experiment_pb2.Policy(squarecb=experiment_pb2.SquareCb())
WIDER = experiment_pb2.Policy(thompson=experiment_pb2.Thompson(width=0.6))

BUSY = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE)
RETRY_FOR, RETRY_AFTER = 60.0, 0.2
"""Seconds; an operator, too, tries again."""

PAUSE = 0.04
"""Of the soak's time."""

YOUNGEST_ARCHIVED = timedelta(seconds=4 * WINDOW)
NOT_THERE = "No such command"


@dataclass(slots=True)
class Event:
    """begun, ended: seconds since the start; None: not yet. ok: None where it was left undone."""

    name: str
    at: float
    begun: float | None = None
    ended: float | None = None
    ok: bool | None = None
    text: str = ""


class Failed(Exception):
    """An event did not do what it should; the message says what it did."""


class Undone(Exception):
    """This build does not have what the event needs, or the soak was too short for it."""


@dataclass(slots=True)
class Operator:
    """Does the events. minutes: of the soak. folder: for the copy and the archive. stopped: end early."""

    server: Served
    db: Path
    folder: Path
    minutes: float
    stopped: threading.Event = field(default_factory=threading.Event)
    events: list[Event] = field(default_factory=list)

    @property
    def copy(self) -> Path:
        """The copy of the live log."""
        return self.folder / "copy.db"

    @property
    def archive(self) -> Path:
        """Where archive runs write."""
        return self.folder / "archive"

    def plan(self) -> Sequence[tuple[float, str, Callable[[], str]]]:
        """(share of the time, name, what to do). A policy that changes early has little to learn, and the last third is
        calm, so that it can be compared. The second change has to read what is in the archive by then."""
        return (
            (0.03, f"policy of {LOADED}", lambda: self._apply(LOADED, WIDER)),
            (0.18, "copy", self._copy),
            (0.25, f"pause of {PAUSED}", self._pause),
            (0.55, "archive", self._archive),
            (0.62, f"policy of {PAUSED}", lambda: self._apply(PAUSED, WIDER)),
        )

    def start(self) -> Sequence[threading.Thread]:
        """A thread for each event, which waits for its time."""
        started = time.monotonic()
        todo = [(Event(name, share * self.minutes * 60), action) for share, name, action in self.plan()]
        self.events += [event for event, _ in todo]
        threads = [threading.Thread(target=self._run, args=(started, *one), name=one[0].name) for one in todo]
        for thread in threads:
            thread.start()
        return threads

    def _run(self, started: float, event: Event, action: Callable[[], str]) -> None:
        """An event that fails is noted, and the others go on."""
        os.sched_setaffinity(0, ALL_CORES)  # of this thread: an archive run may take any core
        if self.stopped.wait(max(0.0, started + event.at - time.monotonic())):
            return
        event.begun = time.monotonic() - started
        _do(event, action)
        event.ended = time.monotonic() - started

    def apply_all(self) -> None:
        """Both experiments, before the load."""
        with self._experiments() as stub:
            for id_, policy in ((LOADED, DEFAULT), (PAUSED, SQUARE_CB)):
                stub.ApplyExperiment(service.ApplyExperimentRequest(experiment=experiment(id_, policy)))

    def _experiments(self) -> _Experiments:
        return _Experiments(self.server.port)

    def _apply(self, id_: str, policy: experiment_pb2.Policy) -> str:
        """Another policy has to learn the log while the one before serves; until it serves."""
        with self._experiments() as stub:
            request = service.ApplyExperimentRequest(experiment=experiment(id_, policy))
            version = _retried(stub.ApplyExperiment, request).applied.version
            while not self.stopped.is_set():
                serving = _retried(stub.GetExperiment, service.GetExperimentRequest(id=id_)).experiment
                if serving.version == version:
                    return f"version {version} serves"
                time.sleep(0.2)
        raise Undone(f"version {version} was still learning at the end")

    def _pause(self) -> str:
        with self._experiments() as stub:
            _retried(stub.PauseExperiment, service.PauseExperimentRequest(id=PAUSED))
            self.stopped.wait(PAUSE * self.minutes * 60)
            _retried(stub.ResumeExperiment, service.ResumeExperimentRequest(id=PAUSED))
        return "resumed"

    def _copy(self) -> str:
        """All in one step: in small ones it would begin anew at each commit of the server."""
        with closing(sqlite3.connect(self.db)) as source, closing(sqlite3.connect(self.copy)) as target:
            source.backup(target)
        return f"{self.copy.stat().st_size / 1e6:,.0f} MB"

    def _archive(self) -> str:
        """Everything that was decided until a little ago."""
        before = (datetime.now(UTC) - YOUNGEST_ARCHIVED).isoformat(timespec="seconds")
        command = [sys.executable, "-m", "decider.cli", "archive", "--db", str(self.db), "--before", before]
        nice = [shutil.which("nice") or "nice", "-n", "10"]
        done = subprocess.run([*nice, *command, str(self.archive)], capture_output=True, text=True, check=False)
        said = (done.stdout + done.stderr).strip()
        if NOT_THERE in said:
            raise Undone("`decider archive` is not there")
        if done.returncode:
            raise Failed(f"exit code {done.returncode}: {said[-400:]}")
        return said.splitlines()[-1] if said else "archived"


def _retried(call: Callable[..., Any], request: object) -> Any:
    """The answer; from a busy server, after some time. Raises grpc.RpcError."""
    end = time.monotonic() + RETRY_FOR
    while True:
        try:
            return call(request, timeout=RETRY_FOR)
        except grpc.RpcError as error:
            if error.code() not in BUSY or time.monotonic() > end:
                raise
        time.sleep(RETRY_AFTER)


def _do(event: Event, action: Callable[[], str]) -> None:
    try:
        event.text, event.ok = action(), True
    except Undone as error:
        event.text = str(error)
    except grpc.RpcError as error:
        event.text, event.ok = f"{error.code().name}: {error.details()}", False
    except (Failed, sqlite3.Error, OSError) as error:
        event.text, event.ok = str(error), False


class _Experiments:
    """A stub for as long as it is needed."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def __enter__(self) -> ExperimentServiceStub:
        return ExperimentServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def __exit__(self, *_: object) -> None:
        self._channel.close()
