"""The part of a process that serves: the ports of gRPC and what answers there. Called by `serve.py`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from decider.decide.batch import asks_for
from decider.flagd.v1 import evaluation_pb2 as flagd_v1
from decider.flagd.v2 import evaluation_pb2 as flagd_v2
from decider.learn.leader import Progress
from decider.learn.limits import largest_definition
from decider.log.group_commit import Call, CommitExecutor
from decider.log.protocol import LocateAll
from decider.metrics.access import RefusalMetrics
from decider.metrics.connections import ConnectionsCollector
from decider.metrics.rpc import RpcMetrics
from decider.metrics.web import WebMetrics
from decider.server.connections import Connections, stop_listening
from decider.server.experiments import ExperimentService
from decider.server.flags.events import LOOK_INTERVAL, FlagEvents
from decider.server.flags.flagd import Flagd
from decider.server.flags.flags import Flags
from decider.server.flags.ofrep import endpoints
from decider.server.grpc_port import ALONE, GrpcPort
from decider.server.listeners import DECISIONS, EXPERIMENTS, FLAGS, LISTEN, WEB, Listener
from decider.server.methods import methods_of, streams_of
from decider.server.process import Process
from decider.server.service import DeciderService
from decider.server.web.files import client_files
from decider.server.web.port import WebPort
from decider.server.web.routes import Endpoint

logger = logging.getLogger(__name__)

FEW_FILES = (
    "gRPC takes {} connections at once, fewer than --max-connections: half of the files that the process may open "
    "(ulimit -n, LimitNOFILE)"
)

ALL_TAKEN_IN = 1.0
"""Seconds for which a process that stops to listen waits at most until whoever connects was taken in."""


class Worker:
    """`open`, `start`, `drain`. process: open. progress: of the models of versions that wait. sharing: of its ports,
    see GrpcPort."""

    def __init__(
        self,
        process: Process,
        *,
        progress: Callable[[], Sequence[Progress]],
        sharing: Sequence[tuple[str, int]] = ALONE,
    ) -> None:
        self._process = process
        self._progress = progress
        self._sharing = sharing
        self._ports: dict[str, GrpcPort] = {}
        self._web: WebPort | None = None
        self._pulse: Call | None = None

    def open(self, listeners: Sequence[Listener]) -> None:
        """Take the ports; callers wait until `start`. Raises AddressInUse."""
        process = self._process
        self._calls = calls = CommitExecutor(process.log.append, threads=process.settings.threads)
        process.opened.callback(calls.shutdown)
        locate_all = calls.share(process.log.locate_all)
        decisions = self._decisions(locate_all)
        flags = Flags(decisions, process.current, process.log, locate_all=locate_all)
        services = self._services(decisions, flags)
        metrics = RpcMetrics(process.registry)
        for listener in listeners:
            self._open_grpc(listener, services, metrics)
        self._open_web(services, metrics, endpoints(flags, metrics))
        self._connections = connections = Connections(
            self._ports if self._web is None else {**self._ports, WEB: self._web}
        )
        process.registry.register(ConnectionsCollector(connections.count, connections.limits))
        process.warnings.append(lambda: connections.warnings)

    def _decisions(self, locate_all: LocateAll) -> DeciderService:
        process = self._process
        return DeciderService(
            process.current,
            process.log,
            append=self._calls.append,
            budget=process.budget,
            locate_all=locate_all,
            ask_all=self._calls.share(asks_for),
            metrics=process.requests,
            agreement=process.agreement,
            clock=process.clock,
            follow=process.follower.follow,
            max_reply_bytes=process.settings.max_reply_bytes,
        )

    def _services(self, decisions: DeciderService, flags: Flags) -> Mapping[str, object]:
        """What answers each, by name."""
        process = self._process
        self._events = events = FlagEvents(process.current)
        return {
            DECISIONS: decisions,
            **{name: Flagd(of, flags, events) for name, of in zip(FLAGS, (flagd_v1, flagd_v2), strict=True)},
            EXPERIMENTS: ExperimentService(
                process.log,
                process.current,
                process.follower,
                process.versions,
                progress=self._progress,
                page_bytes=largest_definition(process.settings.max_reply_bytes),
            ),
        }

    def _open_grpc(self, listener: Listener, services: Mapping[str, object], metrics: RpcMetrics) -> None:
        process, settings = self._process, self._process.settings
        if listener.option == LISTEN and listener.most_connections < settings.max_connections:
            logger.warning("%s", FEW_FILES.format(listener.most_connections))
        port = GrpcPort(
            settings,
            listener,
            services,
            calls=self._calls,
            metrics=metrics,
            access=process.access,
            sharing=self._sharing,
        )
        process.opened.callback(port.stop)
        process.access_looks.append(port.look)
        self._ports[listener.option] = port

    def _open_web(self, services: Mapping[str, object], metrics: RpcMetrics, more: Sequence[Endpoint]) -> None:
        """Where there is to be one; its metrics are there anyway."""
        process = self._process
        refused, count = RefusalMetrics(process.registry).count, WebMetrics(process.registry).count
        if process.settings.web is None:
            return
        names = (DECISIONS, *FLAGS)
        methods = [one for name in names for one in methods_of(name, services[name], metrics)]
        streams = [one for name in names for one in streams_of(name, services[name])]
        self._web = port = WebPort(
            process.settings,
            [*methods, *streams],
            calls=self._calls,
            access=process.access,
            count=count,
            refused=refused,
            endpoints=more,
            files=client_files(),
            shared=self._sharing is not ALONE,
        )
        process.opened.callback(port.stop)
        process.access_looks.append(port.look)

    @property
    def grpc_port(self) -> GrpcPort:
        """The one for decisions."""
        return self._ports[LISTEN]

    @property
    def addresses(self) -> Mapping[str, str]:
        """Where calls are taken, by option."""
        web = {} if self._web is None else {WEB: self._web.address}
        return {option: port.address for option, port in self._ports.items()} | web

    def start(self) -> None:
        """Take calls."""
        self._process.run(self._tell_events, "flag events")
        for port in self._ports.values():
            port.start()
        if self._web is not None:
            self._web.start()

    def _tell_events(self) -> None:
        while not self._process.stopping.wait(LOOK_INTERVAL):
            self._process.try_to(self._events.look)

    def answers(self) -> bool:
        """Whether a call that does nothing has gone through the threads that answer, since this was asked last."""
        if self._pulse is None or self._pulse.has_ended:
            self._pulse = Call(lambda: None, ())
            self._calls.run(self._pulse)
            return True
        return False

    def stop_listening(self) -> None:
        """No new connection comes to this process; those that are there stay."""
        patient_until = time.monotonic() + ALL_TAKEN_IN
        stop_listening([port.port for port in self._ports.values()], patient_until=patient_until)
        if self._web is not None:
            self._web.leave(patient_until=patient_until)

    def has_connections(self) -> bool:
        """As far as the system tells."""
        return any(self._connections.count().values())

    def drain(self, deadline: float) -> None:
        """Set NOT_SERVING and finish calls in flight, until the monotonic clock reads `deadline`."""
        self._events.end()
        for port in self._ports.values():
            port.refuse(deadline - time.monotonic())
        if self._web is not None:
            self._web.refuse()
            self._web.wait_until_idle(deadline - time.monotonic())
        for port in self._ports.values():
            port.wait_until_idle(deadline - time.monotonic())
        if self._web is not None:
            self._web.stop()
        for port in self._ports.values():
            port.stop()
