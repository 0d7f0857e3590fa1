"""A small Python client. A frontend must show something even when the server does not answer: `fallback`.

>>> client = Client("127.0.0.1:1", timeout=0.05)  # nobody listens there
>>> choice = client.decide("storefront", "visitor-1", fallback="new-arrivals", segment="vip")
>>> choice.action.id, choice.decision_id
('new-arrivals', '')
>>> client.reward(choice.decision_id, "click")  # nothing to reward: nothing is sent
>>> client.close()
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from decider.types import CONTEXT_FIELDS, FeatureValue
from decider.v1 import decider_service_pb2 as pb
from decider.v1.decider_service_pb2_grpc import DeciderServiceStub

NO_ANSWER = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,  # by a server that ends
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,  # paused, or no action is left
    grpc.StatusCode.INTERNAL,
)


class Client:
    """Calls one server. timeout: seconds that a call may take. Also a context manager."""

    def __init__(self, target: str, *, timeout: float = 1.0) -> None:
        if "://" in target:
            raise ValueError(f"target is HOST:PORT, without {target.partition('://')[0]}://")
        self._channel = grpc.insecure_channel(target)
        self._timeout = timeout
        self.stub: Any = DeciderServiceStub(self._channel)  # type: ignore[no-untyped-call]

    def decide(
        self,
        experiment: str,
        unit_id: str,
        *,
        fallback: str | None = None,
        decision_id: str = "",
        **context: FeatureValue,
    ) -> pb.DecideResponse:
        """Choose an action. Keywords are the context: the five fields, anything else is a feature.

        With a `fallback` action, a server that does not answer, or whose experiment is paused, gives that action with
        reason FALLBACK and without a decision id; without one, and for wrong input always, it raises grpc.RpcError.
        """
        request = pb.DecideRequest(
            experiment=experiment, unit_id=unit_id, decision_id=decision_id, context=_context(context)
        )
        try:
            reply: pb.DecideResponse = self.stub.Decide(request, timeout=self._timeout)
        except grpc.RpcError as error:
            if fallback is None or error.code() not in NO_ANSWER:
                raise
            return pb.DecideResponse(action=pb.DecidedAction(id=fallback), propensity=1.0, reason=pb.REASON_FALLBACK)
        return reply

    def reward(self, decision_id: str, name: str = "reward", value: float = 1.0, *, reward_id: str = "") -> None:
        """Say how well a decision went. For a fallback's empty decision id there is nothing to say.

        Raises grpc.RpcError; send it again with the same `reward_id` and it counts once.
        """
        if decision_id:
            request = pb.RewardRequest(decision_id=decision_id, name=name, value=value, reward_id=reward_id)
            self.stub.Reward(request, timeout=self._timeout)

    def activate(self, decision_id: str, action: str = "") -> None:
        """Say that the decision's action was shown, or which `action` was shown in its place."""
        if decision_id:
            self.stub.Activate(pb.ActivateRequest(decision_id=decision_id, action=action), timeout=self._timeout)

    def close(self) -> None:
        """Let go of the connection."""
        self._channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _context(known: Mapping[str, FeatureValue]) -> pb.Context:
    fields = {name: value for name, value in known.items() if name in CONTEXT_FIELDS}
    context = pb.Context(**fields)  # type: ignore[arg-type]
    context.features.update({name: value for name, value in known.items() if name not in CONTEXT_FIELDS})
    return context
