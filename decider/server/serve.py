"""Start and drain: puts log, learner, metrics and doors together. The `decider serve` command and the tests call it."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from decider.errors import AddressTaken, DeciderError, LogError
from decider.learn.learner import Learner
from decider.log.commit_executor import CommitExecutor
from decider.log.protocol import Tick
from decider.log.sqlite.log import SqliteLog
from decider.metrics.collector import LogCollector
from decider.metrics.rpc import ProcessMetrics, RpcMetrics
from decider.server.experiments import ExperimentService
from decider.server.files import ExperimentFiles
from decider.server.http import HttpDoor
from decider.server.rpc import door
from decider.server.service import DeciderService
from decider.server.settings import Settings, split_address
from decider.serving.current import Current
from decider.types import now
from decider.v1 import decider_service_pb2, experiment_service_pb2

logger = logging.getLogger(__name__)

FILES_INTERVAL = 1.0
"""Seconds between looks at the experiment files."""

WATCHING = ThreadPoolExecutor(32, "health")
"""Threads of health watches, one each. (Those without threads deadlock the server: whoever sets a status holds a lock
while it waits for gRPC's own thread, which waits for that lock when a watch is cancelled at that moment.)"""

PROBE_AFTER = 1.0
"""Seconds without a failure before the log is tried again."""

LAST_BYTES = 0.2
"""Seconds for the last replies to leave."""


def build() -> dict[str, str]:
    """What a log's reader would have to install to replay it."""
    return {
        "decider": importlib.metadata.version("decider"),
        "vowpal_wabbit_next": importlib.metadata.version("vowpal-wabbit-next"),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "machine": platform.machine(),
    }


class _Reflection(reflection.ReflectionServicer):  # type: ignore[misc]
    """Reflection's streams stay open as long as the caller likes, so they get threads of their own."""

    def ServerReflectionInfo(self, request_iterator: object, context: object) -> object:
        """See grpc.reflection.v1alpha.ServerReflection."""
        return super().ServerReflectionInfo(request_iterator, context)

    ServerReflectionInfo.experimental_thread_pool = ThreadPoolExecutor(4, "reflection")  # type: ignore[attr-defined]


class Server:
    """Everything in one process. `start`, then `stop`; `port` and `http_port` are the real ones."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        process = ProcessMetrics(registry, build())
        self.log = SqliteLog(
            settings.db,
            synchronous="FULL" if settings.synchronous == "FULL" else "NORMAL",
            clock=now,
            on_commit=process.committed,
        )
        try:
            self.log.name_build(build())
            self.running = Current()
            self.learner = Learner(
                self.log,
                self.running,
                clock=now,
                keep_models=settings.keep_models,
                on_learned=process.learned,
                on_failed=process.learn_failed,
            )
            self._files = ExperimentFiles(settings.experiments, self.learner)
            self._files.apply_all()
            self._collector = LogCollector(self.log, self.running, clock=now)
            registry.register(self._collector)
            self._health = health.HealthServicer(experimental_non_blocking=False, experimental_thread_pool=WATCHING)
            self._calls = CommitExecutor(self.log.append, threads=settings.threads)
            # Applying a version may wait for the learner or learn a whole log; decisions must not wait behind it.
            self._applying = ThreadPoolExecutor(4, "experiments")
            self._grpc = self._grpc_server(RpcMetrics(registry))
            self.port = _bind(self._grpc, settings.listen)
            self._http = HttpDoor(*split_address(settings.http), registry=registry, ready=self._problem)
        except BaseException:
            self.log.close()
            raise
        self.http_port = self._http.port
        self._stopping = threading.Event()
        self._trouble: LogError | None = None
        self._troubled_at = 0.0
        self._serving = False
        self._learning = threading.Thread(target=self._learn_on, name="learner", daemon=True)

    def _grpc_server(self, metrics: RpcMetrics) -> grpc.Server:
        settings = self._settings
        server = grpc.server(
            self._calls,
            maximum_concurrent_rpcs=settings.max_concurrent_rpcs,
            options=[
                ("grpc.max_receive_message_length", settings.max_request_bytes),
                ("grpc.so_reuseport", 0),
            ],
        )
        decisions = DeciderService(self.running, self.log, append=self._calls.append)
        experiments = ExperimentService(self.running, self.learner)
        doors = (
            (decider_service_pb2, "DeciderService", decisions, None),
            (experiment_service_pb2, "ExperimentService", experiments, self._applying),
        )
        for module, name, servicer, threads in doors:
            server.add_registered_method_handlers(
                *_handlers(module.DESCRIPTOR.services_by_name[name], servicer, metrics, threads)
            )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*self._service_names(), health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(_Reflection(names), server)
        return server

    def _service_names(self) -> tuple[str, ...]:
        return ("decider.v1.DeciderService", "decider.v1.ExperimentService")

    def _problem(self) -> str | None:
        if not self._serving:
            return "stopping" if self._stopping.is_set() else "starting"
        return None if self.log.trouble is None else str(self.log.trouble)

    def start(self) -> None:
        """Take calls."""
        self._http.start()
        self._learning.start()
        self._grpc.start()
        self._set_health(health_pb2.HealthCheckResponse.SERVING)
        self._serving = True

    def _set_health(self, status: int) -> None:
        for name in ("", *self._service_names()):
            self._health.set(name, status)

    def _learn_on(self) -> None:
        """The learner's thread: learn every interval, look at the files now and then."""
        next_look = time.monotonic() + FILES_INTERVAL
        while not self._stopping.wait(self._settings.learn_interval):
            self._probe_if_quiet()
            self._try_to(self.learner.step)
            if time.monotonic() >= next_look:
                self._try_to(self._files.apply_changed)
                next_look = time.monotonic() + FILES_INTERVAL

    def _probe_if_quiet(self) -> None:
        """Whether the log can be written again: nobody calls a server that is not ready.

        Not while calls still fail: a tick is small and may fit where a decision does not.
        """
        trouble, now_ = self.log.trouble, time.monotonic()
        if trouble is not self._trouble:
            self._trouble, self._troubled_at = trouble, now_
        elif trouble is not None and now_ - self._troubled_at >= PROBE_AFTER:
            self._try_to(lambda: self.log.append([Tick()]))

    def _try_to(self, work: object) -> None:
        """A failure is logged; the next round tries again."""
        try:
            work()  # type: ignore[operator]
        except DeciderError as error:
            logger.error("%s", error)
        except Exception:
            logger.exception("the learner failed; it tries again")

    def stop(self) -> None:
        """Drain: NOT_SERVING, calls in flight finish, what is sealed is learned and published, the log is flushed."""
        self._serving = False
        self._health.enter_graceful_shutdown()
        self._stopping.set()
        stopped = self._grpc.stop(self._settings.grace)
        self._calls.wait_until_idle(self._settings.grace)
        self._applying.shutdown()
        self._grpc.stop(LAST_BYTES)  # what is still open are streams that only watch
        stopped.wait()
        self._calls.shutdown()
        if self._learning.ident is not None:
            self._learning.join()
        self._try_to(self.learner.step)
        self._http.stop()
        self.log.close()


def _handlers(
    descriptor: object, servicer: object, metrics: RpcMetrics, threads: ThreadPoolExecutor | None
) -> tuple[str, dict[str, object]]:
    """Every method of a service as a gRPC handler behind its door, in threads of its own where there are some."""
    handlers = {}
    for method in descriptor.methods:  # type: ignore[attr-defined]
        behaviour = door(descriptor.full_name, method.name, getattr(servicer, method.name), metrics)  # type: ignore[attr-defined]
        if threads is not None:
            behaviour.experimental_thread_pool = threads  # type: ignore[attr-defined]
        handlers[method.name] = grpc.unary_unary_rpc_method_handler(
            behaviour,
            request_deserializer=method.input_type._concrete_class.FromString,
            response_serializer=method.output_type._concrete_class.SerializeToString,
        )
    return descriptor.full_name, handlers  # type: ignore[attr-defined]


def _bind(server: grpc.Server, address: str) -> int:
    try:
        return int(server.add_insecure_port(address))
    except RuntimeError as error:
        raise AddressTaken(f"cannot listen on {address} for gRPC: {error}") from error
