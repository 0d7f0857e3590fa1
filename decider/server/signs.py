"""Whether a process that says nothing hangs, as far as the system tells (Linux). Called by `supervise.py`.

A process that stands still, or waits for a lock that nobody gives back, takes no processor time. One in a long call of
Vowpal Wabbit, which lets no other thread run, does; one that waits for a slow disk cannot be helped by a kill.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

WORKS = 0.1
"""Of the time: who takes more of a processor than that works."""

PATIENCE = 10
"""Times the bound, for one that works: then it does so in a circle."""

_TICKS = os.sysconf("SC_CLK_TCK")
_DISK = "D"


def processor_seconds(pid: int) -> float:
    """Processor time of a process so far; 0 where there is none."""
    with suppress(OSError):
        fields = _fields(Path(f"/proc/{pid}/stat"))
        return (int(fields[11]) + int(fields[12])) / _TICKS
    return 0.0


def waits_for_disk(pid: int) -> bool:
    """Whether a thread of it waits for a disk, in a way that no signal ends."""
    with suppress(OSError):
        return any(_fields(path / "stat")[0] == _DISK for path in Path(f"/proc/{pid}/task").iterdir())
    return False


def _fields(path: Path) -> list[str]:
    """Behind the name, which may hold anything: see proc_pid_stat(5)."""
    return path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


class Silence:
    """How long a process has said nothing, by the time that its parent itself was there. pid: its process id."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.seconds = 0.0
        self._spent = 0.0

    def end(self) -> None:
        """It has said something."""
        self.seconds, self._spent = 0.0, processor_seconds(self._pid)

    def is_hung(self, bound: float) -> bool:
        """Whether it has to end. bound: seconds."""
        if self.seconds < bound or waits_for_disk(self._pid):
            return False
        works = processor_seconds(self._pid) - self._spent > WORKS * self.seconds
        return not works or self.seconds >= PATIENCE * bound
