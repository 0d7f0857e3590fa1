"""Whether a process that says nothing hangs, as far as the system tells (Linux). Called by `supervise.py`.

A process that was stopped, or waits for a lock that nobody gives back, runs nothing. One in a long call of Vowpal
Wabbit, which lets no other thread run, does; one on a machine with too little processor wants to; and one that waits
for a slow disk cannot be helped by a kill.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

PATIENCE = 10
"""Times the bound, for one that runs: then it does so in a circle."""

SHORT = 1.0
"""Seconds of silence that say nothing, so nobody looks."""

RUNS, WAITS_FOR_DISK = "R", "D"


def thread_states(pid: int) -> set[str]:
    """Of all threads of a process: see proc_pid_stat(5). Empty where there is none, or the system does not tell."""
    states = set[str]()
    with suppress(OSError):
        for path in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):  # it has just ended
                text = (path / "stat").read_text(encoding="utf-8", errors="replace")
                states.add(text.rpartition(")")[2].split()[0])  # behind its name, which may hold anything
    return states


class Silence:
    """How long a process has said nothing. pid: its process id. seconds: in all."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.seconds = 0.0
        self._idle = 0.0

    def end(self) -> None:
        """It has said something."""
        self.seconds = self._idle = 0.0

    def is_hung(self, passed: float, bound: float) -> bool:
        """Whether it has to end. passed: seconds since the look before, in which it has said nothing. bound: seconds
        in which nothing of it ran."""
        self.seconds += passed
        if self.seconds <= SHORT:
            return False
        states = thread_states(self._pid)
        if not states & {RUNS, WAITS_FOR_DISK}:
            self._idle += passed
        return self._idle >= bound or (self.seconds >= PATIENCE * bound and WAITS_FOR_DISK not in states)
