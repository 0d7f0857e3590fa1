"""Which server speaks gRPC: grpcio's own, or h2corn. Called by `worker.py`."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

from decider.errors import DeciderError

GRPCIO, H2CORN = RPCS = ("grpcio", "h2corn")


class RpcNotInstalled(DeciderError):
    """The extra is missing."""

    reason = "RPC_NOT_INSTALLED"


class RpcPort(Protocol):
    """See GrpcPort."""

    port: int
    address: str
    most_connections: int

    def start(self) -> None:
        """Take calls."""

    def refuse(self, grace: float) -> None:
        """Take no new calls; calls in flight have so many seconds."""

    def wait_until_idle(self, seconds: float) -> None:
        """Wait until no call is in flight, at most so many seconds."""

    def look(self) -> None:
        """End what its caller may no longer do."""

    def stop(self) -> None:
        """End open streams. May be called again."""


def port_class(rpc: str) -> Any:
    """Of this name. Raises RpcNotInstalled."""
    if rpc == GRPCIO:
        from decider.server.grpc_port import GrpcPort

        return GrpcPort
    try:
        return import_module("decider.server.fast.port").FastPort
    except ModuleNotFoundError as error:
        raise RpcNotInstalled(f"--rpc {rpc} needs {error.name}: pip install 'decider[fast]'") from None
