r"""What runs the tasks of a sweep: one protocol, with processes of this machine or Ray behind it. Called by `sweep.py`.

sweep --> engine_of(on) --> Processes (`processes.py`)
                       \--> RayTasks  (`ray_tasks.py`), of this machine or of a cluster
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from threadpoolctl import threadpool_limits

from decider.errors import DeciderError

T = TypeVar("T", bound=Hashable)
R = TypeVar("R")

MOST_NAMED = 3
"""Tasks that an error names; it counts the others."""


class SweepFailed(DeciderError):
    """A task raised, or a worker died; what was done before is kept."""

    reason = "SWEEP_FAILED"


class WorkerDied(SweepFailed):
    """A worker process was ended from outside."""


class EngineUnavailable(SweepFailed):
    """There is no such engine here, or its cluster cannot be reached. No task was run."""


class Engine(Protocol):
    """Maps a pure function over tasks. Tasks start in their order; results come as they are ready."""

    def held(self) -> AbstractContextManager[None]:
        """Inside, what a run needs is started once for several of them. Raises EngineUnavailable."""

    def run(self, tasks: Sequence[T], function: Callable[[T], R], version: Callable[[T], str]) -> Iterator[tuple[T, R]]:
        """Each of the (distinct) tasks with its result. version(task): all that the result depends on besides the task.

        Raises SweepFailed, naming the task; WorkerDied; EngineUnavailable.
        """


def call(function: Callable[[T], R], task: T) -> R:
    """The task's result. Raises SweepFailed, with the task's name: not every error can be sent from a worker."""
    try:
        # Matrix libraries add up in another order with another number of threads, so figures would depend on the cores.
        with threadpool_limits(1):
            return function(task)
    except (Exception, SystemExit) as error:  # of any task
        what = f"{error}" if isinstance(error, DeciderError | OSError) else f"{type(error).__name__}: {error}"
        raise SweepFailed(f"{task} failed: {what}") from error


def not_done(left: Sequence[object]) -> str:
    """The first tasks that have no result, for an error.

    >>> not_done(["a", "b", "c", "d"])
    'not done: a, b, c and 1 others'
    """
    others = f" and {len(left) - MOST_NAMED} others" if len(left) > MOST_NAMED else ""
    return f"not done: {', '.join(map(str, left[:MOST_NAMED]))}{others}"
