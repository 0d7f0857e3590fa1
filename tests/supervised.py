"""A parent of a leader and a worker that do nothing, for `test_supervise.py`.

Run as a program: `python -m tests.supervised FOLDER`. A file in the folder says what a worker that starts then is like:
`fails`, `slow` (it starts once the file is gone), `sick` (its threads have stopped). A leader that starts where there
is `takes over` stands by until that is gone. While there is `waits`, all wait for something.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from pathlib import Path

from decider.errors import LogError
from decider.server.board import LEADER, Renewal
from decider.server.child import READY, STARTS, Say
from decider.server.supervise import Role, Supervisor


class Idle:
    """See ChildServer."""

    def __init__(self, folder: Path, say: Say, *, is_worker: bool) -> None:
        self._folder = folder
        self._say = say
        self._is_worker = is_worker
        self._stopping = threading.Event()
        self._left = False
        self._sick = False
        self._took_over = False

    def start(self) -> bool:
        """As the folder says."""
        if self._is_worker:
            if (self._folder / "fails").exists():
                raise LogError("it fails, as it should")
            while (self._folder / "slow").exists():
                time.sleep(0.02)
            self._sick = (self._folder / "sick").exists()
        elif (self._folder / "takes over").exists():
            while (self._folder / "takes over").exists():
                self._say(READY)
                time.sleep(0.02)
            self._say(STARTS)
            self._took_over = True
        return True

    def request_look(self) -> None:
        """Nothing to look at."""

    def request_leave(self, seconds: float) -> None:
        """At once."""
        self._left = seconds > 0

    def has_left(self) -> bool:
        """See ChildServer."""
        return self._left

    def request_stop(self) -> None:
        """See ChildServer."""
        self._stopping.set()

    def wait(self, seconds: float) -> bool:
        """See ChildServer. It has said by then that it is ready."""
        if self._took_over:
            (self._folder / "leads").touch()
        return self._stopping.wait(seconds)

    def is_well(self) -> bool:
        """See ChildServer."""
        return not self._sick

    def waits(self) -> bool:
        """See ChildServer."""
        return (self._folder / "waits").exists()

    def stop(self, grace: float | None = None) -> None:
        """Nothing to drain."""


def main(folder: Path) -> int:
    """The parent; the exit code."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)

    def tell(renewal: Renewal) -> None:
        print("renewal", *renewal.left, renewal.problem, flush=True)

    roles = [
        Role(LEADER, lambda _, say: Idle(folder, say, is_worker=False)),
        Role("worker 1", lambda _, say: Idle(folder, say, is_worker=True)),
    ]
    return Supervisor(
        roles, grace=1.0, leave=1.0, hung_after=2.0, on_serving=lambda: print("serving", flush=True), on_renewal=tell
    ).run()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
