"""Starts and drains a server: log, follower, leader, metrics and ports in one process. Called by `decider serve`.

Worker and leader communicate through the log, as in separate processes: the leader publishes models into it, the
follower reads them from it.
"""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from decider.decide.decide import RULES
from decider.errors import DeciderError, LogBusy, LogError
from decider.learn.guard import Guard, describe
from decider.learn.guardrails import Guardrails
from decider.learn.leader import Leader, Pace, Progress
from decider.learn.left_out import LeaveOuts, open_in_words
from decider.learn.limits import Limits, largest_definition
from decider.learn.versions import Versions
from decider.log.clock import LogClock
from decider.log.disk import DiskWatch
from decider.log.evicted import EvictedPolicies
from decider.log.group_commit import CommitExecutor
from decider.log.open import open_log
from decider.log.protocol import EventLog, Tick
from decider.metrics.access import AccessCollector
from decider.metrics.agreement import AgreementMetrics
from decider.metrics.archive import ArchiveCollector
from decider.metrics.collector import LogCollector
from decider.metrics.connections import ConnectionsCollector
from decider.metrics.guardrails import GuardrailCollector
from decider.metrics.requests import RequestMetrics
from decider.metrics.rpc import ProcessMetrics, RpcMetrics
from decider.metrics.shared_totals import SharedTotals
from decider.metrics.state import StateCollector
from decider.page.page import Page
from decider.policy.algorithms import code_versions
from decider.policy.memory import PolicyMemory
from decider.policy.protocol import Model
from decider.policy.work import Budget
from decider.replay.explain import Explanation, Patience, explain, not_found
from decider.replay.models import Owner as ModelOwner
from decider.server import allocator
from decider.server.access import Access
from decider.server.connections import Connections
from decider.server.daily_archive import DailyArchive
from decider.server.experiments import ExperimentService
from decider.server.files import ExperimentFiles
from decider.server.grpc_port import GrpcPort
from decider.server.http.changes import Changes, changes
from decider.server.http.connection import SayOnce
from decider.server.http.decisions import decisions
from decider.server.http.exposition import exposition
from decider.server.http.guard import guarded
from decider.server.http.pages import pages
from decider.server.http.port import HttpPort
from decider.server.http.probes import Readiness, probes
from decider.server.listeners import DECISIONS, EXPERIMENTS, LISTEN, listeners
from decider.server.roles import Rights
from decider.server.service import DeciderService
from decider.server.settings import Settings, split_address
from decider.serving.change_lines import ChangeLines
from decider.serving.current import Current
from decider.serving.follower import Copies, Follower, Owner
from decider.types import DecisionId, ExperimentId, Position

logger = logging.getLogger(__name__)

FILES_INTERVAL = 1.0
"""Seconds between two checks of the experiment files and of the disk."""

SETTLE = 2.75
"""Of the interval of the looks at experiment files: for so long a changed file has to stay as it is, since a copy over
a slow line is written in pieces."""

NO_EXPERIMENT = (
    "there is no experiment, so no call can be decided: start with `--experiments FILE`, or `decider apply FILE` while "
    "the server runs"
)

FEW_FILES = (
    "gRPC takes {} connections at once, fewer than --max-connections: half of the files that the process may open "
    "(ulimit -n, LimitNOFILE)"
)

FOLLOW_INTERVAL = 0.05
"""Seconds between two reads of new versions and models."""

POLICIES_SHARE, SLOTS_SHARE = 0.25, 0.05
"""Of `--memory`, what policies and cached slots may take; definitions have theirs in `learn/limits.py`. The rest is for
the interpreter and its libraries (120 MB), calls in flight, what an allocator does not give back, and Vowpal Wabbit's
pool of parsed lines, which is never smaller than it once was."""

RESIDENT_SHARE, LEAST_SHARE = 0.75, 0.1
"""Of `--memory`: where the process takes more than the first, policies get less, down to the second. Sizes are
estimates; what the process takes is measured."""

TRIM_INTERVAL = 0.5
"""Seconds between two looks at how much memory policies and slots take. A thread of its own, since a round of learning
may take long."""

ARCHIVE_INTERVAL = 2.0
"""Seconds between two looks for a missing part of the archive at a start."""

LOCKED_INTERVAL = 1.0
"""Seconds between two tries to open a log that somebody keeps locked; each try waits some seconds as well."""

LAST_WRITES = 0.3
"""Share of the grace period for storing models and flushing the log."""

LAST_ANSWERS = 0.5
"""Seconds for answers over HTTP that are still under way when the time to drain is over."""

DRAIN_SHARE = 0.9
"""Of the grace period: when the rest begins, what is under way is given up. Whoever ends processes does it when the
period is over."""

SHORTEST_STOP = 3.0
"""Seconds that a stop may take however short the grace period is: a model that is not stored is learned again."""

ACCESS_INTERVAL = 0.5
"""Seconds between two looks at tokens and certificates; a change holds once two looks agree."""

PATIENCE = Patience(learning=2.0, asking=1.0)
"""What the explanation of a decision over HTTP may cost."""

PROBE_AFTER = 1.0
"""Seconds without a failed call before a write is tried."""


def build() -> dict[str, object]:
    """The versions of everything that decides."""
    return {
        "decider": importlib.metadata.version("decider"),
        "vowpal_wabbit_next": importlib.metadata.version("vowpal-wabbit-next"),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "machine": platform.machine(),
        "codes": code_versions(),
        "rules": RULES,
    }


class Server:
    """Everything in one process. `start`, then `stop`; `port` and `http_port` are the real ones.

    listening: the socket of the HTTP port, where it is open already. clock: of the log; the wall clock, as far as
    elapsed time confirms it. files_interval: see FILES_INTERVAL.
    """

    port: int
    http_port: int
    log: EventLog

    def __init__(
        self,
        settings: Settings,
        *,
        listening: socket.socket | None = None,
        clock: LogClock | None = None,
        files_interval: float = FILES_INTERVAL,
    ) -> None:
        self._settings = settings
        self._listening = listening
        self._files_interval = files_interval
        self._clock = clock or LogClock()
        self._stopping = threading.Event()
        self._look_asked = threading.Event()
        self._opened = ExitStack()
        self._phase = "opening the log"
        self._ports: dict[str, GrpcPort] = {}
        self._leader: Leader | None = None
        self._http: HttpPort | None = None
        self._trouble: LogError | None = None
        self._troubled_at = 0.0
        self._behind = ""
        self._given_back = 0
        self._failures = SayOnce()
        self._missing: dict[Owner, str] = {}
        self._page: Page | None = None
        self._changes: Changes | None = None
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def start(self) -> bool:
        """Start; False if it was asked to stop before it took calls. Raises DeciderError; then nothing stays open.

        /healthz answers from the first moment on; /readyz shows the progress until calls are taken.
        """
        try:
            return self._open() and self._serve()
        except BaseException:
            self._stopping.set()
            self._opened.close()
            raise

    def _open(self) -> bool:
        """Everything but the learning and the calls. Returns False if it was asked to stop meanwhile."""
        settings = self._settings
        self._access = access = Access(settings)
        routes = [exposition(self._registry), *probes(self._readiness)]
        routes += [*pages(lambda: self._page, self._readiness), *decisions(self._explain, settings.db)]
        if settings.page_writes:
            routes += changes(lambda: self._changes, settings.page_writes)
        self._http = http = HttpPort(
            *split_address(settings.http),
            routes=guarded(routes, access),
            listening=self._listening,
            certificates=access.certificates,
        )
        threading.Thread(target=self._look_at_access, name="access", daemon=True).start()
        self.http_port = http.port
        self._opened.callback(http.stop)
        http.start()
        self._archiver = DailyArchive(settings)
        self._opened.callback(self._archiver.stop)
        names = {name: str(value) for name, value in build().items()}
        self._process = process = ProcessMetrics(self._registry, names, ready=lambda: self._readiness().ready)
        self._agreement = AgreementMetrics(self._registry)
        self._requests = RequestMetrics(self._registry)
        log = self._open_log(process)
        if log is None:
            return False
        self.log = log
        # Closed in reverse order: the HTTP port (a second time does nothing) before the log, which probes and scrapes
        # read.
        self._opened.callback(self.log.close)
        self._opened.callback(http.stop)
        self._disk = DiskWatch(self.log, reserve=settings.disk_reserve)
        self._clock.start(self.log.head().time)
        allocator.set_up()
        evicted = EvictedPolicies()
        self._opened.callback(evicted.close)
        self._memory = PolicyMemory(int(POLICIES_SHARE * settings.memory), evicted)
        self.current, copies = Current(tells_names=not self._access.asks), Copies()
        self._guard = Guard(self.log)
        self._leader = Leader(
            self.log,
            self.log.lease(),
            copies,
            clock=self._clock,
            pace=Pace(settings.learn_interval, settings.store_interval, settings.store_bytes, settings.keep_bytes),
            memory=self._memory,
            guard=self._guard if settings.guard == "on" else None,
            stopping=self._stopping.is_set,
            on_learned=process.observe_learning,
            on_failed=process.observe_failure,
        )
        budget = Budget(settings.decide_budget)
        self.log.name_build({**build(), "budget": budget._asdict()})  # a replay needs both
        lines, self._leave_outs = ChangeLines(self.log), LeaveOuts(self.log)
        self._follower = Follower(
            self.log, self.current, copies, memory=self._memory, tell=(lines.tell, self._leave_outs.tell)
        )
        limits = Limits(settings.max_experiments, settings.memory, largest_definition(settings.max_reply_bytes))
        self._versions = versions = Versions(self.log, limits, budget, archived=settings.archive is not None)
        self._files = ExperimentFiles(
            settings.experiments, versions, settle=SETTLE * self._files_interval, strict=settings.strict
        )
        self._files.apply_all()
        lines.look()  # the follower reads them only once all policies have learned
        self._calls = CommitExecutor(self.log.append, threads=settings.threads)
        self._opened.callback(self._calls.shutdown)
        services = {
            DECISIONS: DeciderService(
                self.current,
                self.log,
                append=self._calls.append,
                budget=budget,
                locate_all=self._calls.share(self.log.locate_all),
                metrics=self._requests,
                agreement=self._agreement,
                clock=self._clock,
                max_reply_bytes=settings.max_reply_bytes,
            ),
            EXPERIMENTS: ExperimentService(
                self.log,
                self.current,
                self._follower,
                versions,
                progress=self._progress,
                page_bytes=largest_definition(settings.max_reply_bytes),
            ),
        }
        rpc_metrics = RpcMetrics(self._registry)
        for listener in listeners(settings):
            if listener.option == LISTEN and listener.most_connections < settings.max_connections:
                logger.warning("%s", FEW_FILES.format(listener.most_connections))
            port = GrpcPort(settings, listener, services, calls=self._calls, metrics=rpc_metrics, access=self._access)
            self._opened.callback(port.stop)
            self._ports[listener.option] = port
        self._connections = Connections(self._ports)
        self._grpc = self._ports[LISTEN]
        self.port = self._grpc.port
        return True

    @property
    def grpc_addresses(self) -> Mapping[str, str]:
        """Where gRPC listens, by option."""
        return {option: port.address for option, port in self._ports.items()}

    def _open_log(self, process: ProcessMetrics) -> EventLog | None:
        """As soon as nobody keeps its file locked: a running server waits for that as well. None if it was asked to
        stop meanwhile."""
        settings = self._settings
        while not self._stopping.is_set():
            try:
                return open_log(
                    settings.db,
                    synchronous="FULL" if settings.synchronous == "FULL" else "NORMAL",
                    clock=self._clock,
                    on_commit=process.observe_commit,
                    archives=() if settings.archive is None else (settings.archive,),
                )
            except LogBusy as error:
                self._wait_for(error)
                self._stopping.wait(LOCKED_INTERVAL)
        return None

    def _wait_for(self, error: LogBusy) -> None:
        """Say once who keeps the log."""
        phase = f"opening the log: {error}"
        if phase != self._phase:
            logger.warning("%s; the server starts once the log is free", error)
        self._phase = phase

    def _forget(self, experiment: ExperimentId) -> None:
        for named in (self._process, self._agreement, self._requests):
            named.forget(experiment)

    def _serve(self) -> bool:
        leader = self._running_leader
        self._phase = "learning"
        if not self._catch_up():
            return False
        self._follower.follow()
        self._totals = totals = SharedTotals(self.log, stopping=self._stopping.is_set)
        self._log_metrics = LogCollector(
            self.log,
            totals,
            self.current,
            clock=self._clock,
            lag=leader.lag,
            forget=self._forget,
            leave_outs=self._leave_outs,
        )
        self._registry.register(self._log_metrics)
        self._registry.register(
            StateCollector(
                self.current,
                offset=lambda: self._clock.offset,
                progress=self._progress,
                held=self._guard.held,
                refused_files=lambda: self._files.refused,
                leave_outs=self._leave_outs,
            )
        )
        self._registry.register(ArchiveCollector(self._archiver))
        self._registry.register(AccessCollector(self._access.problems))
        self._registry.register(ConnectionsCollector(self._connections.count, self._connections.limits))
        self._guardrails = Guardrails(self.log, self._versions, totals.read, clock=self._clock)
        self._registry.register(GuardrailCollector(self._guardrails))
        self._page = Page(
            self.log,
            totals,
            self.current,
            clock=self._clock,
            readiness=lambda: self._readiness().text,
            held=self._guard.held,
            leave_outs=self._leave_outs,
            judged=lambda: self._guardrails.judged,
            missing_rewards=lambda: self._log_metrics.missing_rewards,
            takes_changes=bool(self._settings.page_writes),
        )
        self._changes = Changes(
            self.log, self._versions, last_change=self._page.last_change, follow=self._follower.follow
        )
        self._threads = [
            threading.Thread(target=self._lead, name="leader", daemon=True),
            threading.Thread(target=self._follow, name="follower", daemon=True),
            threading.Thread(target=self._keep_to_memory, name="memory", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        for port in self._ports.values():
            port.start()
        if not self.current.all():
            logger.warning("%s", NO_EXPERIMENT)
        self._phase = ""
        return True

    def _catch_up(self) -> bool:
        """As the leader's. Where a part of the archive is missing that an experiment has to learn, the others serve;
        where there is no other, /readyz says which part until it is there."""
        leader = self._running_leader
        while leader.catch_up():
            self._say_unlearned(leader.unlearned)
            if not leader.unlearned or leader.serves_without(leader.unlearned):
                for owner, problem in leader.unlearned.items():
                    self._follower.hold(owner, problem)
                return True
            if self._stopping.wait(ARCHIVE_INTERVAL):
                return False
        return False

    def _say_unlearned(self, unlearned: Mapping[Owner, str]) -> None:
        missing = {
            owner: f"experiment {owner[0]!r} cannot serve before this is learned: {problem}"
            for owner, problem in unlearned.items()
        }
        for owner in [owner for owner, text in missing.items() if self._missing.get(owner) != text]:
            logger.error("%s", missing[owner])
        self._missing = missing

    def _release_learned(self) -> None:
        """Experiments whose part of the archive came back serve from now on."""
        for owner in [owner for owner in self._missing if self._running_leader.has_learned(owner)]:
            self._follower.release(owner)
            self._follower.follow()
            logger.info("experiment %s serves: its policy has learned what was missing", owner[0])
            self._missing = {other: text for other, text in self._missing.items() if other != owner}

    @property
    def _running_leader(self) -> Leader:
        assert self._leader is not None
        return self._leader

    def _progress(self) -> Sequence[Progress]:
        """Versions that learn before they serve: all at a start, later those that wait."""
        if self._leader is None:
            return ()
        return self._leader.progress() if self._phase else self._leader.progress(self._follower.lineup)

    def request_stop(self) -> None:
        """Ask the server to stop; a signal handler may call it. A start that still learns ends, `wait` returns."""
        self._stopping.set()

    def request_look(self) -> None:
        """Ask for a look at the experiment files at once, as they are."""
        self._look_asked.set()

    def wait(self, seconds: float) -> bool:
        """Wait until `request_stop` is called, at most so many seconds. Returns whether it was."""
        return self._stopping.wait(seconds)

    def _readiness(self) -> Readiness:
        """The answer of /readyz."""
        if self._stopping.is_set():
            return Readiness(False, "stopping")
        if not self._phase and self.log.trouble is not None:
            return Readiness(False, str(self.log.trouble))
        try:
            learning = [f"learning {progress}" for progress in self._progress()]
            left_out = [] if self._phase else [*self._leave_outs.open()]
        except DeciderError as error:
            return Readiness(False, str(error))
        if self._phase:
            return Readiness(False, "\n".join([*self._missing.values()] or learning) or self._phase)
        if self._behind:
            return Readiness(False, f"what serves does not follow the log: {self._behind}")
        problems = [self._clock.problem] if self._clock.problem else []
        if not self.current.all():
            problems.append(NO_EXPERIMENT)
        held = [*self._guard.held.values()]
        warnings = [
            *self._access.warnings,
            *self._connections.warnings,
            *problems,
            *self._files.warnings,
            *map(describe, held),
            *[open_in_words(one, self.log.name) for one in left_out if one not in held],
            *self._guardrails.warnings(),
            *self._missing.values(),
            *self.log.warnings,
            *self._disk.warnings,
            *filter(None, [self._archiver.problem]),
        ]
        return Readiness(True, "\n".join(["ok", *warnings, *learning]))

    def _look_at_access(self) -> None:
        """The thread that reads tokens and certificates anew: a long round of learning must not let in whom somebody
        has shut out."""
        while not self._stopping.wait(ACCESS_INTERVAL):
            self._try_to(self._access.look)
            for port in self._ports.copy().values():
                self._try_to(port.look)

    def _explain(self, decision_id: DecisionId, rights: Rights) -> Explanation | None:
        """The answer of /decisions/ID. To a caller for some experiments only, decisions of others do not exist."""
        if self._phase or self._stopping.is_set():
            return None
        if rights.experiments is not None:
            found = self.log.find(decision_id)
            if found is not None and not rights.sees(self.log.version_at(found.decision.version).experiment.id):
                raise not_found(self.log, decision_id)
        return explain(self.log, decision_id, patience=PATIENCE, in_memory=self._model_in_memory)

    def _model_in_memory(self, owner: ModelOwner, position: Position) -> Model | None:
        serving = self.current.get(owner.experiment)
        if serving is None or serving.model.position != position:
            return None
        return serving.model if serving.version.experiment.policy.signature == owner.key[1] else None

    def _follow(self) -> None:
        """The follower's thread. It reads often, so it logs the same failure once."""
        while not self._stopping.wait(FOLLOW_INTERVAL):
            try:
                self._follower.follow()
                self._behind = ""
            except Exception as error:
                if self._behind != repr(error):
                    self._behind = repr(error)
                    logger.error("what serves stays as it is: %s", error, exc_info=not isinstance(error, DeciderError))

    def _lead(self) -> None:
        """The leader's thread: seal and learn every interval, at once while a trainer or the totals are behind."""
        next_look = time.monotonic() + self._files_interval
        pause = self._settings.learn_interval
        while not self._stopping.wait(pause):
            self._try_to(lambda: self._clock.reach(self.log.head().time))
            self._try_to(self._probe_if_quiet)
            behind = self._try_to(self._running_leader.step)
            self._try_to(self._release_learned)
            uncounted = self._try_to(self._totals.store_if_due)
            if not uncounted:  # to count much more would hold up learning
                self._try_to(self._guardrails.look)
                self._try_to(self._log_metrics.look_at_rewards)
            pause = 0.0 if behind or uncounted else min(self._settings.learn_interval, self._files_interval)
            asked = self._look_asked.is_set()
            if asked or time.monotonic() >= next_look:
                self._look_asked.clear()
                self._try_to(self._disk.look)
                self._try_to(partial(self._files.apply_changes, at_once=asked))
                self._try_to(self._archiver.look)
                next_look = time.monotonic() + self._files_interval

    def _keep_to_memory(self) -> None:
        """The thread that looks after memory."""
        while not self._stopping.wait(TRIM_INTERVAL):
            self._try_to(self._trim)

    def _trim(self) -> None:
        most, least = (int(share * self._settings.memory) for share in (POLICIES_SHARE, LEAST_SHARE))
        spare = int(RESIDENT_SHARE * self._settings.memory) - allocator.resident_bytes()
        self._memory.most_bytes = min(most, max(least, self._memory.most_bytes + spare))
        self._memory.trim()
        if self._memory.evictions > self._given_back:
            self._given_back = self._memory.evictions
            allocator.give_back()
        self.current.trim_slots(int(SLOTS_SHARE * self._settings.memory))

    def _probe_if_quiet(self) -> None:
        """Try to write after a failure: a server that is not ready gets no calls that would.

        Not while calls still fail: a tick is small and may fit where a decision does not.
        """
        trouble, now_ = self.log.trouble, time.monotonic()
        if trouble is not self._trouble:
            self._trouble, self._troubled_at = trouble, now_
        elif trouble is not None and now_ - self._troubled_at >= PROBE_AFTER:
            self._try_to(lambda: self.log.append([Tick()]))

    def _try_to(self, work: Callable[[], object]) -> object:
        """A failure is logged, the same one once a minute; the next round tries again."""
        try:
            return work()
        except DeciderError as error:
            if self._failures.is_due(str(error)):
                logger.error("%s", error)
        except Exception:
            logger.exception("a round of the server's work failed; it tries again")
        return None

    def stop(self) -> None:
        """Drain: set NOT_SERVING, finish calls in flight, learn, publish and store what is sealed, flush the log; all
        within `grace`."""
        # In a thread: a log that somebody else keeps locked, and a disk that does not answer, hold up one write after
        # the other. To leave them is as safe as a kill: nobody was told that they are done.
        drain = threading.Thread(target=self._stop, name="stop", daemon=True)
        drain.start()
        drain.join(max(self._settings.grace, SHORTEST_STOP))
        if drain.is_alive():
            logger.error("the grace period is over; what is not written yet is learned again at the next start")

    def _stop(self) -> None:
        # Calls first, then learning, then the log: a decision that was answered is learned, and nothing is appended to
        # a log that is closed.
        deadline = time.monotonic() + DRAIN_SHARE * self._settings.grace
        self._stopping.set()
        if self._leader is not None and not self._phase and not self._drain(deadline):
            logger.error("the leader is still at work; what it has not stored is learned again at the next start")
            self._opened.pop_all()  # its thread reads the log until the process ends
            return
        if self._leader is not None:
            if not self._phase:
                self._try_to(lambda: self._totals.finish(deadline))
            self._try_to(self._leader.finish)
        if self._http is not None and not self._http.stop(max(LAST_ANSWERS, deadline - time.monotonic())):
            logger.error("a request over HTTP is still at work; its work ends with the process")
            self._opened.pop_all()  # it reads the log
            return
        self._try_to(self._opened.close)

    def _drain(self, deadline: float) -> bool:
        """Returns whether all threads have ended in time; one call of Vowpal Wabbit may take longer."""
        for port in self._ports.values():
            port.refuse(deadline - time.monotonic())
        for port in self._ports.values():
            port.wait_until_idle(deadline - time.monotonic())
        for port in self._ports.values():
            port.stop()
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            return False
        self._try_to(lambda: self._running_leader.finish_learning(deadline - LAST_WRITES * self._settings.grace))
        return True
