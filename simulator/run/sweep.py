"""One pure function over many tasks, on many cores; a sweep that was killed goes on where it was. Called by commands.

Tasks and results are frozen dataclasses of plain values, and nothing else goes to a worker or comes from it: so it does
not matter which engine (`engine.py`) maps the function over them, nor on which machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version as package_version
from pathlib import Path

from decider.policy.features import ENCODER_VERSION
from simulator.run.engine import R, SweepFailed, T
from simulator.run.engines import PROCESSES, engine_of
from simulator.run.result_store import ResultFile, make_folder, result_file

PACKAGES = ("vowpal-wabbit-next", "numpy")


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
    on: str = PROCESSES,
    workers: int | None = None,
    version: Callable[[T], str] = lambda _: packages(),
    on_done: Callable[[T, R], None] = lambda _task, _result: None,
) -> list[R]:
    """The function of every task, in the order of the tasks; equal tasks are run once.

    Tasks start in their order: put those next to each other that share what a process caches. function: importable by
    its name. result: the type that it returns. folder: keeps every result as soon as it is there; what it holds already
    is not run again. on: the engine's name; workers: tasks at a time, by default one per core. version(task): names all
    that the result depends on besides the task. on_done: called with every result, those that were kept first.
    Raises SweepFailed, naming the task; KeyboardInterrupt, saying what is kept; OSError for the folder.
    """
    engine = engine_of(on, workers=workers)
    results: dict[T, R] = {}
    files = _files(tasks, function, make_folder(folder), version) if folder else {}
    for task, file in files.items():
        kept = file.read(result)
        if kept is not None:
            results[task] = kept
            on_done(task, kept)
    missing = [task for task in dict.fromkeys(tasks) if task not in results]
    with _progress_on_interrupt(results, len(set(tasks)), folder):
        for task, value in engine.run(missing, function, version) if missing else ():
            if task in files:
                _keep(files[task], task, value)
            results[task] = value
            on_done(task, value)
    return [results[task] for task in tasks]


def _files(
    tasks: Iterable[T], function: Callable[[T], R], folder: Path, version: Callable[[T], str]
) -> dict[T, ResultFile]:
    return {task: result_file(folder, function, task, version(task)) for task in dict.fromkeys(tasks)}


def _keep(file: ResultFile, task: T, value: R) -> None:
    # Here, not in the worker: another machine need not have this folder.
    try:
        file.write(value)
    except OSError as error:
        raise SweepFailed(f"{task} cannot be kept: {error}") from error


@contextmanager
def _progress_on_interrupt(done: dict[T, R], total: int, folder: Path | None) -> Iterator[None]:
    """KeyboardInterrupt says what became of the work."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        kept = f"kept in {folder}; the same again runs only what is missing" if folder else "not kept in any folder"
        raise KeyboardInterrupt(f"{len(done)} of {total} tasks are done, {kept}") from interrupt
