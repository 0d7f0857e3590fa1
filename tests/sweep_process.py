"""Functions and tasks for tests of sweeps, and a process: `python -m tests.sweep_process KEEP NOTES TASKS SECONDS ON`.

Apart from the tests, so that a worker process starts fast.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Job:
    """notes: a file that is told who starts. seconds: how long it takes."""

    number: int
    notes: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Square:
    """What comes out."""

    of: Job
    value: float


def square(job: Job) -> Square:
    """The square of its number, after a while."""
    if job.notes:
        with Path(job.notes).open("a", encoding="utf-8") as notes:
            notes.write(f"{os.getpid()} {job.number}\n")
    time.sleep(job.seconds)
    return Square(job, job.number**2 / 3)


def square_or_die(job: Job) -> Square:
    """The third is killed, as by a system that is out of memory."""
    if job.number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(job)


def process_of(_: Job) -> str:
    """A version that no two processes have."""
    return f"process {os.getpid()}"


def square_or_raise(job: Job) -> Square:
    """The third raises."""
    if job.number == 3:
        raise ZeroDivisionError("three is no number for me")
    return square(job)


def jobs(notes: Path, count: int, seconds: float = 0.1) -> list[Job]:
    """Of these numbers."""
    return [Job(number, f"{notes}", seconds) for number in range(count)]


def noted(notes: Path) -> list[tuple[int, int]]:
    """Process and number of every start."""
    lines = notes.read_text(encoding="utf-8").splitlines() if notes.exists() else []
    return [(int(line.split()[0]), int(line.split()[1])) for line in lines]


if __name__ == "__main__":
    from simulator.commands.options import bad_input  # not in its workers, which import this file, too
    from simulator.run.sweep import sweep
    from tests.sweep_process import Square as Found
    from tests.sweep_process import square as function

    keep_, notes_, count_, seconds_, on_ = sys.argv[1:]
    todo = jobs(Path(notes_), int(count_), float(seconds_))
    with bad_input():
        sweep(todo, function, result=Found, folder=Path(keep_), on=on_, workers=2)
