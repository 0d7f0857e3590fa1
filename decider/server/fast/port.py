"""A gRPC port by h2corn, a server of HTTP/2 in Rust (extra `fast`): the same services as `grpc_port.py`, for less
processor time. Called by `worker.py`.

What is used of h2corn that it does not promise stands in this file alone: `_serve_worker_fds`, with which it serves
sockets and certificates that are given to it, and writes no lines of its own. So its version is a fixed one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import uvloop
from h2corn import Config, RequestPolicy, Server
from h2corn._lib import prepare_tls
from h2corn._server import TlsMaterial

from decider.errors import NotAnsweredHere
from decider.log.group_commit import CommitExecutor
from decider.metrics.rpc import RpcMetrics
from decider.server.access import Access
from decider.server.certificates import BadCertificates
from decider.server.experiment_threads import ExperimentThreads
from decider.server.fast.app import Elsewhere, FastApp, Known, Unary, paths
from decider.server.grpc_port import ALONE, HANDSHAKE_MS, LAST_BYTES, LONGEST_LEFTOVER_MS
from decider.server.health import NOT_SERVING, SERVING, Health
from decider.server.health import SERVICE as HEALTH
from decider.server.http.listen import open_socket
from decider.server.intake import LAST_ARRIVALS, LOOK_AGAIN, Run, Streaming
from decider.server.limits import Limit
from decider.server.listeners import DECISIONS, EXPERIMENTS, FLAGS, Listener
from decider.server.methods import descriptors_of, methods_of, observer_of_refusals, streams_of
from decider.server.reflection import SERVICE as REFLECTION
from decider.server.reflection import Reflection
from decider.server.settings import Settings, join_address, split_address

logger = logging.getLogger(__name__)

STREAM_WINDOW, CONNECTION_WINDOW = 262_144, 1_048_576
"""Bytes that a client may send before the application has taken them."""

BODY_IDLE = 30.0
"""Seconds without a byte of a request that is not whole."""

UNREAD = 30.0
"""Seconds for which a client may not read what is sent."""

LARGEST_HEADERS = 32_768
"""Bytes of the headers of a call; grpcio takes 8 to 16 KiB."""

START_WAIT = 30.0
"""Seconds for h2corn to listen."""


class FastPort:
    """As GrpcPort, with the same arguments. A new certificate, and the age of connections, begin a new generation of
    the server at the same socket; the one before asks its clients to connect anew, and ends once they have left."""

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
        self.most_connections = listener.most_connections
        self._settings, self._certificates = settings, access.certificates
        self._max_age = None if sharing is ALONE else settings.max_age
        self._experiments = ExperimentThreads()
        self._health = Health(("", *listener.services))
        self._reflection = Reflection((*listener.services, HEALTH, REFLECTION))
        runs: Mapping[str, Callable[[str], Run]] = {
            **dict.fromkeys((DECISIONS, *FLAGS), lambda _: calls.run),
            EXPERIMENTS: self._experiments.run_of,
        }
        known: dict[str, Known] = {}
        for name in listener.services:
            known |= _methods(name, services[name], metrics, runs[name])
        for name, option in listener.elsewhere.items():
            known |= _refusals(name, option, metrics)
        known |= dict([*paths(HEALTH, self._health.handlers()), *paths(REFLECTION, self._reflection.handlers())])
        most, of_one = settings.max_streams, settings.max_caller_streams
        self._app = FastApp(
            known,
            calls=Limit("calls", most=settings.max_concurrent_rpcs, most_of_one=settings.max_caller_rpcs),
            streams=Limit("streams", most=most, most_of_one=of_one),
            checks=Limit("health checks", most=most, most_of_one=of_one),
            most_arriving=settings.max_caller_rpcs,
            access=access if access.asks else None,
            most_bytes=settings.max_request_bytes,
        )
        host, wanted = split_address(listener.address)
        self._socket = open_socket(host, wanted, shared=sharing is not ALONE)
        self.port: int = self._socket.getsockname()[1]
        self.address = join_address(host, self.port)
        self._config = self._make_config(listener)
        self._given = self._material()
        self._stops, self._listens, self._renew = threading.Event(), threading.Event(), threading.Event()
        self._failed: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="h2corn", daemon=True)

    def _make_config(self, listener: Listener) -> Config:
        settings = self._settings
        policy = RequestPolicy(
            path="/*",
            max_request_body_size=2 * settings.max_request_bytes,  # the application says it first, in gRPC's words
            timeout_request_body_idle=BODY_IDLE,
            h2_timeout_response_stall=UNREAD,
        )
        most_streams = settings.max_caller_rpcs + settings.max_caller_streams
        return Config(
            bind=(listener.address,),
            certfile=settings.tls_cert,
            keyfile=settings.tls_key,
            ca_certs=settings.tls_client_ca,
            cert_reqs="none" if settings.tls_client_ca is None else "required",
            runtime_threads=1,
            http1=False,
            grpc=True,
            access_log=False,
            date_header=False,
            lifespan="off",
            max_concurrent_streams=2 * most_streams,
            limit_request_fields=100,
            h2_max_header_list_size=LARGEST_HEADERS,
            h2_max_header_block_size=LARGEST_HEADERS,
            h2_max_inbound_frame_size=16_384,
            h2_initial_stream_window_size=STREAM_WINDOW,
            h2_initial_connection_window_size=CONNECTION_WINDOW,
            request_policies=(policy,),
            limit_connections=listener.most_connections,
            timeout_handshake=HANDSHAKE_MS / 1000,
            timeout_graceful_shutdown=LONGEST_LEFTOVER_MS / 1000,
            timeout_keep_alive=settings.max_idle,
            timeout_request_header=HANDSHAKE_MS / 1000,
            timeout_request_body_idle=BODY_IDLE,
            h2_timeout_response_stall=UNREAD,
            h2_timeout_write=UNREAD,
        )

    def _material(self) -> TlsMaterial | None:
        if self._certificates is None:
            return None
        key, chain, *authorities = self._certificates.pem
        return TlsMaterial(certificate=chain, private_key=key, client_ca=authorities[0] if authorities else None)

    def start(self) -> None:
        """Take calls. Raises BadCertificates."""
        self._thread.start()
        self._listens.wait(START_WAIT)
        if self._failed is not None:
            raise BadCertificates(f"--tls-cert and --tls-key: h2corn does not take them: {self._failed}")
        self._health.set(SERVING)

    def refuse(self, _: float) -> None:
        """Take no new calls."""
        self._health.set(NOT_SERVING)
        self._stops.set()
        self._tell()

    def wait_until_idle(self, seconds: float) -> None:
        """Wait until no call is in flight, at most so many seconds."""
        now = time.monotonic()
        arrived, end = now + min(seconds, LAST_ARRIVALS), now + seconds
        while (time.monotonic() < end and not self._app.is_idle()) or (
            time.monotonic() < arrived and not self._app.is_quiet()
        ):
            time.sleep(LOOK_AGAIN)

    def look(self) -> None:
        """As GrpcPort; and serve new certificates."""
        self._app.look()
        material = self._material()
        if material != self._given:
            self._given = material
            self._renew.set()
            self._tell()

    def stop(self) -> None:
        """End open streams (health watches, reflection). May be called again."""
        self.refuse(0)
        self._experiments.wait_for_applying()
        self._app.end_streams()
        if self._thread.ident is None:
            self._socket.close()
        else:
            self._thread.join(LAST_BYTES)
        self._experiments.shutdown()
        self._reflection.stop()

    def _tell(self) -> None:
        if self._loop is not None and self._wake is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._wake.set)

    def _run(self) -> None:
        """The thread: one generation of the server after the other."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        generations: list[tuple[Server, asyncio.Task[None]]] = []
        try:
            generations.append(await self._begin())
        except Exception as error:
            self._failed = error
            return
        finally:
            self._listens.set()
        while not self._stops.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._age())
            self._wake.clear()
            if not self._stops.is_set() and (self._renew.is_set() or self._max_age is not None):
                self._renew.clear()
                await self._follow(generations)
        self._socket.close()
        for server, _ in generations:
            server.shutdown()
        await asyncio.gather(*[task for _, task in generations], return_exceptions=True)

    def _age(self) -> float | None:
        return None if self._max_age is None else self._max_age * random.uniform(0.9, 1.1)

    async def _follow(self, generations: list[tuple[Server, asyncio.Task[None]]]) -> None:
        """A new generation takes the place of the newest one."""
        try:
            newest = await self._begin()
        except Exception as error:
            logger.error("h2corn does not take the new certificates, those from before still hold: %s", error)
            return
        generations[-1][0].shutdown()
        generations[:] = [one for one in generations if not one[1].done()] + [newest]

    async def _begin(self) -> tuple[Server, asyncio.Task[None]]:
        server = Server(self._app, self._config)
        tls = prepare_tls(self._config, self._given)
        serving = server._serve_worker_fds([os.dup(self._socket.fileno())], prepared_tls=tls)
        task = asyncio.ensure_future(serving)
        await server.wait_started()
        return server, task


def _methods(service: str, servicer: object, metrics: RpcMetrics, run_of: Callable[[str], Run]) -> dict[str, Known]:
    unary = [Unary(one, run_of(one.name)) for one in methods_of(service, servicer, metrics)]
    streams = {f"/{service}/{one.name}": Streaming(one.answer, one.role) for one in streams_of(service, servicer)}
    return {f"/{service}/{one.method.name}": one for one in unary} | streams


def _refusals(service: str, option: str, metrics: RpcMetrics) -> dict[str, Known]:
    error = NotAnsweredHere(f"{service} is not answered at this address, but at that of {option}")
    return {
        f"/{service}/{method.name}": Elsewhere(error, observer_of_refusals(service, method.name, metrics))
        for method in descriptors_of(service)
    }
