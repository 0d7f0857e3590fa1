"""The threads of ExperimentService: applying a version reads much of the log, and decisions never wait behind that; nor
do those that only read. Called by the ports of gRPC.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from decider.server.intake import Run

APPLIERS, READERS = 4, 2
"""Threads that apply versions, and that read them: while somebody keeps the log locked, only changes have to wait."""

READS = ("Get", "List")
"""Begin the names of methods that write nothing."""

LONGEST_APPLY = 3.0
"""Seconds that a stop waits for versions that are being applied."""


class ExperimentThreads:
    """Of one port."""

    def __init__(self) -> None:
        self._applying = ThreadPoolExecutor(APPLIERS, "experiments")
        self._reading = ThreadPoolExecutor(READERS, "readers")

    def run_of(self, method: str) -> Run:
        """What runs the calls of this method."""
        return self._reading.submit if method.startswith(READS) else self._applying.submit

    def wait_for_applying(self) -> None:
        """Wait until no version is being applied."""
        # The pool has APPLIERS threads: only when all of them are free can they meet at the barrier.
        meeting = threading.Barrier(APPLIERS)
        for free in [self._applying.submit(meeting.wait, LONGEST_APPLY) for _ in range(APPLIERS)]:
            with suppress(threading.BrokenBarrierError):
                free.result()

    def shutdown(self) -> None:
        """End the threads. After the server: gRPC's own thread dies if a pool refuses a call."""
        for pool in (self._applying, self._reading):
            pool.shutdown()
