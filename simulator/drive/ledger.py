"""What a drive has sent, and the answers, by round. `send.py` fills it; `reconcile.py` and `earnings.py` read it.

Some numbers for each visitor and no messages, so that memory stays small. Each round has one writer at a time.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from decider.v1 import decider_service_pb2 as pb
from simulator.drive.plan import Plan
from simulator.worlds.world import Flags, Floats

Counts = NDArray[np.int16]
OUTCOMES = ("joined", "clipped", "late", "duplicate")
_INDEX = {pb.RewardOutcome.Value(f"REWARD_OUTCOME_{name.upper()}"): index for index, name in enumerate(OUTCOMES)}


class Ledger:
    """Of every round: decision and reward.

    action: index; -1 until the decision is acknowledged. case: which case of the visits it was. tries, unanswered: of
    the reward, how often it was sent and how often without an answer; outcomes: (4, rounds), answers of each of
    OUTCOMES; missing: the server said that there is no such decision, though it had acknowledged it.
    """

    def __init__(self, plan: Plan) -> None:
        rounds = len(plan.visits)
        self._index = {action: index for index, action in enumerate(plan.world.actions)}
        self.sent: Flags = np.zeros(rounds, np.bool_)
        self.action: Counts = np.full(rounds, -1, np.int16)
        self.case = np.zeros(rounds, np.int64)
        self.propensity: Floats = np.zeros(rounds)
        self.model = np.zeros(rounds, np.int64)
        self.tries: Counts = np.zeros(rounds, np.int16)
        self.unanswered: Counts = np.zeros(rounds, np.int16)
        self.outcomes: Counts = np.zeros((len(OUTCOMES), rounds), np.int16)
        self.missing: Flags = np.zeros(rounds, np.bool_)
        self.calls = {"decide": Latencies(), "reward": Latencies()}
        self.errors = Errors()
        self.kills: list[Kill] = []
        self.acknowledged = 0
        self.started = self.last = time.monotonic()
        self._lock = threading.Lock()

    def decided(self, number: int, case: int, reply: pb.DecideResponse) -> int:
        """An acknowledged decision; the index of its action."""
        action = self._index[reply.action.id]
        self.propensity[number], self.model[number] = reply.propensity, reply.model
        self.case[number] = case
        self.action[number] = action
        with self._lock:
            self.acknowledged += 1
            self.last = time.monotonic()
        return action

    def rewarded(self, number: int, reply: pb.RewardResponse | None) -> None:
        """An answer to a reward; None: the server knows no such decision."""
        self.unanswered[number] -= 1
        if reply is None:
            self.missing[number] = True
        else:
            self.outcomes[_INDEX[reply.outcome], number] += 1

    @property
    def acked(self) -> Flags:
        """(rounds,): whether the decision was acknowledged."""
        return self.action >= 0

    @property
    def rewarded_rounds(self) -> Flags:
        """(rounds,): whether the reward was acknowledged at least once."""
        return np.asarray(self.outcomes.sum(axis=0) > 0)

    @property
    def rate(self) -> float:
        """Acknowledged decisions per second, from the first call to the last answer."""
        return self.acknowledged / max(self.last - self.started, 1e-9)

    def outcome_counts(self) -> dict[str, int]:
        """Answers of each kind; clipped ones where there were any: a world's rewards are in its range."""
        counts = {name: int(self.outcomes[index].sum()) for index, name in enumerate(OUTCOMES)}
        return {name: count for name, count in counts.items() if count or name != "clipped"}


@dataclass(slots=True)
class Latencies:
    """Seconds of the calls of one kind, eight bytes each."""

    seconds: array[float] = field(default_factory=lambda: array("d"))

    def add(self, seconds: float) -> None:
        """One more call."""
        self.seconds.append(seconds)


class Errors:
    """Failed attempts by the name of their status."""

    def __init__(self) -> None:
        self.by_status: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, status: str) -> None:
        """One more."""
        with self._lock:
            self.by_status[status] += 1


@dataclass(frozen=True, slots=True)
class Kill:
    """A SIGKILL: after how many acknowledged decisions, and seconds until the next one was acknowledged."""

    after: int
    back: float
