"""Callers of a server that dies: what they sent, what was acknowledged, and whether the log holds that, once. Called by
`kills.py`, and by the tests that kill servers.

The log is read as everybody reads it, so it may lie in a file or in PostgreSQL.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple, TypeAlias

import grpc

from decider.log.protocol import LogReader
from decider.v1 import decider_service_pb2 as pb
from decider.v1.decider_service_pb2_grpc import DeciderServiceStub

ID = "crash"
"""The experiment that is called."""

ACTIONS = ("a", "b", "c", "d")
SEGMENTS = ("new", "regular", "vip", "bargain", "")
DEVICES = ("mobile", "desktop")

PREFIX = "decision-"
FIRST_ID, AFTER_ALL_IDS = PREFIX, "decision."
"""Between these are all ids of visitors."""

OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 100))

PATIENCE = 30.0
"""Seconds after which a call ends, unless a visitor has another patience."""

BURST = 0.3
"""Seconds for which a visitor keeps a connection: those of a killed worker have moved to another one."""

NOTED = 0.1
"""Seconds without an answer from which on they are noted."""

GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)
"""How a call ends whose server dies, or hangs. Nobody knows then whether it was written."""

DUPLICATE = pb.REWARD_OUTCOME_DUPLICATE

Request: TypeAlias = pb.DecideRequest | pb.RewardRequest


class Gap(NamedTuple):
    """A time in which a visitor who called got no answer. began: of the monotonic clock."""

    began: float
    seconds: float


class Visitor:
    """Decides and rewards as fast as it can. What was sent without an answer is sent again, with the same ids.

    number: its own, of all visitors of a log. patience: seconds until a call ends. decided, rewarded: what was
    acknowledged; of a reward its outcomes. refused: calls that ended with another status than OK. gaps: see Gap.
    """

    def __init__(self, number: int, seed: int, *, patience: float = PATIENCE) -> None:
        self._random = Random(seed * 100 + number)
        self._number = number
        self._patience = patience
        self._count = 0
        self._pending: list[Request] = []
        self._answered = 0.0
        self.decided: dict[str, pb.DecideResponse] = {}
        self.rewarded: dict[tuple[str, str], list[int]] = {}
        self.refused: Counter[grpc.StatusCode] = Counter()
        self.gaps: list[Gap] = []

    def visit(
        self, target: str, *, pause: float = 0.0, over: threading.Event | None = None, burst: float = math.inf
    ) -> None:
        """Until the server goes away, `over` is set, or so many seconds have gone by. Raises grpc.RpcError for another
        refusal."""
        end = time.monotonic() + burst
        with self._connected(target) as service:
            try:
                while time.monotonic() < end and not (over and over.is_set()):
                    self._send(service, self._pending[0] if self._pending else self._request())
                    time.sleep(pause)
            except grpc.RpcError as error:
                self.refused[error.code()] += 1
                if error.code() not in GONE:
                    raise

    def visit_on(self, target: str, over: threading.Event, *, burst: float = BURST, pause: float = 0.0) -> None:
        """Until `over` is set, with a new connection after each burst. Raises grpc.RpcError, see `bears`."""
        while not over.is_set():
            try:
                self.visit(target, over=over, burst=burst, pause=pause)
            except grpc.RpcError as error:
                if not self.bears(error.code()):
                    raise
            time.sleep(0.01)

    def bears(self, refusal: grpc.StatusCode) -> bool:
        """Whether it goes on after that refusal."""
        return refusal in GONE

    def settle(self, target: str) -> None:
        """Send again what was never answered. Raises grpc.RpcError."""
        with self._connected(target) as service:
            while self._pending:
                self._send(service, self._pending[0])

    @contextmanager
    def _connected(self, target: str) -> Iterator[DeciderServiceStub]:
        """With a connection of its own."""
        with grpc.insecure_channel(target, options=OWN_CONNECTION) as channel:
            yield DeciderServiceStub(channel)  # type: ignore[no-untyped-call]

    def _request(self) -> pb.DecideRequest:
        self._count += 1
        self._answered = time.monotonic()
        return pb.DecideRequest(
            experiment=ID,
            unit_id=f"unit-{self._number}-{self._count}",
            decision_id=f"{PREFIX}{self._number}-{self._count}",
            context=pb.Context(segment=self._random.choice(SEGMENTS), device=self._random.choice(DEVICES)),
        )

    def _send(self, service: DeciderServiceStub, request: Request) -> None:
        if not self._pending:
            self._pending.append(request)
        if isinstance(request, pb.DecideRequest):
            reply = service.Decide(request, timeout=self._patience)
            self.decided[request.decision_id] = reply
            self._pending[:] = self._clicks(reply)
        else:
            answer = service.Reward(request, timeout=self._patience)
            self.rewarded.setdefault((request.decision_id, request.reward_id), []).append(answer.outcome)
            self._pending.pop(0)
        self._note_gap()

    def _note_gap(self) -> None:
        before, self._answered = self._answered, time.monotonic()
        if before and self._answered - before >= NOTED:
            self.gaps.append(Gap(before, self._answered - before))

    def _clicks(self, reply: pb.DecideResponse) -> list[Request]:
        """None, one, or one that is sent twice; `a` is clicked most."""
        if self._random.random() > (0.7 if reply.action.id == "a" else 0.2):
            return []
        click = pb.RewardRequest(decision_id=reply.decision_id, reward_id="click-1", name="click")
        return [click, click] if self._random.random() < 0.2 else [click]


@contextmanager
def visiting(target: str, visitors: Sequence[Visitor], *, pause: float = 0.0, burst: float = BURST) -> Iterator[None]:
    """All of them call at once meanwhile. Raises what a visitor did not bear."""
    over, failed = threading.Event(), list[BaseException]()

    def visit(visitor: Visitor) -> None:
        try:
            visitor.visit_on(target, over, pause=pause, burst=burst)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=visit, args=(visitor,)) for visitor in visitors]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
    if failed:
        raise failed[0]


@dataclass(frozen=True, slots=True)
class Counts:
    """Of decisions or of rewards, see `count_decisions` and `count_rewards`.

    lost: acknowledged, and not in the log. doubled: in the log more than once, or twice acknowledged as new. other: in
    the log otherwise than was answered; or nobody has had an answer, though all visitors have settled.
    """

    acknowledged: int
    in_log: int
    lost: int
    doubled: int
    other: int

    @property
    def sound(self) -> bool:
        """Nothing is wrong."""
        return not (self.lost or self.doubled or self.other)


def count_decisions(log: LogReader, visitors: Iterable[Visitor]) -> Counts:
    """Raises LogError. other: by action, propensity and model."""
    answered = {id_: _said(reply) for one in visitors for id_, reply in one.decided.items()}
    times, other = Counter[str](), 0
    for logged in log.decisions_between(FIRST_ID, AFTER_ALL_IDS):
        made = logged.decision
        times[made.decision_id] += 1
        other += answered.get(made.decision_id) != (made.action, made.propensity, made.model)
    return _counts(answered, times, doubled=0, other=other)


def _said(reply: pb.DecideResponse) -> tuple[str, float, int]:
    return reply.action.id, reply.propensity, reply.model


def count_rewards(log: LogReader, visitors: Iterable[Visitor]) -> Counts:
    """Raises LogError. A reward that is sent again is acknowledged as a duplicate."""
    answered = {key: outcomes for one in visitors for key, outcomes in one.rewarded.items()}
    found = log.rewards_between(FIRST_ID, AFTER_ALL_IDS)
    times = Counter((logged.decision_id, logged.reward_id) for logged in found)
    twice = sum(len([one for one in outcomes if one != DUPLICATE]) > 1 for outcomes in answered.values())
    return _counts(answered, times, doubled=twice, other=len(times.keys() - answered.keys()))


def _counts(answered: Collection[object], times: Counter[Any], *, doubled: int, other: int) -> Counts:
    return Counts(
        acknowledged=len(answered),
        in_log=times.total(),
        lost=sum(not times[key] for key in answered),
        doubled=doubled + sum(many > 1 for many in times.values()),
        other=other,
    )
