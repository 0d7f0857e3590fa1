"""A gRPC port: our services behind `rpc.py`, standard health and reflection. Called by `worker.py` for each of
`listeners.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import grpc

from decider.errors import AddressInUse, NotAnsweredHere
from decider.log.group_commit import CommitExecutor
from decider.metrics.rpc import RpcMetrics
from decider.server.access import Access
from decider.server.certificates import Certificates
from decider.server.health import NOT_SERVING, SERVING, Health
from decider.server.health import SERVICE as HEALTH
from decider.server.intake import Elsewhere, Intake, Run, Streaming, Unary
from decider.server.limits import Limit
from decider.server.listeners import DECISIONS, EXPERIMENTS, FLAGS, Listener
from decider.server.methods import Method, StreamMethod, descriptors_of, methods_of, observer_of_refusals, streams_of
from decider.server.reflection import SERVICE as REFLECTION
from decider.server.reflection import Reflection
from decider.server.rpc import behaviour_of
from decider.server.settings import Settings, join_address, split_address

APPLIERS, READERS = 4, 2
"""Threads that apply versions, and that read them: while somebody keeps the log locked, only changes have to wait."""

READS = ("Get", "List")
"""Begin the names of methods that write nothing."""

LONGEST_APPLY = 3.0
"""Seconds that a stop waits for versions that are being applied."""

LAST_BYTES = 0.2
"""Seconds for the last replies to leave."""

PING_MS = 5_000
"""Clients may ask so often whether a connection lives: proxies do so each 10 s, and gRPC's own bound is 5 minutes."""

HANDSHAKE_MS = 10_000
"""How long a caller may take for TLS; gRPC's own bound is two minutes."""

ALONE = (("grpc.so_reuseport", 0),)
"""Nobody else may listen there."""

LONGEST_LEFTOVER_MS = 30_000
"""How long a call or a stream may go on that a client has on a connection which it has been asked to leave."""


def shared(settings: Settings) -> Sequence[tuple[str, int]]:
    """The system gives each new connection to one of those who listen. A client is asked to connect anew now and then,
    and loses no call by that: else a worker that was started again would have nothing to do."""
    return (
        ("grpc.so_reuseport", 1),
        ("grpc.max_connection_age_ms", round(1000 * settings.max_age)),
        ("grpc.max_connection_age_grace_ms", LONGEST_LEFTOVER_MS),
    )


class GrpcPort:
    """Listens from `start` to `stop`; `port` is the real one, `most_connections` are possible at once. Raises
    AddressInUse.

    services: what answers each service that the listener has. calls: runs the handlers of DeciderService. access: says
    who calls. Applying a version reads much of the log, so those handlers have threads of their own and decisions never
    wait behind them; nor do those that only read. Calls and streams are counted by listener: a crowd at one of them
    keeps nobody out of the other one. sharing: ALONE, or `shared` where
    other processes listen there, too.
    """

    def __init__(
        self,
        settings: Settings,
        listener: Listener,
        services: Mapping[str, object],
        *,
        calls: CommitExecutor,
        metrics: RpcMetrics,
        access: Access,
        sharing: Sequence[tuple[str, int]] = ALONE,
    ) -> None:
        self._stopped = False
        self.most_connections = listener.most_connections
        self._applying = ThreadPoolExecutor(APPLIERS, "experiments")
        self._reading = ThreadPoolExecutor(READERS, "readers")
        self._intake = Intake(
            calls=Limit("calls", most=settings.max_concurrent_rpcs, most_of_one=settings.max_caller_rpcs),
            streams=Limit("streams", most=settings.max_streams, most_of_one=settings.max_caller_streams),
            checks=Limit("health checks", most=settings.max_streams, most_of_one=settings.max_caller_streams),
            most_arriving=settings.max_caller_rpcs,
            access=access if access.asks else None,
        )
        self._server = grpc.server(
            self._intake,
            options=[
                ("grpc.max_receive_message_length", settings.max_request_bytes),
                *sharing,
                ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", PING_MS),
                ("grpc.max_allowed_incoming_connections", listener.most_connections),
                ("grpc.max_connection_idle_ms", round(1000 * settings.max_idle)),  # of one without calls and streams
            ],
        )
        self._health = Health(("", *listener.services))  # the empty name is the server's
        self._reflection = Reflection((*listener.services, HEALTH, REFLECTION))
        runs: Mapping[str, Callable[[str], Run]] = {
            **dict.fromkeys((DECISIONS, *FLAGS), lambda _: calls.run),
            EXPERIMENTS: self._run_of,
        }
        added = {
            **{name: _handlers(name, services[name], metrics, runs[name]) for name in listener.services},
            **{name: _refusals(name, option, metrics) for name, option in listener.elsewhere.items()},
            HEALTH: self._health.handlers(),
            REFLECTION: self._reflection.handlers(),
        }
        for name, handlers in added.items():
            self._server.add_registered_method_handlers(name, handlers)
        self.port = _bind(self._server, listener, access.certificates)
        self.address = join_address(split_address(listener.address)[0], self.port)

    def _run_of(self, method: str) -> Run:
        return self._reading.submit if method.startswith(READS) else self._applying.submit

    def start(self) -> None:
        """Take calls."""
        self._server.start()
        self._health.set(SERVING)

    def refuse(self, grace: float) -> None:
        """Take no new calls; calls in flight have so many seconds."""
        self._health.set(NOT_SERVING)
        self._server.stop(grace)

    def wait_until_idle(self, seconds: float) -> None:
        """Wait until no call is in flight, at most so many seconds."""
        self._intake.wait_until_idle(seconds)

    def look(self) -> None:
        """End streams, and calls that have not begun, whose callers may no longer call."""
        self._intake.look()

    def stop(self) -> None:
        """End open streams (health watches, reflection). May be called again."""
        if self._stopped:
            return
        self._stopped = True
        self._wait_for_applying()
        self._server.stop(LAST_BYTES).wait()
        for pool in (self._applying, self._reading):
            pool.shutdown()  # after the server: gRPC's own thread dies if a pool refuses a call
        self._reflection.stop()

    def _wait_for_applying(self) -> None:
        """Wait until no version is being applied."""
        # The pool has APPLIERS threads: only when all of them are free can they meet at the barrier.
        meeting = threading.Barrier(APPLIERS)
        for free in [self._applying.submit(meeting.wait, LONGEST_APPLY) for _ in range(APPLIERS)]:
            with suppress(threading.BrokenBarrierError):
                free.result()


def _handlers(
    service: str, servicer: object, metrics: RpcMetrics, run_of: Callable[[str], Run]
) -> dict[str, grpc.RpcMethodHandler]:
    """Every method of a service as a gRPC handler. run_of: gives a call of this method to its threads."""
    return {
        **{method.name: _handler(method, run_of(method.name)) for method in methods_of(service, servicer, metrics)},
        **{method.name: _stream_handler(method) for method in streams_of(service, servicer)},
    }


def _stream_handler(method: StreamMethod) -> grpc.RpcMethodHandler:
    return grpc.unary_stream_rpc_method_handler(Streaming(method.answer, method.role))


def _handler(method: Method, run: Run) -> grpc.RpcMethodHandler:
    return grpc.unary_unary_rpc_method_handler(
        Unary(behaviour_of(method.answer, method.request.FromString), run, method.refused, method.role),
        response_serializer=method.reply.SerializeToString,
    )


def _refusals(service: str, option: str, metrics: RpcMetrics) -> dict[str, grpc.RpcMethodHandler]:
    """A refusal of each method, which names the option of the listener that answers; its address is for who may see
    the server's settings."""
    error = NotAnsweredHere(f"{service} is not answered at this address, but at that of {option}")
    return {
        method.name: grpc.unary_unary_rpc_method_handler(
            Elsewhere(error, observer_of_refusals(service, method.name, metrics))
        )
        for method in descriptors_of(service)
    }


def _bind(server: grpc.Server, listener: Listener, certificates: Certificates | None) -> int:
    option, address, *_ = listener
    try:
        if certificates is not None:
            return int(server.add_secure_port(address, certificates.grpc()))
        return int(server.add_insecure_port(address))
    except RuntimeError as error:
        raise AddressInUse(f"cannot listen on {address} for gRPC ({option}): {error}") from error
