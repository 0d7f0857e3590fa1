"""gRPC metrics under the names of go-grpc-middleware, and metrics of commits and learning in this process.

Constructed on a registry, never global. Label children are kept, since a lookup costs more than counting.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from decider.types import ExperimentId

_HANDLING_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class RpcMetrics:
    """Counts and durations of calls."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("grpc_type", "grpc_service", "grpc_method")
        self._handled = Counter(
            "grpc_server_handled_total", "RPCs completed, by status code.", (*labels, "grpc_code"), registry=registry
        )
        self._seconds = Histogram(
            "grpc_server_handling_seconds",
            "Seconds from the start of a handler to its reply.",
            labels,
            buckets=_HANDLING_BUCKETS,
            registry=registry,
        )
        self._abandoned = Counter(
            "decider_abandoned_calls_total",
            "RPCs whose caller had given up: before anything was done, or when all was done and committed.",
            ("grpc_method", "done"),
            registry=registry,
        )

    def count_abandoned(self, method: str, *, done: bool) -> None:
        """A call for whose answer nobody waits. done: it was committed before that was seen."""
        self._abandoned.labels(method, "yes" if done else "no").inc()

    def method(self, service: str, method: str) -> Callable[[str, float], None]:
        """An observer (status code's name, seconds) of one method."""
        labels = ("unary", service, method)
        observe_seconds = self._seconds.labels(*labels).observe
        counts = {"OK": self._handled.labels(*labels, "OK").inc}

        def observe(code: str, seconds: float) -> None:
            count = counts.get(code)
            if count is None:
                count = counts[code] = self._handled.labels(*labels, _camel(code)).inc
            count()
            observe_seconds(seconds)

        return observe


def _camel(code: str) -> str:
    """Status codes are spelled as in Go.

    >>> _camel("NOT_FOUND")
    'NotFound'
    """
    return "".join(word.capitalize() for word in code.split("_"))


class ProcessMetrics:
    """Commits, rounds of learning, and the build of this process. ready: whether /readyz answers 200."""

    def __init__(self, registry: CollectorRegistry, build: dict[str, str], *, ready: Callable[[], bool]) -> None:
        Gauge("decider_ready", "1 while /readyz answers 200, 0 while 503.", registry=registry).set_function(ready)
        self._commits = Histogram(
            "decider_commit_entries", "Log entries in one commit.", buckets=_BATCH_BUCKETS, registry=registry
        )
        self._commit_seconds = Histogram(
            "decider_commit_seconds", "Seconds of one commit.", buckets=_HANDLING_BUCKETS, registry=registry
        )
        self._learned = Counter(
            "decider_learned_total", "Decisions learned by this process.", ("experiment",), registry=registry
        )
        self._learn_seconds = Histogram(
            "decider_learn_seconds",
            "Seconds of one round of learning, publishing included.",
            ("experiment",),
            buckets=_HANDLING_BUCKETS,
            registry=registry,
        )
        self._failures = Counter(
            "decider_learn_failures_total", "Rounds of learning that failed.", ("experiment",), registry=registry
        )
        self._lost = Counter(
            "decider_log_connections_lost",
            "Times that the connection over which this process writes the log was lost.",
            registry=registry,
        )
        Info("decider_build", "The build that runs.", registry=registry).info(build)

    def observe_commit(self, entries: int, seconds: float) -> None:
        """One commit."""
        self._commits.observe(entries)
        self._commit_seconds.observe(seconds)

    def observe_lost_connection(self) -> None:
        """The log's database has ended a connection, or does not answer."""
        self._lost.inc()

    def observe_failure(self, experiment: ExperimentId) -> None:
        """One round of learning that failed."""
        self._failures.labels(experiment).inc()

    def observe_learning(self, experiment: ExperimentId, decisions: int, seconds: float) -> None:
        """One round of learning."""
        self._learned.labels(experiment).inc(decisions)
        self._learn_seconds.labels(experiment).observe(seconds)

    def forget(self, experiment: ExperimentId) -> None:
        """No longer name an experiment, if it has been named."""
        for counted in (self._learned, self._learn_seconds, self._failures):
            with suppress(KeyError):
                counted.remove(experiment)
