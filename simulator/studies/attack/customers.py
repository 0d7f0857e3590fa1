"""The others: callers of the victim's experiment at a fixed rate, who must not notice anything. Half of them are
servers, over gRPC; half are pages of the site, over Connect with JSON.

Each call has its time, whether the one before was answered or not, and its latency counts from then. Called by
`__main__.py`; what they sent and what was acknowledged is read by `check.py`.
"""

from __future__ import annotations

import http.client
import itertools
import ssl
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message

from decider.channel import Credentials, open_channel
from decider.v1 import decider_service_pb2 as pb
from decider.v1.decider_service_pb2_grpc import DeciderServiceStub
from simulator.studies.attack.names import SITE, VICTIM
from simulator.studies.attack.sockets import context_of

THREADS = 8
TIMEOUT = 10.0
REWARD_NAME, REWARD_ID = "click", "once"


class PageFailed(Exception):
    """The answer to a page was an error."""


class PageStub:
    """Calls as the pages of the site do: JSON over a connection that stays. key: none where nobody is asked."""

    def __init__(self, address: str, context: ssl.SSLContext, key: str) -> None:
        host, _, port = address.rpartition(":")
        self._connection = http.client.HTTPSConnection(host, int(port), timeout=TIMEOUT, context=context)
        self._headers = {"Origin": SITE, "Content-Type": "application/json"}
        self._headers |= {"Authorization": f"Bearer {key}"} if key else {}
        self.Decide = partial(self._call, "Decide", pb.DecideResponse)
        self.Reward = partial(self._call, "Reward", pb.RewardResponse)
        self.Activate = partial(self._call, "Activate", pb.ActivateResponse)

    def close(self) -> None:
        """The connection."""
        self._connection.close()

    def _call(self, method: str, reply: type[Message], request: Message, timeout: float) -> Message:
        body = json_format.MessageToJson(request, indent=None).encode()
        headers = {**self._headers, "Connect-Timeout-Ms": f"{1000 * timeout:.0f}"}
        try:
            answer = self._ask(f"/decider.v1.DeciderService/{method}", body, headers)
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise PageFailed(f"{type(error).__name__}: {error}") from error
        if answer.status != 200:
            raise PageFailed(f"{answer.status}: {content[:100]!r}")
        return json_format.Parse(content, reply())

    def _ask(self, path: str, body: bytes, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """A connection that a server has closed meanwhile is opened anew, as browsers do: each call has an id."""
        try:
            self._connection.request("POST", path, body, headers)
            return self._connection.getresponse()
        except (ConnectionError, http.client.RemoteDisconnected):
            self._connection.close()
            self._connection.request("POST", path, body, headers)
            return self._connection.getresponse()


def page_caller(address: str, ca: Path, key: str) -> Callable[[], PageStub]:
    """Makes such a stub."""
    return partial(PageStub, address, context_of(str(ca)), key)


@dataclass(slots=True)
class Ledger:
    """By decision id: whether it was acknowledged. rewarded: acknowledged, with the value; activated: acknowledged.
    sent_rewards, sent_activations: ids. errors: calls of these that failed, by their status."""

    decided: dict[str, bool] = field(default_factory=dict)
    actions: dict[str, str] = field(default_factory=dict)
    sent_rewards: dict[str, float] = field(default_factory=dict)
    rewarded: set[str] = field(default_factory=set)
    sent_activations: set[str] = field(default_factory=set)
    activated: set[str] = field(default_factory=set)
    errors: Counter[str] = field(default_factory=Counter)


class Customers:
    """rate: calls a second. page: makes what a page calls with. latencies of calls since `take` was called last, in
    seconds."""

    def __init__(
        self, target: str, credentials: Credentials, page: Callable[[], PageStub], *, secret: str, rate: float
    ) -> None:
        self.ledger, self._page = Ledger(), page
        self._target, self._credentials, self._secret = target, credentials, secret
        self._period = THREADS / rate
        self._numbers = itertools.count()
        self._latencies = array("d")
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(THREADS)]

    def start(self) -> None:
        """Begin to call."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """After the calls that are under way."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def take(self) -> array[float]:
        """Latencies since the last time."""
        with self._lock:
            taken, self._latencies = self._latencies, array("d")
        return taken

    def decide(self, stub: Any, id_: str, unit: str, due: float) -> bool:
        """Whether it was acknowledged."""
        self.ledger.decided[id_] = False
        request = pb.DecideRequest(
            experiment=VICTIM, unit_id=unit, decision_id=id_, context=pb.Context(segment=f"{self._secret}-segment")
        )
        request.context.features.update({"basket": f"{self._secret}-basket", "price": len(self.ledger.decided) % 97})
        reply = self._call(stub.Decide, request, due)
        if reply is None:
            return False
        self.ledger.decided[id_] = True
        self.ledger.actions[id_] = reply.action.id
        return True

    def _run(self, number: int) -> None:
        if number % 2:
            with closing(self._page()) as page:
                self._call_with(page, number)
            return
        options = [("grpc.use_local_subchannel_pool", 1)]
        with open_channel(self._target, self._credentials, options) as channel:
            self._call_with(DeciderServiceStub(channel), number)  # type: ignore[no-untyped-call]

    def _call_with(self, stub: Any, number: int) -> None:
        due = time.perf_counter() + number * self._period / THREADS
        for turn in itertools.count():
            if self._stopping.wait(max(0.0, due - time.perf_counter())):
                return
            if turn % 2 == 0:
                id_ = f"{self._secret}-{next(self._numbers):09d}"
                decided = self.decide(stub, id_, f"{id_}-unit", due)
            elif decided:
                self._follow(stub, id_, turn // 2, due)
            due += self._period

    def _follow(self, stub: Any, id_: str, turn: int, due: float) -> None:
        """Say what became of it: two are rewarded, one is activated."""
        if turn % 3 == 2:
            self.ledger.sent_activations.add(id_)
            if self._call(stub.Activate, pb.ActivateRequest(decision_id=id_), due) is not None:
                self.ledger.activated.add(id_)
            return
        value = 1.0 if self.ledger.actions[id_].endswith("a") else 0.25
        self.ledger.sent_rewards[id_] = value
        request = pb.RewardRequest(decision_id=id_, name=REWARD_NAME, value=value, reward_id=REWARD_ID)
        if self._call(stub.Reward, request, due) is not None:
            self.ledger.rewarded.add(id_)

    def _call(self, method: Any, request: Any, due: float) -> Any:
        """The reply; None where it failed, which is noted."""
        try:
            reply = method(request, timeout=TIMEOUT)
        except grpc.RpcError as error:
            self.ledger.errors[f"{error.code().name}: {error.details()}"[:160]] += 1
            reply = None
        except PageFailed as error:
            self.ledger.errors[f"a page's: {error}"[:160]] += 1
            reply = None
        with self._lock:
            self._latencies.append(time.perf_counter() - due)
        return reply


def counts(ledger: Ledger) -> Mapping[str, int]:
    """What was acknowledged."""
    return {
        "decisions": sum(ledger.decided.values()),
        "rewards": len(ledger.rewarded),
        "activations": len(ledger.activated),
    }
