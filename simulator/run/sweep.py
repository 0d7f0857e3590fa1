"""One pure function over many tasks, on all cores; a sweep that was killed goes on where it was. Called by commands.

Tasks and results are frozen dataclasses of plain values, and nothing else goes to a worker or comes from it: a cluster
engine could map the same function over the same tasks.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version as package_version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Generic, TypeVar

from decider.errors import DeciderError
from decider.policy.features import ENCODER_VERSION
from simulator.run.result_store import ResultFile, make_folder, result_file

T = TypeVar("T", bound=Hashable)
R = TypeVar("R")

PACKAGES = ("vowpal-wabbit-next", "numpy")
MOST_NAMED = 3
"""Tasks that an error names; it counts the others."""


class SweepFailed(DeciderError):
    """A task raised, or a worker died; what was done before is kept."""

    reason = "SWEEP_FAILED"


class WorkerDied(SweepFailed):
    """A worker process was ended from outside."""


@cache
def packages() -> str:
    """The versions of what computes every result.

    >>> packages().startswith("encoder 1, vowpal-wabbit-next 0.7.0")
    True
    """
    return ", ".join([f"encoder {ENCODER_VERSION}", *[f"{name} {package_version(name)}" for name in PACKAGES]])


def sweep(
    tasks: Sequence[T],
    function: Callable[[T], R],
    *,
    result: type[R],
    folder: Path | None = None,
    workers: int | None = None,
    version: Callable[[T], str] = lambda _: packages(),
    on_done: Callable[[T, R], None] = lambda _task, _result: None,
) -> list[R]:
    """The function of every task, in the order of the tasks; equal tasks are run once.

    Tasks start in their order: put those next to each other that share what a process caches. function: importable by
    its name. result: the type that it returns. folder: keeps every result as soon as it is there; what it holds already
    is not run again. workers: processes; by default one per core. version(task): names all that the result depends on
    besides the task. on_done: called with every result, those that were kept first.
    Raises SweepFailed, naming the task; KeyboardInterrupt, saying what is kept; OSError for the folder.
    """
    results: dict[T, R] = {}
    files = _files(tasks, function, make_folder(folder), version) if folder else {}
    for task, file in files.items():
        kept = file.read(result)
        if kept is not None:
            results[task] = kept
            on_done(task, kept)
    missing = {task: _Job(function, task, files.get(task)) for task in tasks if task not in results}
    with _progress_on_interrupt(results, len(set(tasks)), folder):
        for task, value in _run(missing, workers=min(workers or os.cpu_count() or 1, len(missing))):
            results[task] = value
            on_done(task, value)
    return [results[task] for task in tasks]


def _files(
    tasks: Iterable[T], function: Callable[[T], R], folder: Path, version: Callable[[T], str]
) -> dict[T, ResultFile]:
    return {task: result_file(folder, function, task, version(task)) for task in dict.fromkeys(tasks)}


@dataclass(frozen=True, slots=True)
class _Job(Generic[T, R]):
    """A task on its way through a worker. file: where its result is kept, if anywhere."""

    function: Callable[[T], R]
    task: T
    file: ResultFile | None

    def __call__(self) -> R:
        """The result, kept before anybody hears of it. Raises SweepFailed: not every error can be sent back."""
        try:
            value = self.function(self.task)
            if self.file:
                self.file.write(value)
        except (Exception, SystemExit) as error:  # of any task
            what = f"{error}" if isinstance(error, DeciderError | OSError) else f"{type(error).__name__}: {error}"
            raise SweepFailed(f"{self.task} failed: {what}") from error
        return value


def _run(jobs: dict[T, _Job[T, R]], *, workers: int) -> Iterator[tuple[T, R]]:
    """Every task and its result, as they come."""
    if workers > 1:
        yield from _run_in_processes(jobs, workers)
    else:
        yield from ((task, job()) for task, job in jobs.items())


def _run_in_processes(jobs: dict[T, _Job[T, R]], workers: int) -> Iterator[tuple[T, R]]:
    # A worker ends once no process holds our end of this pipe: after SIGKILL of this process, and on leaving here.
    theirs, ours = get_context("spawn").Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_end_with, initargs=(theirs,))
    try:
        with _without_interrupts():
            futures = {pool.submit(job): task for task, job in jobs.items()}
        for future in as_completed(futures):
            try:
                yield futures[future], future.result()
            except BrokenProcessPool as error:
                raise WorkerDied(_died([task for one, task in futures.items() if one.exception()])) from error
    finally:
        ours.close()
        pool.shutdown(cancel_futures=True)
        theirs.close()


def _died(left: Sequence[object]) -> str:
    others = f" and {len(left) - MOST_NAMED} others" if len(left) > MOST_NAMED else ""
    return (
        "a worker process was ended from outside (killed, or out of memory: try fewer workers); "
        f"not done: {', '.join(map(str, left[:MOST_NAMED]))}{others}"
    )


@contextmanager
def _progress_on_interrupt(done: dict[T, R], total: int, folder: Path | None) -> Iterator[None]:
    """KeyboardInterrupt says what became of the work."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        kept = f"kept in {folder}; the same again runs only what is missing" if folder else "not kept in any folder"
        raise KeyboardInterrupt(f"{len(done)} of {total} tasks are done, {kept}") from interrupt


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes that are started in here never get Ctrl-C: who started the workers ends them."""
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
