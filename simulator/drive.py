"""Drive a live server with a world's visitors: real gRPC, delayed, lost and duplicate rewards. Called by the demo."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from uuid import UUID

from decider.client import Client
from decider.types import CONTEXT_FIELDS, Context
from decider.v1 import decider_service_pb2 as pb
from simulator.worlds.scenes import storefront

LOST = 0.02
LATE = 0.03
DUPLICATE = 0.05
MEAN_DELAY = 0.4
"""Seconds, exponential, from the decision to its click."""

AT_ONCE = 4
"""Visitors at once, each with a thread of the client's."""


def delivered(window: float) -> float:
    """Share of clicks that reach the server within the window (seconds)."""
    return (1 - LOST - LATE) * (1 - math.exp(-window / MEAN_DELAY))


@dataclass(slots=True)
class Sent:
    """What was sent and how it was answered."""

    decisions: int = 0
    clicks: int = 0
    lost: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)


class StorefrontDrive:
    """Visitors of the storefront world, who decide and click in real time."""

    def __init__(self, client: Client, *, experiment: str, window: float, seed: int) -> None:
        self._client = client
        self._experiment = experiment
        self._window = window
        self._random = Random(seed)
        self._due: list[tuple[float, int, pb.RewardRequest]] = []
        self.sent = Sent()

    def run(self, visitors: int, *, on_decision: Callable[[], None] = lambda: None) -> Sent:
        """Send that many visitors, and all rewards that are not lost."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for start in range(0, visitors, AT_ONCE * 8):
                requests = [self._request() for _ in range(min(AT_ONCE * 8, visitors - start))]
                for request, reply in zip(requests, pool.map(self._decide, requests), strict=True):
                    self._react(request, reply)
                    on_decision()
                self._send_due(time.monotonic())
        while self._due:
            time.sleep(max(0.0, self._due[0][0] - time.monotonic()))
            self._send_due(time.monotonic())
        return self.sent

    def _decide(self, request: pb.DecideRequest) -> pb.DecideResponse:
        reply: pb.DecideResponse = self._client.stub.Decide(request, timeout=30)
        return reply

    def _request(self) -> pb.DecideRequest:
        context = storefront.visitor(self._random)
        return pb.DecideRequest(
            experiment=self._experiment,
            unit_id=f"visitor-{UUID(int=self._random.getrandbits(128)).hex[:12]}",
            context=pb.Context(**{name: getattr(context, name) for name in CONTEXT_FIELDS}),
        )

    def _react(self, request: pb.DecideRequest, reply: pb.DecideResponse) -> None:
        """A click comes later, too late, twice or never."""
        self.sent.decisions += 1
        random = self._random
        context = Context(**{name: getattr(request.context, name) for name in CONTEXT_FIELDS})
        if random.random() >= storefront.mean(context, reply.action.id):
            return
        self.sent.clicks += 1
        fate = random.random()
        if fate < LOST:
            self.sent.lost += 1
            return
        delay = self._window + 0.5 if fate < LOST + LATE else random.expovariate(1 / MEAN_DELAY)
        reward = pb.RewardRequest(decision_id=reply.decision_id, name="click", reward_id="click-1")
        for again in range(2 if random.random() < DUPLICATE else 1):
            at = time.monotonic() + delay + 0.1 * again
            heapq.heappush(self._due, (at, self._random.getrandbits(62), reward))

    def _send_due(self, now: float) -> None:
        due: list[pb.RewardRequest] = []
        while self._due and self._due[0][0] <= now and len(due) < 500:
            due.append(heapq.heappop(self._due)[2])
        if due:
            reply = self._client.stub.RewardBatch(pb.RewardBatchRequest(requests=due), timeout=30)
            for result in reply.results:
                name = pb.RewardOutcome.Name(result.response.outcome).removeprefix("REWARD_OUTCOME_").lower()
                self.sent.outcomes[name] = self.sent.outcomes.get(name, 0) + 1
