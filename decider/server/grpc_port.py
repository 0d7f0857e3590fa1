"""The gRPC port: our services behind `rpc.py`, standard health and reflection. Called by `serve.py`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from decider.errors import AddressInUse
from decider.metrics.rpc import RpcMetrics
from decider.server.experiments import ExperimentService
from decider.server.rpc import behaviour_of
from decider.server.service import DeciderService
from decider.server.settings import Settings
from decider.v1 import decider_service_pb2, experiment_service_pb2

APPLIERS = 4
"""Threads that apply versions."""

LONGEST_APPLY = 3.0
"""Seconds that a stop waits for versions that are being applied."""

LAST_BYTES = 0.2
"""Seconds for the last replies to leave."""

SERVICES = ("decider.v1.DeciderService", "decider.v1.ExperimentService")

NAMES = ("", *SERVICES)
"""What health is known of; the empty name is the server's."""

UNKNOWN = health_pb2.HealthCheckRequest(service="unknown")
"""Any name that is not in NAMES."""


class GrpcPort:
    """Listens from `start` to `stop`; `port` is the real one. Raises AddressInUse.

    calls: runs the handlers of DeciderService. Applying a version reads much of the log, so those handlers have threads
    of their own and decisions never wait behind them.
    """

    def __init__(
        self,
        settings: Settings,
        decisions: DeciderService,
        experiments: ExperimentService,
        *,
        calls: Executor,
        metrics: RpcMetrics,
    ) -> None:
        self._stopped = False
        self._applying = ThreadPoolExecutor(APPLIERS, "experiments")
        # Threads of health watches, one each. (Those without threads deadlock the server: whoever sets a status holds
        # a lock while it waits for gRPC's own thread, which waits for it when a watch is cancelled at that moment.)
        self._watching = ThreadPoolExecutor(32, "health")
        self._health = _Health(experimental_non_blocking=False, experimental_thread_pool=self._watching)
        self._server = grpc.server(
            calls,
            maximum_concurrent_rpcs=settings.max_concurrent_rpcs,
            options=[
                ("grpc.max_receive_message_length", settings.max_request_bytes),
                ("grpc.so_reuseport", 0),
            ],
        )
        self._add(decider_service_pb2, "DeciderService", decisions, metrics, None)
        self._add(experiment_service_pb2, "ExperimentService", experiments, metrics, self._applying)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(_reflection(names), self._server)
        self.port = _bind(self._server, settings.listen)

    def _add(
        self, module: Any, name: str, servicer: object, metrics: RpcMetrics, threads: ThreadPoolExecutor | None
    ) -> None:
        descriptor = module.DESCRIPTOR.services_by_name[name]
        handlers = dict(_handlers(descriptor, servicer, metrics, threads))
        self._server.add_registered_method_handlers(descriptor.full_name, handlers)

    def start(self) -> None:
        """Take calls."""
        self._server.start()
        for name in NAMES:
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def refuse(self, grace: float) -> None:
        """Take no new calls; calls in flight have so many seconds."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace)

    def stop(self) -> None:
        """End open streams (health watches, reflection). May be called again."""
        if self._stopped:
            return
        self._stopped = True
        self._wait_for_applying()
        self._server.stop(LAST_BYTES).wait()
        self._applying.shutdown()  # after the server: gRPC's own thread dies if a pool refuses a call
        self._watching.shutdown(wait=False)

    def _wait_for_applying(self) -> None:
        """Wait until no version is being applied."""
        # The pool has APPLIERS threads: only when all of them are free can they meet at the barrier.
        meeting = threading.Barrier(APPLIERS)
        for free in [self._applying.submit(meeting.wait, LONGEST_APPLY) for _ in range(APPLIERS)]:
            with suppress(threading.BrokenBarrierError):
                free.result()


class _Health(health.HealthServicer):  # type: ignore[misc]
    def Watch(self, request: Any, context: Any, send_response_callback: Any = None) -> Any:
        # The library keeps every name that was ever watched, each as long as a request may be. No service is added
        # later, so all unknown names have the same answer for ever.
        known = request if request.service in NAMES else UNKNOWN
        return super().Watch(known, context, send_response_callback)


def _reflection(names: tuple[str, ...]) -> Any:
    """Reflection's streams stay open as long as the caller likes, so they get threads of their own."""

    class Reflection(reflection.ReflectionServicer):  # type: ignore[misc]
        def ServerReflectionInfo(self, request_iterator: object, context: object) -> object:
            return super().ServerReflectionInfo(request_iterator, context)

        ServerReflectionInfo.experimental_thread_pool = ThreadPoolExecutor(4, "reflection")  # type: ignore[attr-defined]

    return Reflection(names)


def _handlers(
    descriptor: Any, servicer: object, metrics: RpcMetrics, threads: ThreadPoolExecutor | None
) -> Iterator[tuple[str, Any]]:
    """Every method of a service as a gRPC handler, in threads of its own where there are some."""
    for method in descriptor.methods:
        behaviour: Any = behaviour_of(
            getattr(servicer, method.name), service=descriptor.full_name, method=method.name, metrics=metrics
        )
        if threads is not None:
            behaviour.experimental_thread_pool = threads
        yield (
            method.name,
            grpc.unary_unary_rpc_method_handler(
                behaviour,
                request_deserializer=method.input_type._concrete_class.FromString,
                response_serializer=method.output_type._concrete_class.SerializeToString,
            ),
        )


def _bind(server: grpc.Server, address: str) -> int:
    try:
        return int(server.add_insecure_port(address))
    except RuntimeError as error:
        raise AddressInUse(f"cannot listen on {address} for gRPC: {error}") from error
