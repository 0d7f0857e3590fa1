"""What every process of a log has, whether it leads, serves, or does both: the log, what serves, and the threads that
keep it up to date and within memory. Called by `serve.py`.
"""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from decider.decide.decide import RULES
from decider.errors import DeciderError, LogBusy, LogError, LogUnreachable
from decider.learn.limits import Limits, largest_definition
from decider.learn.versions import Versions
from decider.log.clock import LogClock
from decider.log.evicted import EvictedPolicies
from decider.log.open import open_log
from decider.log.protocol import EventLog, ServingChanges, Tick
from decider.metrics.agreement import AgreementMetrics
from decider.metrics.requests import RequestMetrics
from decider.metrics.rpc import ProcessMetrics
from decider.policy.algorithms import code_versions
from decider.policy.memory import PolicyMemory
from decider.policy.work import Budget
from decider.server import allocator
from decider.server.access import Access
from decider.server.http.connection import SayOnce
from decider.server.settings import Settings
from decider.serving.current import Current
from decider.serving.follower import Copies, Follower
from decider.serving.unknown import LookForUnknown
from decider.types import ExperimentId

logger = logging.getLogger(__name__)

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

ACCESS_INTERVAL = 0.5
"""Seconds between two looks at tokens and certificates; a change holds once two looks agree."""

LOCKED_INTERVAL = 1.0
"""Seconds between two tries to open a log that somebody keeps locked, or whose database does not answer; each try waits
some seconds as well."""

PROBE_AFTER = 1.0
"""Seconds without a failed call before a write is tried."""


VERSIONS = {
    "decider": importlib.metadata.version("decider"),
    "vowpal_wabbit_next": importlib.metadata.version("vowpal-wabbit-next"),
}
"""Of the code that was imported with this module: what lies on the disk later, where another process is made, may be a
new release."""


def build() -> dict[str, object]:
    """The versions of everything that decides."""
    return {
        **VERSIONS,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "machine": platform.machine(),
        "codes": code_versions(),
        "rules": RULES,
    }


class Process:
    """See above. `open_access`, `open`, `start`; what is opened closes with `opened`, in reverse order.

    copies: where models may be whose contents are not in the log. behind: why what serves does not follow the log;
    empty where it does. tell: is called with what is new to serve; may be added to before the first `follow`.
    access_looks: are called after each look at tokens and certificates. warnings: of /readyz. registry: metrics of
    this process; of_log: of the log, and what its leader knows.
    """

    log: EventLog
    access: Access
    memory: PolicyMemory
    follower: Follower
    versions: Versions

    def __init__(self, settings: Settings, *, clock: LogClock, copies: Copies) -> None:
        self.settings = settings
        self.clock = clock
        self.copies = copies
        self.current = Current()
        self.budget = Budget(settings.decide_budget)
        self.opened = ExitStack()
        self.stopping = threading.Event()
        self.behind = ""
        self.threads: list[threading.Thread] = []
        self.tell: list[Callable[[ServingChanges], None]] = []
        self.access_looks: list[Callable[[], None]] = []
        self.warnings: list[Callable[[], Sequence[str]]] = []
        self._given_back = 0
        self._failures = SayOnce()
        self._trouble: LogError | None = None
        self._troubled_at = 0.0
        self.registry, self.of_log = CollectorRegistry(), CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def open_access(self) -> None:
        """Who may call; from now on its files are looked at. Raises DeciderError."""
        self.access = Access(self.settings)
        self.current.tells_names = not self.access.asks
        threading.Thread(target=self._look_at_access, name="access", daemon=True).start()

    def open(self, *, ready: Callable[[], bool], on_wait: Callable[[str], None] = lambda _: None) -> bool:
        """Open the log, and what reads it; False if it was asked to stop while somebody kept the log locked.

        ready: whether /readyz answers 200. on_wait: is told who keeps it locked. Raises DeciderError.
        """
        settings = self.settings
        names = {name: str(value) for name, value in build().items()}
        self.metrics = ProcessMetrics(self.registry, names, ready=ready)
        self.agreement = AgreementMetrics(self.registry)
        self.requests = RequestMetrics(self.registry)
        log = self._open_log(on_wait)
        if log is None:
            return False
        self.log = log
        self.opened.callback(self.log.close)
        hosts = self.log.hosts
        self.clock.start(self.log.head().time, None if hosts is None else hosts.time())
        allocator.set_up()
        evicted = EvictedPolicies()
        self.opened.callback(evicted.close)
        self.memory = PolicyMemory(int(POLICIES_SHARE * settings.memory), evicted)
        self.follower = Follower(self.log, self.current, self.copies, memory=self.memory, tell=self.tell)
        self.current.look = LookForUnknown(self.follower.follow)
        limits = Limits(settings.max_experiments, settings.memory, largest_definition(settings.max_reply_bytes))
        self.versions = Versions(self.log, limits, self.budget, archived=settings.archive is not None)
        return True

    def _open_log(self, on_wait: Callable[[str], None]) -> EventLog | None:
        """As soon as nobody keeps its file locked, and its database answers: a running server waits for that, too."""
        settings, said = self.settings, ""
        while not self.stopping.is_set():
            try:
                return open_log(
                    settings.db,
                    synchronous="FULL" if settings.synchronous == "FULL" else "NORMAL",
                    clock=self.clock,
                    on_commit=self.metrics.observe_commit,
                    on_lost=self.metrics.observe_lost_connection,
                    archives=() if settings.archive is None else (settings.archive,),
                )
            except (LogBusy, LogUnreachable) as error:
                if said != str(error):
                    said = str(error)
                    logger.warning("%s; the server starts once the log is free", error)
                    on_wait(f"opening the log: {error}")
                self.stopping.wait(LOCKED_INTERVAL)
        return None

    def name_build(self) -> None:
        """In the log: a replay needs it. Raises LogError."""
        self.log.name_build({**build(), "budget": self.budget._asdict()})

    def start(self) -> None:
        """Keep what serves up to date, and within memory."""
        self.run(self._follow, "follower")
        self.run(self._keep_to_memory, "memory")

    def run(self, work: Callable[[], None], name: str) -> None:
        """In a thread that ends once `stopping` is set."""
        thread = threading.Thread(target=work, name=name, daemon=True)
        self.threads.append(thread)
        thread.start()

    def join(self, deadline: float) -> bool:
        """Wait for the threads, until the monotonic clock reads `deadline`. Returns whether all have ended."""
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self.threads)

    def try_to(self, work: Callable[[], object]) -> object:
        """A failure is logged, the same one once a minute; the next round tries again."""
        try:
            return work()
        except DeciderError as error:
            if self._failures.is_due(str(error)):
                logger.error("%s", error)
        except Exception:
            logger.exception("a round of the server's work failed; it tries again")
        return None

    def forget(self, experiment: ExperimentId) -> None:
        """No longer name it in metrics."""
        for named in (self.metrics, self.agreement, self.requests):
            named.forget(experiment)

    def look_after_log(self) -> None:
        """Go on from the log's time, and find out whether it can be written again. Called every round of a thread."""
        self.try_to(lambda: self.clock.reach(self.log.head().time))
        self.try_to(self._ask_witness)
        self.try_to(self._probe_if_quiet)

    def waits(self) -> bool:
        """Whether it waits for the log's database. Any thread may ask, also before the log is open."""
        hosts = self.log.hosts if hasattr(self, "log") else None
        return hosts is not None and hosts.waits()

    def _ask_witness(self) -> None:
        if self.clock.problem and self.log.hosts is not None:
            self.clock.compare(self.log.hosts.time())

    def _probe_if_quiet(self) -> None:
        """Try to write after a failure: a server that is not ready gets no calls that would.

        Not while calls still fail: a tick is small and may fit where a decision does not.
        """
        trouble, now_ = self.log.trouble, time.monotonic()
        if trouble is not self._trouble:
            self._trouble, self._troubled_at = trouble, now_
        elif trouble is not None and now_ - self._troubled_at >= PROBE_AFTER:
            self.try_to(lambda: self.log.append([Tick()]))

    def _look_at_access(self) -> None:
        """The thread that reads tokens and certificates anew: a long round of learning must not let in whom somebody
        has shut out."""
        while not self.stopping.wait(ACCESS_INTERVAL):
            self.try_to(self.access.look)
            for look in [*self.access_looks]:
                self.try_to(look)

    def _follow(self) -> None:
        """The follower's thread. It reads often, so it logs the same failure once."""
        while not self.stopping.wait(FOLLOW_INTERVAL):
            try:
                self.follower.follow()
                self.behind = ""
            except Exception as error:
                if self.behind != repr(error):
                    self.behind = repr(error)
                    logger.error("what serves stays as it is: %s", error, exc_info=not isinstance(error, DeciderError))

    def _keep_to_memory(self) -> None:
        """The thread that looks after memory."""
        while not self.stopping.wait(TRIM_INTERVAL):
            self.try_to(self.trim)

    def trim(self) -> None:
        """Evict what memory has no room for."""
        most, least = (int(share * self.settings.memory) for share in (POLICIES_SHARE, LEAST_SHARE))
        spare = int(RESIDENT_SHARE * self.settings.memory) - allocator.resident_bytes()
        self.memory.most_bytes = min(most, max(least, self.memory.most_bytes + spare))
        self.memory.trim()
        if self.memory.evictions > self._given_back:
            self._given_back = self.memory.evictions
            allocator.give_back()
        self.current.trim_slots(int(SLOTS_SHARE * self.settings.memory))
