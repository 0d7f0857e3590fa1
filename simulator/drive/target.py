"""The server that is driven: make the experiment run there, and connections that outlive its death.

Called by the drives. A failed call is an exception with the status by name.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from decider.channel import credentials_of, open_channel
from decider.errors import DeciderError
from decider.types import Position
from decider.v1 import experiment_pb2, experiment_service_pb2
from decider.v1.decider_service_pb2_grpc import DeciderServiceStub
from decider.v1.experiment_service_pb2_grpc import ExperimentServiceStub

LOOK_AGAIN = 0.2
"""Seconds between looks whether a version serves."""

TIMEOUT = 10.0
"""Seconds that a call may take."""

_RECONNECT = (
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own, not one that all clients share
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),  # where the target names several servers
)


class DriveFailed(DeciderError):
    """The server did not answer, or refused."""

    reason = "DRIVE_FAILED"


def running(target: str, id_: str) -> experiment_pb2.Experiment | None:
    """What runs there under this id. Raises DriveFailed."""
    with failures(target), open_channel(target, credentials_of()) as channel:
        try:
            return _serving(ExperimentServiceStub(channel), id_).experiment  # type: ignore[no-untyped-call]
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return None
            raise


def model_at(target: str, id_: str) -> Position:
    """The model that serves: the log position that it has learned up to. Raises DriveFailed."""
    with failures(target), open_channel(target, credentials_of()) as channel:
        return Position(_serving(ExperimentServiceStub(channel), id_).model)  # type: ignore[no-untyped-call]


def _serving(stub: Any, id_: str) -> experiment_service_pb2.VersionedExperiment:
    request = experiment_service_pb2.GetExperimentRequest(id=id_)
    found: experiment_service_pb2.VersionedExperiment = stub.GetExperiment(request, timeout=TIMEOUT).experiment
    return found


def apply(
    target: str, definition: experiment_pb2.Experiment, *, note: str = ""
) -> experiment_service_pb2.ApplyExperimentResponse:
    """Make the experiment run, and wait until its policy has learned what the log knows; how it runs now.

    note: kept in the log with the version. Raises DriveFailed.
    """
    request = experiment_service_pb2.ApplyExperimentRequest(experiment=definition, note=note)
    with failures(target), open_channel(target, credentials_of()) as channel:
        stub = ExperimentServiceStub(channel)  # type: ignore[no-untyped-call]
        reply: experiment_service_pb2.ApplyExperimentResponse = stub.ApplyExperiment(request, timeout=TIMEOUT)
        if reply.waits:
            reply.applied.CopyFrom(_served(stub, definition.id, reply.applied.version))
        return reply


def _served(stub: Any, id_: str, version: int) -> experiment_service_pb2.VersionedExperiment:
    """Once that version serves, or a later one."""
    while (served := _serving(stub, id_)).version < version:
        time.sleep(LOOK_AGAIN)
    return served


@contextmanager
def failures(target: str) -> Iterator[None]:
    """gRPC's errors as DriveFailed, with the status by name."""
    try:
        yield
    except grpc.RpcError as error:
        code = error.code()
        advice = ""
        if code == grpc.StatusCode.UNAVAILABLE:
            advice = f"; is a server there? Start one: decider serve --listen {target}"
        raise DriveFailed(f"{target}: {code.name}: {error.details()}{advice}") from error


@contextmanager
def connection(target: str) -> Iterator[Any]:
    """A stub with a connection of its own, which is made anew soon after the server is back."""
    with open_channel(target, credentials_of(), _RECONNECT) as channel:
        yield DeciderServiceStub(channel)  # type: ignore[no-untyped-call]
