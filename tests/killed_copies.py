"""Backups and restores that kill themselves: before the first step, before the second and so on, until one is done.

Run as a program: WHAT (backup or restore) and a folder that holds `template`; each run works on a copy of that with its
step's number as its name. Used by `test_restore_crash.py`. A step is what Python tells its audit hooks of, and what is
told of progress: so a kill falls between any two changes of names, and into the copy.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from decider.log.open import back_up_log, restore_log

STEPS = {"os.link", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "sqlite3.connect", "shutil.rmtree"}


class Killer:
    """Kills this process at a step."""

    def __init__(self, step: int) -> None:
        self._left = step

    def hear(self, event: str, _: tuple[Any, ...]) -> None:
        """Of the interpreter."""
        if event in STEPS:
            self.step()

    def step(self, *_: object) -> None:
        """One more."""
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)


def restore(folder: Path, on_step: Callable[..., None]) -> None:
    """As `decider restore copy.db --db shop.db`."""
    log = folder / "shop.db"
    restore_log(
        folder / "copy.db", log, aside=folder / "shop.db.before-1", on_copied=on_step, on_checked=on_step
    )  # fmt: skip


def backup(folder: Path, on_step: Callable[..., None]) -> None:
    """As `decider backup copy.db --db shop.db --force`."""
    back_up_log(folder / "shop.db", folder / "copy.db", replace=True, on_copied=on_step, on_checked=on_step)


def run(work: Callable[[Path, Callable[..., None]], None], root: Path, step: int) -> bool:
    """In a process of its own; whether it came to its end."""
    folder = shutil.copytree(root / "template", root / str(step))
    pid = os.fork()
    if not pid:
        killer = Killer(step)
        sys.addaudithook(killer.hear)
        work(folder, killer.step)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.waitstatus_to_exitcode(status) == 0
    return True


if __name__ == "__main__":
    doing = {"backup": backup, "restore": restore}[sys.argv[1]]
    print(next(step for step in count(1) if run(doing, Path(sys.argv[2]), step)))
