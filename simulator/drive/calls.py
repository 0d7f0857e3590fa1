"""One call of the service, with its failures as words: to be sent again, or the end of the drive.

Called by `send.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import grpc

from decider.v1 import decider_service_pb2 as pb
from simulator.drive.target import TIMEOUT

AGAIN = frozenset(
    {"UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL", "UNKNOWN", "CANCELLED", "ABORTED"}
)
"""Statuses after which nobody knows whether the call was carried out: it is sent again with the same ids."""

_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


class Unanswered(Exception):
    """A call, or one request of a batch, that failed. status: by name."""

    def __init__(self, status: str, details: str) -> None:
        super().__init__(f"{status}: {details}")
        self.status = status

    @property
    def again(self) -> bool:
        """Whether to send it again."""
        return self.status in AGAIN


def decide(stub: Any, requests: Sequence[pb.DecideRequest]) -> list[pb.DecideResponse]:
    """One Decide, or one DecideBatch for several. Raises Unanswered if any of them failed."""
    if len(requests) == 1:
        return [_call(stub.Decide, requests[0])]
    reply = _call(stub.DecideBatch, pb.DecideBatchRequest(requests=requests))
    return [_result(result) for result in reply.results]


def reward(stub: Any, requests: Sequence[pb.RewardRequest]) -> list[pb.RewardResponse | None]:
    """One Reward, or one RewardBatch for several; None where the server knows no such decision.

    Raises Unanswered if any of them failed otherwise.
    """
    if len(requests) == 1:
        return [_unless_missing(lambda: _call(stub.Reward, requests[0]))]
    reply = _call(stub.RewardBatch, pb.RewardBatchRequest(requests=requests))
    return [_unless_missing(lambda result=result: _result(result)) for result in reply.results]  # type: ignore[misc]


def link(stub: Any, unit: str, same_as: str) -> None:
    """One LinkUnits. Raises Unanswered."""
    _call(stub.LinkUnits, pb.LinkUnitsRequest(unit_id=unit, same_as=same_as))


def _call(method: Any, request: Any) -> Any:
    try:
        return method(request, timeout=TIMEOUT)
    except grpc.RpcError as error:
        raise Unanswered(error.code().name, error.details() or "") from error


def _result(result: Any) -> Any:
    if result.WhichOneof("result") == "error":
        raise Unanswered(_NAMES[result.error.code], result.error.message)
    return result.response


def _unless_missing(call: Callable[[], pb.RewardResponse]) -> pb.RewardResponse | None:
    try:
        return call()
    except Unanswered as failed:
        if failed.status != "NOT_FOUND":
            raise
        return None
