"""Tasks on the cores of this machine, one process each. Called through `engine.py`."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

from simulator.run.engine import R, T, WorkerDied, call, not_done


@dataclass(frozen=True, slots=True)
class Processes:
    """See Engine. workers: None for one per core. One worker is this process itself."""

    workers: int | None = None

    def held(self) -> AbstractContextManager[None]:
        """See Engine. Processes are started for each run: what one has cached is of no use to the next."""
        return nullcontext()

    def run(
        self,
        tasks: Sequence[T],
        function: Callable[[T], R],
        version: Callable[[T], str],  # noqa: ARG002 - the protocol's; code and files are those of this process
    ) -> Iterator[tuple[T, R]]:
        """See Engine."""
        workers = min(self.workers or os.cpu_count() or 1, len(tasks))
        if workers > 1:
            yield from _run(tasks, function, workers)
        else:
            yield from ((task, call(function, task)) for task in tasks)


def _run(tasks: Sequence[T], function: Callable[[T], R], workers: int) -> Iterator[tuple[T, R]]:
    # A worker ends once no process holds our end of this pipe: after SIGKILL of this process, and on leaving here.
    theirs, ours = get_context("spawn").Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_end_with, initargs=(theirs,))
    try:
        with _without_interrupts():
            futures = {pool.submit(call, function, task): task for task in tasks}
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
    return f"a worker process was ended from outside (killed, or out of memory: try fewer workers); {not_done(left)}"


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
