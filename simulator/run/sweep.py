"""One pure function over many tasks, on all cores; a sweep that was killed goes on where it was. Called by commands.

Tasks and results are frozen dataclasses of plain values, and nothing else goes to a worker or comes from it: a cluster
engine could map the same function over the same tasks.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version as package_version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Generic, TypeVar

from decider.errors import DeciderError
from decider.policy.features import ENCODER_VERSION
from simulator.run.result_store import Place, place, prepared

T = TypeVar("T")
R = TypeVar("R")

PACKAGES = ("vowpal-wabbit-next", "numpy")
TOLD = 3
"""Tasks that an error names; it counts the others."""


class SweepFailed(DeciderError):
    """A task raised, or a worker died; what was done before is kept."""

    reason = "SWEEP_FAILED"


class WorkerDied(SweepFailed):
    """A worker process was ended from outside."""


def packages(_task: object = None) -> str:
    """The versions of what computes every result.

    >>> packages().startswith("encoder 1, vowpal-wabbit-next 0.7.0")
    True
    """
    return _packages()


@lru_cache
def _packages() -> str:
    return ", ".join([f"encoder {ENCODER_VERSION}", *[f"{name} {package_version(name)}" for name in PACKAGES]])


def sweep(
    tasks: Sequence[T],
    function: Callable[[T], R],
    *,
    result: type[R],
    folder: Path | None = None,
    workers: int | None = None,
    version: Callable[[T], str] = packages,
    on_done: Callable[[T, R], None] = lambda _task, _result: None,
) -> list[R]:
    """The function of every task, in the order of the tasks; equal tasks are run once.

    Tasks start in their order: put those next to each other that share what a process caches. function: importable by
    its name. result: what it returns. folder: keeps every result as soon as it is there; what it holds already is not
    run again. workers: processes; by default one a core. version(task): names all that the result depends on besides
    the task. on_done: told every result, those that were kept first.
    Raises SweepFailed, naming the task; KeyboardInterrupt, saying what is kept; OSError for the folder.
    """
    where = _Kept(folder, function, version)
    places = [where.place(task) for task in tasks]
    found: dict[str, R] = {}
    missing: dict[str, _Job[T, R]] = {}
    for task, (name, place_) in zip(tasks, places, strict=True):
        kept = place_.read(result) if place_ and name not in found else None
        if kept is not None:
            found[name] = kept
            on_done(task, kept)
        elif name not in found:
            missing.setdefault(name, _Job(function, task, place_))
    with _said(found, [name for name, _ in places], folder):
        for name, value in _run(missing, workers=min(workers or os.cpu_count() or 1, len(missing))):
            found[name] = value
            on_done(missing[name].task, value)
    return [found[name] for name, _ in places]


@dataclass(frozen=True, slots=True)
class _Job(Generic[T, R]):
    """A task on its way through a worker. place: where its result is kept, if anywhere."""

    function: Callable[[T], R]
    task: T
    place: Place | None

    def __call__(self) -> R:
        """The result, kept before anybody is told. Raises SweepFailed: not every error gets through to a process."""
        try:
            value = self.function(self.task)
            if self.place:
                self.place.write(value)
        except (Exception, SystemExit) as error:  # of any task
            what = f"{error}" if isinstance(error, DeciderError | OSError) else f"{type(error).__name__}: {error}"
            raise SweepFailed(f"{self.task} failed: {what}") from error
        return value


class _Kept:
    """Names every task, and says where its result is."""

    def __init__(self, folder: Path | None, function: Callable[..., Any], version: Callable[[Any], str]) -> None:
        self._folder = prepared(folder) if folder else None
        self._function = function
        self._version = version

    def place(self, task: Any) -> tuple[str, Place | None]:
        where = place(self._folder or Path(), self._function, task, self._version(task))
        return where.file.name, where if self._folder else None


def _run(jobs: dict[str, _Job[T, R]], *, workers: int) -> Iterator[tuple[str, R]]:
    """Every job's name and result, as they come."""
    if workers > 1:
        yield from _in_processes(jobs, workers)
    else:
        yield from ((name, job()) for name, job in jobs.items())


def _in_processes(jobs: dict[str, _Job[T, R]], workers: int) -> Iterator[tuple[str, R]]:
    """Workers live as long as one end of a pipe is open here, so they end at once with this process or its interest."""
    theirs, ours = get_context("spawn").Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_end_with, initargs=(theirs,))
    try:
        with _without_interrupts():
            futures = {pool.submit(job): name for name, job in jobs.items()}
        yield from _as_they_come(jobs, futures)
    finally:
        ours.close()
        pool.shutdown(cancel_futures=True)
        theirs.close()


def _as_they_come(jobs: dict[str, _Job[T, R]], futures: dict[Future[R], str]) -> Iterator[tuple[str, R]]:
    for future in as_completed(futures):
        try:
            yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise WorkerDied(_died([jobs[name].task for one, name in futures.items() if one.exception()])) from error


def _died(left: Sequence[object]) -> str:
    others = f" and {len(left) - TOLD} others" if len(left) > TOLD else ""
    return (
        "a worker process was ended from outside (killed, or out of memory: try fewer workers); "
        f"not done: {', '.join(map(str, left[:TOLD]))}{others}"
    )


@contextmanager
def _said(found: dict[str, Any], names: Sequence[str], folder: Path | None) -> Iterator[None]:
    """Who interrupts a sweep is told what became of the work."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        kept = f"kept in {folder}; the same again runs only what is missing" if folder else "not kept in any folder"
        raise KeyboardInterrupt(f"{len(found)} of {len(set(names))} tasks are done, {kept}") from interrupt


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """What is started here never gets Ctrl-C itself: workers are ended by who started them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with(pipe: Connection) -> None:
    """Called in every worker: ends it as soon as nobody holds the pipe's other end, whatever it is doing."""

    def watch() -> None:
        try:
            pipe.recv_bytes()
        except (EOFError, OSError):
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
