"""Tasks on Ray: on this machine, or on a cluster that runs already. Called through `engine.py`.

A worker that dies is replaced, and its task runs again: tasks are pure, so nothing is lost and nothing changes. Other
machines must have the same code, packages and files; a worker looks for that before it computes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import islice
from types import ModuleType
from typing import Any

from simulator.run.engine import EngineUnavailable, R, SweepFailed, T, WorkerDied, call, not_done

RETRIES = 3
"""How often a task runs again because its worker died; a task that dies every time is out of memory."""

MOST_WAITING = 1_000
"""Tasks that Ray holds at a time; it starts them as cores become free."""

OBJECT_STORE = 80 * 2**20
"""Bytes of shared memory; results are far smaller. Ray takes no less than 75 MiB."""

REACHED = 5.0
"""Seconds within which the head node must answer. Ray itself would try for 30."""

CONNECTS = 4
"""How often a client asks. Under load 2 of 12 times failed where the head node's gRPC had its fork handlers on."""

LOOPBACK = "127.0.0.1"

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to anybody
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux, too: a Ray of this machine alone listens on loopback alone
    "AUTOSCALER_METRIC_PORT": "0",  # no metrics on all addresses
}
"""Of the environment, unless it has them already. Ray reads them when it is imported."""


@dataclass(frozen=True, slots=True)
class RayTasks:
    """See Engine. address: of a cluster's head node, for clients; None starts Ray here and ends it with the sweep.

    workers: tasks at a time; None: as many as there are cores here, or in the cluster.
    """

    address: tuple[str, int] | None
    workers: int | None = None

    def held(self) -> AbstractContextManager[None]:
        """See Engine. What this process has already is used, and left to whoever started it."""
        ray = imported()
        if self.address:
            return nullcontext() if ray.util.client.ray.is_connected() else _reached(ray, self.address)
        return nullcontext() if ray.is_initialized() else started(ray, self.workers or os.cpu_count() or 1)

    def run(self, tasks: Sequence[T], function: Callable[[T], R], version: Callable[[T], str]) -> Iterator[tuple[T, R]]:
        """See Engine."""
        with self.held():
            yield from _run(imported(), tasks, function, version, most=self.workers or MOST_WAITING)


def _run(
    ray: Any, tasks: Sequence[T], function: Callable[[T], R], version: Callable[[T], str], *, most: int
) -> Iterator[tuple[T, R]]:
    remote = ray.remote(max_retries=RETRIES, num_cpus=1)(_outcome)
    shared = ray.put((function, version))
    coming = iter(tasks)
    running: dict[Any, T] = {}
    while True:
        for task in islice(coming, most - len(running)):
            running[remote.remote(shared, task, version(task))] = task
        if not running:
            return
        for done in ray.wait(list(running))[0]:
            value, failed = _value(ray, done, running)
            if failed:
                raise SweepFailed(failed)
            yield running.pop(done), value


def _outcome(shared: tuple[Callable[[T], R], Callable[[T], str]], task: T, expected: str) -> tuple[R | None, str]:
    """What a worker does: the result, or why there is none. Errors are texts: Ray would wrap them."""
    function, version = shared
    try:
        here = version(task)
        if here != expected:
            return None, (
                f"{task} was not run: a worker's machine has other code, packages or files ({here}) than this one "
                f"({expected}); install the same ones everywhere, files under the same paths and with their times"
            )
        return call(function, task), ""
    except SweepFailed as error:
        return None, str(error)


def _value(ray: Any, done: Any, running: dict[Any, T]) -> tuple[Any, str]:
    """What `_outcome` gave. Raises WorkerDied; SweepFailed where a worker could not even begin."""
    try:
        value: tuple[Any, str] = ray.get(done)
    except ray.exceptions.RayTaskError as error:  # as where the other machine lacks our code
        raise SweepFailed(
            f"{running[done]} failed: {error.cause!r}; is decider[ray] of this version on every machine of the cluster?"
        ) from error
    except (ray.exceptions.RayError, ConnectionError) as error:
        left = [running[done], *[task for one, task in running.items() if one != done]]
        raise WorkerDied(
            f"a worker of Ray was ended from outside {1 + RETRIES} times (killed, or out of memory: try fewer workers)"
            f", or the cluster is gone ({type(error).__name__}); {not_done(left)}"
        ) from error
    return value


def imported() -> ModuleType:
    """Ray. Raises EngineUnavailable."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise EngineUnavailable("Ray is not installed here: in its source folder, pip install '.[ray]'") from error
    found: ModuleType = ray  # without its types where it is not installed
    return found


@contextmanager
def started(ray: Any, cores: int) -> Iterator[None]:
    """A Ray of this machine alone, which nobody else can reach."""
    try:
        ray.init(
            "local",
            num_cpus=cores,
            num_gpus=0,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE,
            log_to_driver=False,
            logging_level="ERROR",
            _node_ip_address=LOOPBACK,
        )
    except Exception as error:  # of any kind: Ray starts eight programs
        raise EngineUnavailable(f"Ray does not start here: {type(error).__name__}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _connect(ray: Any, url: str) -> None:
    """As a client. The head node starts a process for each, which at times dies as it begins: then once more."""
    for _ in range(CONNECTS - 1):
        with suppress(ConnectionAbortedError):
            ray.init(url, log_to_driver=False, logging_level="ERROR")
            return
    ray.init(url, log_to_driver=False, logging_level="ERROR")


@contextmanager
def _reached(ray: Any, address: tuple[str, int]) -> Iterator[None]:
    """A cluster, as its client; it runs on when we leave."""
    host, port = address
    url = f"ray://{f'[{host}]' if ':' in host else host}:{port}"
    try:
        socket.create_connection(address, REACHED).close()
        _connect(ray, url)
    except Exception as error:  # of any kind: it may be another program, or another version of Ray
        raise EngineUnavailable(
            f"{url}: no Ray cluster answers there ({error}); is it the client port of the head node, and is its Ray "
            f"{ray.__version__}?"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
