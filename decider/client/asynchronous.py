"""The client for pages that run in an event loop. Its twin `blocking.py` says what everything does; a test compares."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from os import PathLike
from types import TracebackType
from typing import Any, SupportsFloat, TypeVar

from decider.channel import credentials_of
from decider.client.connection import AsyncConnection
from decider.client.core import Core
from decider.client.decisions import Steps
from decider.client.deliveries import Outcome
from decider.client.failures import Kind, OnError
from decider.client.fallback import ABSENT, Absent, GivenFallback, GivenFallbacks
from decider.v1 import decider_service_pb2 as pb

T = TypeVar("T")


class AsyncClient:
    """See `Client`. It is made anywhere, and opens a connection for each event loop that calls it."""

    def __init__(
        self,
        target: str,
        *,
        timeout: float = 1.0,
        queue_size: int = 10_000,
        queue_age: float = 3600.0,
        on_error: OnError | None = None,
        token: str | None = None,
        token_file: str | PathLike[str] | None = None,
        ca: str | PathLike[str] | None = None,
        cert: str | PathLike[str] | None = None,
        key: str | PathLike[str] | None = None,
    ) -> None:
        credentials = credentials_of(token=token, token_file=token_file, ca=ca, cert=cert, key=key)
        self._core = Core(
            target,
            timeout=timeout,
            queue_size=queue_size,
            queue_age=queue_age,
            on_error=on_error,
            credentials=credentials,
        )
        self._connection = AsyncConnection(self._core.target, timeout=self._core.timeout, credentials=credentials)

    @property
    def stub(self) -> Any:
        """The generated code's, for what has no method here. Its calls raise grpc.RpcError."""
        return self._connection.stub

    async def decide(
        self,
        /,
        experiment: str,
        unit_id: str,
        *,
        fallback: GivenFallback = ABSENT,
        decision_id: str | None = None,
        eligible_actions: Iterable[str] | None = None,
        excluded_actions: Iterable[str] | None = None,
        action_features: Mapping[str, Mapping[str, object]] | None = None,
        actions: Iterable[Mapping[str, object]] | None = None,
        default_action: str | None = None,
        explore: bool | None = None,
        with_ranking: bool | None = None,
        features: Mapping[str, object] | None = None,
        **context: object,
    ) -> pb.DecideResponse:
        """See `Client.decide`."""
        asked = {
            "experiment": experiment,
            "unit_id": unit_id,
            "decision_id": decision_id,
            "eligible_actions": eligible_actions,
            "excluded_actions": excluded_actions,
            "action_features": action_features,
            "actions": actions,
            "default_action": default_action,
            "explore": explore,
            "with_ranking": with_ranking,
            "features": features,
            **context,
        }
        return await self._take(self._core.decisions.decide(asked, fallback))

    async def decide_slate(
        self,
        /,
        experiment: str,
        unit_id: str,
        slots: Iterable[Mapping[str, object]],
        *,
        fallback: GivenFallbacks = ABSENT,
        slate_id: str | None = None,
        action_features: Mapping[str, Mapping[str, object]] | None = None,
        actions: Iterable[Mapping[str, object]] | None = None,
        explore: bool | None = None,
        with_ranking: bool | None = None,
        features: Mapping[str, object] | None = None,
        **context: object,
    ) -> pb.DecideSlateResponse:
        """See `Client.decide_slate`."""
        asked = {
            "experiment": experiment,
            "unit_id": unit_id,
            "slots": slots,
            "slate_id": slate_id,
            "action_features": action_features,
            "actions": actions,
            "explore": explore,
            "with_ranking": with_ranking,
            "features": features,
            **context,
        }
        return await self._take(self._core.decisions.decide_slate(asked, fallback))

    async def decide_batch(
        self, requests: Iterable[Mapping[str, object]], *, fallback: GivenFallback = ABSENT
    ) -> list[pb.DecideResult]:
        """See `Client.decide_batch`."""
        return await self._take(self._core.decisions.decide_batch(requests, fallback))

    async def reward(
        self,
        decision_id: str | None,
        name: str | None = None,
        value: SupportsFloat | Absent = ABSENT,
        *,
        reward_id: str | None = None,
        occurred_at: datetime | None = None,
        correct: bool = False,
        retract: bool = False,
        final: bool = False,
    ) -> Outcome:
        """See `Client.reward`."""
        asked = {
            "decision_id": decision_id,
            "name": name,
            "reward_id": reward_id,
            "occurred_at": occurred_at,
            "correct": correct,
            "retract": retract,
            "final": final,
            "value": value,
        }
        return await self._take(self._core.deliveries.reward(asked))

    async def reward_unit(
        self,
        unit_id: str,
        name: str | None = None,
        value: SupportsFloat | Absent = ABSENT,
        *,
        experiment: str | None = None,
        reward_id: str | None = None,
        occurred_at: datetime | None = None,
        correct: bool = False,
        retract: bool = False,
        final: bool = False,
    ) -> Outcome:
        """See `Client.reward_unit`."""
        asked = {
            "unit_id": unit_id,
            "name": name,
            "experiment": experiment,
            "reward_id": reward_id,
            "occurred_at": occurred_at,
            "correct": correct,
            "retract": retract,
            "final": final,
            "value": value,
        }
        return await self._take(self._core.deliveries.reward(asked))

    async def link_units(self, unit_id: str, same_as: str) -> Outcome:
        """See `Client.link_units`."""
        return await self._take(self._core.deliveries.link_units({"unit_id": unit_id, "same_as": same_as}))

    async def reward_batch(self, rewards: Iterable[Mapping[str, object]]) -> list[Outcome]:
        """See `Client.reward_batch`."""
        return await self._take(self._core.deliveries.reward_batch(rewards))

    async def activate(self, decision_id: str | None, action: str | None = None) -> Outcome:
        """See `Client.activate`."""
        return await self._take(self._core.deliveries.activate({"decision_id": decision_id, "action": action}))

    def activate_later(self, decision_id: str | None, action: str | None = None) -> Outcome:
        """See `Client.activate_later`."""
        return self._core.deliveries.activate_later({"decision_id": decision_id, "action": action})

    @property
    def fallbacks(self) -> Counter[Kind]:
        """See `Client.fallbacks`."""
        return self._core.fallbacks

    @property
    def undelivered(self) -> Counter[Kind]:
        """See `Client.undelivered`."""
        return self._core.undelivered

    @property
    def waiting(self) -> int:
        """See `Client.waiting`."""
        return self._core.waiting

    async def flush(self, timeout: float = 5.0) -> bool:
        """See `Client.flush`."""
        return await asyncio.to_thread(self._core.flush, timeout)

    async def close(self, timeout: float = 2.0) -> None:
        """See `Client.close`."""
        await asyncio.to_thread(self._core.close, timeout)
        await self._connection.close()

    async def _take(self, steps: Steps[T]) -> T:
        try:
            call = next(steps)
            while True:
                try:
                    reply = await self._connection.call(call)
                except BaseException as error:
                    call = steps.throw(error)
                else:
                    call = steps.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
