"""Starts and drains servers: one that leads and serves in one process, and the two kinds of processes that share a log.
Called by `decider serve` and `supervise.py`.

Worker and leader communicate through the log, also in one process: the leader publishes models into it, the follower
reads them from it.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping

from decider.log.clock import LogClock
from decider.log.protocol import EventLog
from decider.server.grpc_port import GrpcPort
from decider.server.leading import FILES_INTERVAL, NO_EXPERIMENT, LeaderPart
from decider.server.listeners import listeners
from decider.server.process import Process
from decider.server.settings import Settings
from decider.server.worker import Worker
from decider.serving.follower import Copies

logger = logging.getLogger(__name__)

LAST_WRITES = 0.3
"""Share of the grace period for storing models and flushing the log."""

DRAIN_SHARE = 0.9
"""Of the grace period: when the rest begins, what is under way is given up. Whoever ends processes does it when the
period is over."""

SHORTEST_STOP = 3.0
"""Seconds that a stop may take however short the grace period is: a model that is not stored is learned again."""


class LeaderServer:
    """Leads a log, and serves HTTP. `start`, then `stop`; `http_port` is the real one.

    listening: the socket of the HTTP port, where it is open already. clock: of the log; the wall clock, as far as
    elapsed time confirms it. files_interval: see FILES_INTERVAL. copies: where models are put for workers.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        listening: socket.socket | None = None,
        clock: LogClock | None = None,
        files_interval: float = FILES_INTERVAL,
        copies: Copies | None = None,
    ) -> None:
        self._settings = settings
        self._process = Process(settings, clock=clock or LogClock(), copies=copies or Copies())
        self._leading = LeaderPart(self._process, listening=listening, files_interval=files_interval)

    @property
    def log(self) -> EventLog:
        """Once it is open."""
        return self._process.log

    @property
    def http_port(self) -> int:
        """Once it listens."""
        return self._leading.http_port

    def start(self) -> bool:
        """Start; False if it was asked to stop before it took calls. Raises DeciderError; then nothing stays open.

        /healthz answers from the first moment on; /readyz shows the progress until calls are taken.
        """
        try:
            self._open()
            self._leading.phase = "learning"
            if not self._leading.catch_up():
                return False
            self._process.follower.follow()
            self._begin()
        except BaseException:
            self._process.stopping.set()
            self._process.opened.close()
            raise
        if not self._process.current.all():
            logger.warning("%s", NO_EXPERIMENT)
        self._leading.phase = ""
        return True

    def _open(self) -> None:
        self._process.open_access()
        self._leading.listen()
        self._process.open(ready=lambda: self._leading.readiness().ready)
        self._leading.open()

    def _begin(self) -> None:
        """Start the threads."""
        self._leading.begin()
        self._process.start()

    def request_stop(self) -> None:
        """Ask the server to stop; a signal handler may call it. A start that still learns ends, `wait` returns."""
        self._process.stopping.set()

    def request_look(self) -> None:
        """As LeaderPart's."""
        self._leading.request_look()

    def wait(self, seconds: float) -> bool:
        """Wait until `request_stop` is called, at most so many seconds. Returns whether it was."""
        return self._process.stopping.wait(seconds)

    def stop(self, grace: float | None = None) -> None:
        """Drain: set NOT_SERVING, finish calls in flight, learn, publish and store what is sealed, flush the log; all
        within so many seconds, by default those of the settings."""
        seconds = self._settings.grace if grace is None else grace
        if not in_time(lambda: self._stop(seconds), seconds):
            logger.error("the grace period is over; what is not written yet is learned again at the next start")

    def _stop(self, grace: float) -> None:
        # Calls first, then learning, then the log: a decision that was answered is learned, and nothing is appended to
        # a log that is closed.
        deadline = time.monotonic() + DRAIN_SHARE * grace
        process, leading = self._process, self._leading
        process.stopping.set()
        if not leading.phase:
            self._drain(deadline)
            if not process.join(deadline):  # one call of Vowpal Wabbit may take longer
                logger.error("the leader is still at work; what it has not stored is learned again at the next start")
                process.opened.pop_all()  # its thread reads the log until the process ends
                return
            leading.finish_learning(deadline - LAST_WRITES * grace)
        leading.finish(deadline)
        if not leading.stop_listening(deadline):
            logger.error("a request over HTTP is still at work; its work ends with the process")
            process.opened.pop_all()  # it reads the log
            return
        process.try_to(process.opened.close)

    def _drain(self, deadline: float) -> None:
        """Finish what callers of gRPC wait for: it has none."""


class Server(LeaderServer):
    """Everything in one process. `start`, then `stop`; `port` is gRPC's real one. See LeaderServer."""

    def __init__(
        self,
        settings: Settings,
        *,
        listening: socket.socket | None = None,
        clock: LogClock | None = None,
        files_interval: float = FILES_INTERVAL,
    ) -> None:
        super().__init__(settings, listening=listening, clock=clock, files_interval=files_interval)
        self._worker = Worker(self._process, progress=self._leading.progress)

    @property
    def grpc_port(self) -> GrpcPort:
        """The one for decisions, once it is open."""
        return self._worker.grpc_port

    @property
    def port(self) -> int:
        """Its number."""
        return self.grpc_port.port

    @property
    def grpc_addresses(self) -> Mapping[str, str]:
        """Where gRPC listens, by option."""
        return self._worker.addresses

    def _open(self) -> None:
        super()._open()
        self._worker.open(listeners(self._settings))

    def _begin(self) -> None:
        super()._begin()
        self._worker.start()

    def _drain(self, deadline: float) -> None:
        self._worker.drain(deadline)


def in_time(stop: Callable[[], None], grace: float) -> bool:
    """Whether a stop has ended within the grace period.

    A log that somebody else keeps locked, and a disk that does not answer, hold up one write after the other. To leave
    them is as safe as a kill: nobody was told that they are done.
    """
    drain = threading.Thread(target=stop, name="stop", daemon=True)
    drain.start()
    drain.join(max(grace, SHORTEST_STOP))
    return not drain.is_alive()
