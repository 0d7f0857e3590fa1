"""A parent with a leader and workers, how each of them is killed, and whether it is back. Called by `__main__.py`."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

from simulator.studies.kills.points import FUSES, STARTED, fuse
from simulator.studies.served import ALL_CORES, NotServing, Served, children, free_port, serving

PROGRAM = ("-m", "simulator.studies.kills.points")
LEADER = "leader"
PATIENCE = 60.0
"""Seconds within which what must happen has happened."""

MISSED = 10.0
"""Seconds after which a process that has not come to a point is killed where it is."""


class TooLate(Exception):
    """What must happen did not; the message says what."""


def wait_until(look: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Raises TooLate."""
    end = time.monotonic() + patience
    while not look():
        if time.monotonic() > end:
            raise TooLate(f"waited {patience:g} s in vain until {what}")
        time.sleep(0.01)


class Crew:
    """Serves a log at `target`, through all deaths. outputs: of parents that have ended. refused: starts that ended at
    once, since those of the parent before were not gone."""

    def __init__(self, db: Path, *options: str, workers: int) -> None:
        self.db = db
        self.workers = [f"worker {number}" for number in range(1, workers + 1)]
        self.fuses = db.with_name(f"{db.name}-fuses")
        self.fuses.mkdir()
        os.environ[FUSES] = str(self.fuses)
        self.target, http = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self._options = ("--workers", str(workers), "--listen", self.target, "--http", http, *options)
        self._served: Served
        self._opened = ExitStack()
        self.outputs: list[str] = []
        self.refused = 0

    @property
    def names(self) -> Sequence[str]:
        """Of all children."""
        return [LEADER, *self.workers]

    @property
    def parent(self) -> int:
        """Its process id."""
        return self._served.pid

    def start(self) -> None:
        """As a service manager: again and again until it serves. Raises TooLate."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                self._served = self._opened.enter_context(
                    serving(self.db, *self._options, cores=ALL_CORES, program=PROGRAM)
                )
                return
            except NotServing:
                self.refused += 1
                time.sleep(0.1)
        raise TooLate("the server does not start again")

    def start_again(self) -> None:
        """After the parent's death. Raises TooLate."""
        self._note_output()
        self._opened.close()
        self.start()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        code = self._served.stop()
        self._note_output()
        return code

    def close(self) -> None:
        """Kill what is left."""
        self._opened.close()

    def _note_output(self) -> None:
        self.outputs.append(self.db.with_name(f"{self.db.name}.output").read_text(encoding="utf-8"))

    def pids(self) -> Mapping[str, int]:
        """The children that serve, or lead, by name."""
        found, living = {}, children(self.parent)
        for path in self.db.parent.glob(f"{self.db.name}-workers-*/*.json"):
            with suppress(OSError, ValueError, KeyError):
                pid = int(json.loads(path.read_text(encoding="utf-8"))["pid"])
                if pid in living:
                    found[path.stem] = pid
        return found

    def wait_for(self, names: Sequence[str], killed: Mapping[str, int]) -> None:
        """Until others have taken the places of those that were killed. Raises TooLate."""

        def are_back() -> bool:
            pids = self.pids()
            return all(name in pids and pids[name] != killed.get(name) for name in names)

        wait_until(are_back, f"{', '.join(names)} are back")


@dataclass(slots=True)
class Scene:
    """For one kill. pids: of the children. died: when the first one was killed, of the monotonic clock."""

    crew: Crew
    pids: Mapping[str, int]
    random: Random
    died: float = 0.0

    def kill(self, *names: str) -> None:
        """SIGKILL."""
        self.kill_pids(*[self.pids[name] for name in names])

    def kill_pids(self, *pids: int) -> None:
        """The same."""
        self.died = time.monotonic()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def a_worker(self) -> str:
        """Any."""
        return self.random.choice(self.crew.workers)

    def kill_at(self, name: str, point: str) -> bool:
        """A process dies as soon as it comes to a point; False where it was killed elsewhere, since it did not."""
        pid = self.pids[name]
        path = fuse(self.crew.fuses, point, pid)
        path.touch()
        with suppress(TooLate):
            wait_until(lambda: not path.exists(), point, MISSED)
            self.died = time.monotonic()
            return True
        path.unlink(missing_ok=True)
        self.kill(name)
        return False

    def kill_with_successor(self, name: str) -> None:
        """It dies, and the one in its place as it has just opened the log."""
        path = fuse(self.crew.fuses, STARTED)
        path.touch()
        self.kill(name)
        wait_until(lambda: not path.exists(), f"a new {name} starts")


class Kind(NamedTuple):
    """A way to kill. do: returns whom, and whether it was where it was meant to be. processes: SIGKILLs."""

    name: str
    do: Callable[[Scene], tuple[Sequence[str], bool]]
    processes: int = 1


def _some(*names: str) -> Callable[[Scene], tuple[Sequence[str], bool]]:
    def do(scene: Scene) -> tuple[Sequence[str], bool]:
        scene.kill(*names)
        return names, True

    return do


def _worker(scene: Scene) -> tuple[Sequence[str], bool]:
    name = scene.a_worker()
    scene.kill(name)
    return [name], True


def _leader_and_worker(scene: Scene) -> tuple[Sequence[str], bool]:
    names = [LEADER, scene.a_worker()]
    scene.kill(*names)
    return names, True


def _workers(scene: Scene) -> tuple[Sequence[str], bool]:
    scene.kill(*scene.crew.workers)
    return scene.crew.workers, True


def _leader_at(point: str) -> Callable[[Scene], tuple[Sequence[str], bool]]:
    return lambda scene: ([LEADER], scene.kill_at(LEADER, point))


def _worker_at(point: str) -> Callable[[Scene], tuple[Sequence[str], bool]]:
    def do(scene: Scene) -> tuple[Sequence[str], bool]:
        name = scene.a_worker()
        return [name], scene.kill_at(name, point)

    return do


def _leader_twice(scene: Scene) -> tuple[Sequence[str], bool]:
    scene.kill_with_successor(LEADER)
    return [LEADER], True


def _worker_twice(scene: Scene) -> tuple[Sequence[str], bool]:
    name = scene.a_worker()
    scene.kill_with_successor(name)
    return [name], True


def _parent(scene: Scene) -> tuple[Sequence[str], bool]:
    scene.kill_pids(scene.crew.parent)
    scene.crew.start_again()
    return scene.crew.names, True


def _everybody(scene: Scene) -> tuple[Sequence[str], bool]:
    scene.kill_pids(scene.crew.parent, *scene.pids.values())
    scene.crew.start_again()
    return scene.crew.names, True


KINDS = (
    Kind("a worker", _worker),
    Kind("both workers", _workers, 2),
    Kind("the leader", _some(LEADER)),
    Kind("the leader and a worker", _leader_and_worker, 2),
    Kind("the parent", _parent),
    Kind("parent and children", _everybody, 4),
    Kind("a worker before its commit", _worker_at("before commit")),
    Kind("a worker after its commit, before the answer", _worker_at("after commit")),
    Kind("a worker, and its successor at its start", _worker_twice, 2),
    Kind("the leader, and its successor at its start", _leader_twice, 2),
    Kind("the leader as it learns", _leader_at("learning")),
    Kind("the leader in a model's file", _leader_at("model file")),
    Kind("the leader before it publishes", _leader_at("before publishing")),
    Kind("the leader after it published", _leader_at("published")),
    Kind("the leader before it stores a model", _leader_at("before storing")),
    Kind("the leader after it stored a model", _leader_at("stored")),
)
