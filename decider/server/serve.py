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
from decider.log.protocol import EventLog, Lease
from decider.server.board import Board, Reporter, worker_name
from decider.server.crew import Crew, NoCrew, Workers
from decider.server.grpc_port import GrpcPort, shared
from decider.server.leading import FILES_INTERVAL, NO_EXPERIMENT, LeaderPart
from decider.server.listeners import listeners
from decider.server.process import Process
from decider.server.settings import Settings
from decider.server.worker import Worker
from decider.serving.follower import Copies, Owner
from decider.serving.model_files import LeaderFiles, ModelFiles

logger = logging.getLogger(__name__)

LAST_WRITES = 0.3
"""Share of the grace period for storing models and flushing the log."""

REPORT_INTERVAL = 1.0
"""Seconds between two reports of a worker, and of a leader to its workers."""

HANDOVER_INTERVAL = 0.02
"""Seconds between two looks whether a predecessor has stopped to report under the name of both."""

DRAIN_SHARE = 0.9
"""Of the grace period: when the rest begins, what is under way is given up. Whoever ends processes does it when the
period is over."""

SHORTEST_STOP = 3.0
"""Seconds that a stop may take however short the grace period is: a model that is not stored is learned again."""


class _Leading:
    """Leads a log, and serves HTTP. `start`, then `stop`; `http_port` is the real one.

    listening: the socket of the HTTP port, where it is open already. clock: of the log; the wall clock, as far as
    elapsed time confirms it. files_interval: see FILES_INTERVAL. copies: where models are put. crew: who serves.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        listening: socket.socket | None,
        clock: LogClock | None,
        files_interval: float,
        copies: Copies,
        crew: Crew,
    ) -> None:
        self._settings = settings
        self._process = Process(settings, clock=clock or LogClock(), copies=copies)
        self._leading = LeaderPart(self._process, listening=listening, files_interval=files_interval, crew=crew)

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
            if not self._open():
                return False
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

    def _open(self) -> bool:
        """Everything but the learning and the calls; False if it was asked to stop meanwhile."""
        self._process.open_access()
        self._leading.listen()
        if not self._process.open(ready=lambda: self._leading.readiness().ready, on_wait=self._leading.say_phase):
            return False
        lease = self._take_lease()
        if lease is None:
            return False
        self._leading.open(lease)
        return True

    def _take_lease(self) -> Lease | None:
        """The right to lead; None where it was asked to stop before. Raises LogLocked where another process leads."""
        return self._process.log.lease()

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


class LeaderServer(_Leading):
    """Leads a log, whose workers are processes of their own. `start`, then `stop`. board: where they report."""

    def __init__(self, settings: Settings, *, listening: socket.socket, board: Board) -> None:
        super().__init__(
            settings,
            listening=listening,
            clock=None,
            files_interval=FILES_INTERVAL,
            copies=LeaderFiles(board.folder),
            crew=Workers(board, settings.workers),
        )
        self._board = board

    def _open(self) -> bool:
        if not super()._open():
            return False
        self._board.remove_others(self._settings.db)
        return True

    def _begin(self) -> None:
        super()._begin()
        self._leading.tell_crew()
        self._process.run(self._tell_crew, "board")

    def request_leave(self, seconds: float) -> None:  # noqa: ARG002 - as a worker is asked
        """A log has one leader, so it ends before its successor leads."""
        self.request_stop()

    def has_left(self) -> bool:
        """It never leaves without being stopped."""
        return False

    def waits(self) -> bool:
        """For the log's database."""
        return self._process.waits()

    def is_well(self) -> bool:
        """Whether it goes on with its rounds."""
        return self._leading.has_gone_on()

    def _tell_crew(self) -> None:
        while not self._process.stopping.wait(REPORT_INTERVAL):
            self._tell_crew_once()

    def _tell_crew_once(self) -> None:
        self._process.try_to(self._leading.tell_crew)


class WorkerServer:
    """Serves, beside a leader and other workers on this machine. `start`, then `stop`. settings: with real ports, which
    all workers share. beside: of a process that it takes the place of, and which still serves."""

    def __init__(self, settings: Settings, *, number: int, board: Board, beside: bool = False) -> None:
        self._settings = settings
        self._board = board
        self._process = Process(settings, clock=LogClock(), copies=ModelFiles(board.folder))
        self._worker = Worker(self._process, progress=lambda: board.leader_state().progress, sharing=shared(settings))
        self._reporter = Reporter(board, worker_name(number), self._process.registry, beside=beside)
        self._beside = beside
        self._held: dict[Owner, str] = {}
        self._leaves_until: float | None = None

    def start(self) -> bool:
        """Take calls; False if it was asked to stop before. Raises DeciderError."""
        process = self._process
        try:
            process.open_access()
            if not process.open(ready=lambda: not self._problem()):
                return False
            process.name_build()
            self._look_at_board()
            process.follower.follow()
            self._worker.open(listeners(self._settings))
            process.start()
            self._worker.start()
            if not self._beside:
                self._reporter.report("")
            process.run(self._report, "board")
        except BaseException:
            process.stopping.set()
            process.opened.close()
            raise
        return not process.stopping.is_set()

    def _problem(self) -> str:
        """Why it should get no calls."""
        if self._process.stopping.is_set():
            return "is stopping"
        if self._process.log.trouble is not None:
            return str(self._process.log.trouble)
        behind = self._process.behind
        return f"does not follow the log: {behind}" if behind else ""

    def _report(self) -> None:
        if self._beside:
            self._wait_for_name()
        while not self._process.stopping.wait(REPORT_INTERVAL):
            self._process.look_after_log()
            self._process.try_to(self._look_at_board)
            self._process.try_to(self._tell)

    def _tell(self) -> None:
        warnings = [text for warnings in self._process.warnings for text in warnings()]
        if self._process.log.hosts is not None and self._process.clock.problem:  # the leader may have another clock
            warnings.append(self._process.clock.problem)
        self._reporter.report(self._problem(), warnings)

    def _wait_for_name(self) -> None:
        """Who reported under it counts on under another one: counts of both together never fall."""
        end = time.monotonic() + REPORT_INTERVAL
        while not (self._process.stopping.wait(HANDOVER_INTERVAL) or self._reporter.is_free()):
            if time.monotonic() > end:
                break
        self._tell()

    def _look_at_board(self) -> None:
        state, process = self._board.leader_state(), self._process
        for owner, problem in state.held.items():
            process.follower.hold(owner, problem)
        for owner in self._held.keys() - state.held.keys():
            process.follower.release(owner)
        self._held = dict(state.held)
        for id_ in state.forgotten:
            process.forget(id_)
        self._reporter.forget(state.forgotten)

    def request_stop(self) -> None:
        """Ask it to stop; a signal handler may call it."""
        self._process.stopping.set()

    def request_look(self) -> None:
        """Experiment files are the leader's."""

    def request_leave(self, seconds: float) -> None:
        """Let no new connection come, and wait until gRPC has asked those that are there to go elsewhere, at most so
        many seconds. Nothing is refused meanwhile."""
        self._reporter.leave()
        self._worker.stop_listening()
        self._leaves_until = time.monotonic() + seconds

    def has_left(self) -> bool:
        """Whether no connection is left, or the time is over."""
        if self._leaves_until is None:
            return False
        return time.monotonic() > self._leaves_until or not self._worker.has_connections()

    def waits(self) -> bool:
        """For the log's database."""
        return self._process.waits()

    def is_well(self) -> bool:
        """Whether the threads that answer do so. While the log cannot be written, calls wait for it, and that is no
        reason to end them."""
        return self._worker.answers() or self._process.log.trouble is not None

    def wait(self, seconds: float) -> bool:
        """Wait until `request_stop` is called, at most so many seconds. Returns whether it was."""
        return self._process.stopping.wait(seconds)

    def stop(self, grace: float | None = None) -> None:
        """Drain: set NOT_SERVING and finish calls in flight, within so many seconds; by default of the settings."""
        seconds = self._settings.grace if grace is None else grace
        if not in_time(lambda: self._stop(seconds), seconds):
            logger.error("the grace period is over; the calls that are left end with the process")

    def _stop(self, grace: float) -> None:
        process, deadline = self._process, time.monotonic() + DRAIN_SHARE * grace
        process.stopping.set()
        self._worker.drain(deadline)
        self._reporter.report("is stopping")
        if process.join(deadline):
            process.try_to(process.opened.close)


class Server(_Leading):
    """Everything in one process. `start`, then `stop`; `port` is gRPC's real one. See _Leading."""

    def __init__(
        self,
        settings: Settings,
        *,
        listening: socket.socket | None = None,
        clock: LogClock | None = None,
        files_interval: float = FILES_INTERVAL,
    ) -> None:
        super().__init__(
            settings,
            listening=listening,
            clock=clock,
            files_interval=files_interval,
            copies=Copies(),
            crew=NoCrew(),
        )
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
        """Where calls are taken, by option: gRPC's and the web port's."""
        return self._worker.addresses

    def _open(self) -> bool:
        if not super()._open():
            return False
        self._worker.open(listeners(self._settings))
        return True

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
