"""Standard gRPC health checking: of the server, the empty name, and of each service. Called by `grpc_port.py`.

Every call is a stream of `intake.py`, which takes no thread: health is answered whatever the calls wait for, and
however many clients watch it: those that ask once do not count among those that watch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse, HealthListResponse

from decider.server.intake import Stream, Streaming

SERVICE = "grpc.health.v1.Health"

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN

Status = int
"""A `HealthCheckResponse.ServingStatus`."""


class Health:
    """All names have the same status."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._status: Status = NOT_SERVING
        self._watches: set[_Watch] = set()
        self._lock = threading.Lock()

    def set(self, status: Status) -> None:
        """Say it to everybody who asks or watches."""
        self._status = status
        with self._lock:
            watches = [*self._watches]
        for watch in watches:
            watch.tell()

    def handlers(self) -> Mapping[str, grpc.RpcMethodHandler]:
        """By method."""
        return {
            "Check": grpc.unary_unary_rpc_method_handler(Streaming(self._check, brief=True)),
            "List": grpc.unary_unary_rpc_method_handler(Streaming(self._list, brief=True)),
            "Watch": grpc.unary_stream_rpc_method_handler(Streaming(self._watch)),
        }

    def _status_of(self, name: str) -> Status:
        return self._status if name in self._names else UNKNOWN

    def _check(self, stream: Stream, request: bytes) -> None:
        status = self._status_of(HealthCheckRequest.FromString(request).service)
        if status == UNKNOWN:
            stream.end(grpc.StatusCode.NOT_FOUND, "this server has no such service")
        else:
            stream.send(_reply(status), stream.end)

    def _list(self, stream: Stream, _: bytes) -> None:
        replies = {name: HealthCheckResponse(status=self._status) for name in self._names}
        stream.send(HealthListResponse(statuses=replies).SerializeToString(), stream.end)

    def _watch(self, stream: Stream, request: bytes) -> None:
        name = HealthCheckRequest.FromString(request).service
        known = name if name in self._names else "?"  # a name may be as long as a request, and is kept
        watch = _Watch(stream, lambda: self._status_of(known))
        with self._lock:
            self._watches.add(watch)
        stream.on_end(lambda: self._end(watch))
        watch.tell()

    def _end(self, watch: _Watch) -> None:
        with self._lock:
            self._watches.discard(watch)


class _Watch:
    """Sends the status whenever it is not the one that was sent last."""

    def __init__(self, stream: Stream, status: Callable[[], Status]) -> None:
        self._stream, self._status = stream, status
        self._lock = threading.Lock()
        self._told: Status | None = None
        self._sending = False

    def tell(self) -> None:
        """One reply at a time: a status that changes meanwhile is told afterwards."""
        with self._lock:
            status = self._status()
            if self._sending or status == self._told:
                return
            self._sending, self._told = True, status
        self._stream.send(_reply(status), self._sent)

    def _sent(self) -> None:
        with self._lock:
            self._sending = False
        self.tell()


def _reply(status: Status) -> bytes:
    return bytes(HealthCheckResponse(status=status).SerializeToString())
