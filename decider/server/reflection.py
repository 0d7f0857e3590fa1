"""Standard gRPC reflection: tools as grpcurl ask which services there are. Called by `grpc_port.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as SERVICE
from grpc_reflection.v1alpha.reflection import ReflectionServicer
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from decider.server.intake import Stream, Streaming
from decider.server.roles import METHODS

__all__ = ["SERVICE", "Reflection"]


class Reflection:
    """Streams stay open as long as the caller likes, without a thread. An answer takes milliseconds, so one thread of
    its own makes them in turns."""

    def __init__(self, names: Iterable[str]) -> None:
        self._servicer = ReflectionServicer(tuple(names))
        self._answering = ThreadPoolExecutor(1, "reflection")

    def handlers(self) -> Mapping[str, grpc.RpcMethodHandler]:
        """By method."""
        return {
            "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
                Streaming(self._take, METHODS[f"{SERVICE}/ServerReflectionInfo"])
            )
        }

    def stop(self) -> None:
        """After the server."""
        self._answering.shutdown(wait=False, cancel_futures=True)

    def _take(self, stream: Stream, request: bytes) -> None:
        self._answering.submit(self._answer, stream, ServerReflectionRequest.FromString(request))

    def _answer(self, stream: Stream, question: ServerReflectionRequest) -> None:
        (reply,) = self._servicer.ServerReflectionInfo(iter([question]), None)
        stream.send(reply.SerializeToString(), lambda: stream.receive(lambda more: self._take(stream, more)))
