"""What the soak sends: decisions with ids of our own, each with a visitor never seen before, and rewards for some.

The ledger is a byte for each decision: its id is its number, so nothing else need be remembered for hours. Called by
`__main__.py`; read by `check.py` at the end.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from decider.v1 import decider_service_pb2 as pb
from decider.v1 import experiment_pb2
from simulator.studies.load import Frames, Load, frames
from simulator.worlds.scenes import storefront

SERVICE = "/decider.v1.DeciderService/"
LOADED, PAUSED = "shop", "mail"
"""The experiment with most of the traffic; and the one that is paused for a while."""

DIGITS = 12
_NUMBER = "9" * DIGITS
TEMPLATES = 4_096
ONE_IN = 10
"""Of so many decisions one is of the experiment that gets paused."""

REWARD_ONE_IN = 5
REWARD_AFTER = 2.0
WINDOW = 5
"""Seconds from an answer to its reward; and of the reward window."""

DECIDED, REWARDED = 1, 2
"""Bits of the ledger: acknowledged."""

OK, RESOURCE_EXHAUSTED, FAILED_PRECONDITION = 0, 8, 9
"""gRPC's numbers."""

REFUSED = {(LOADED, RESOURCE_EXHAUSTED), (PAUSED, RESOURCE_EXHAUSTED), (PAUSED, FAILED_PRECONDITION)}
"""Answers of a server that has too many calls at once, or whose experiment is paused: nothing was acknowledged."""


class Tag(NamedTuple):
    """Comes back with an answer. due: when the call should have been sent."""

    number: int
    bit: int
    due: float


def experiment(id_: str, policy: experiment_pb2.Policy) -> experiment_pb2.Experiment:
    """Ten actions, and a window of a few seconds, so that everything is learned soon."""
    made = experiment_pb2.Experiment(id=id_, policy=policy)
    made.reward.window.FromSeconds(WINDOW)
    made.reward.weights["click"] = 1.0
    for number in range(10):
        made.actions.add(id=f"action-{number}").payload.update({"title": f"Title {number}"})
    return made


def name_of(number: int) -> str:
    """A decision's id: in the order of the numbers.

    >>> name_of(7)
    '000000000007'
    """
    return f"{number:0{DIGITS}d}"


class _Template:
    """A call in which only a decision's number is not yet there."""

    def __init__(self, method: str, message: bytes) -> None:
        whole = frames(SERVICE + method, message)
        *self._before, body = whole.pieces
        self._body, self._size = body.split(_NUMBER.encode()), whole.size

    def frames(self, number: int) -> Frames:
        """With the number."""
        return Frames((*self._before, name_of(number).encode().join(self._body)), self._size)


def _decide(random: Random, of: str) -> _Template:
    """Half of the visitors' contexts have a number, which is another for each of the templates."""
    known = storefront.visitor(random)
    context = pb.Context(
        segment=known.segment,
        device=known.device,
        channel=known.channel,
        location=known.location,
        intent_stage=known.intent_stage,
    )
    if random.random() < 0.5:
        context.features.update({"age_of_basket": round(random.random(), 3)})
    request = pb.DecideRequest(experiment=of, unit_id=f"v{_NUMBER}", context=context, decision_id=_NUMBER)
    return _Template("Decide", request.SerializeToString())


@dataclass(slots=True)
class Window:
    """What happened between two samples. latencies: seconds from when a call was due, of decisions and rewards.
    decided: decisions that were acknowledged."""

    started: float
    ended: float = 0.0
    latencies: list[float] = field(default_factory=list)
    decided: int = 0


class Traffic:
    """Sends calls over a load and keeps the ledger.

    ledger: bits of each decision, by its number. statuses: answers other than OK, by (experiment, status).
    """

    def __init__(self, load: Load, *, seed: int = 1) -> None:
        random = Random(seed)
        self._decide = [
            _decide(random, PAUSED if n % ONE_IN == 0 else LOADED) for n in range(TEMPLATES // ONE_IN * ONE_IN)
        ]
        self._reward = _Template(
            "Reward", pb.RewardRequest(decision_id=_NUMBER, name="click", reward_id="once").SerializeToString()
        )
        self._load = load
        self._rewards: deque[Tag] = deque()
        self.ledger = bytearray()
        self.statuses: Counter[tuple[str, int]] = Counter()
        self.window = Window(time.perf_counter())

    def decide(self, due: float) -> None:
        """The next decision."""
        number = len(self.ledger)
        self.ledger.append(0)
        self._load.call(self._decide[number % len(self._decide)].frames(number), Tag(number, DECIDED, due))

    def reward(self, now: float) -> None:
        """All rewards that are due."""
        while self._rewards and self._rewards[0].due <= now:
            tag = self._rewards.popleft()
            self._load.call(self._reward.frames(tag.number), tag)

    def hear(self, seconds: float) -> int:
        """Wait for answers so long, and note them; how many decisions were answered."""
        answers = self._load.answers(seconds)
        now, window = time.perf_counter(), self.window
        for (number, bit, due), status in answers:
            window.latencies.append(now - due)
            if status == OK:
                self._note(number, bit, now)
            else:
                self.statuses[PAUSED if number % ONE_IN == 0 else LOADED, status] += 1
        return sum(tag.bit == DECIDED for tag, _ in answers)

    def _note(self, number: int, bit: int, now: float) -> None:
        self.ledger[number] |= bit
        self.window.decided += bit == DECIDED
        if bit == DECIDED and number % REWARD_ONE_IN == REWARD_ONE_IN - 1:
            self._rewards.append(Tag(number, REWARDED, now + REWARD_AFTER))

    def take_window(self) -> Window:
        """What happened since this was last called."""
        taken, self.window = self.window, Window(time.perf_counter())
        taken.ended = self.window.started
        return taken

    def finish(self, patience: float = 60.0) -> int:
        """Send the rewards that are still due, wait for the last answers; how many never came."""
        end = time.perf_counter() + patience
        while (self._rewards or self._load.in_flight) and time.perf_counter() < end:
            self.reward(time.perf_counter())
            self.hear(0.1)
        return self._load.in_flight

    @property
    def failures(self) -> int:
        """Answers that were neither OK nor a refusal."""
        return sum(count for key, count in self.statuses.items() if key not in REFUSED)


def fastest(traffic: Traffic, *, in_flight: int, warm: float, seconds: float) -> float:
    """The largest rate of decisions per second, with their rewards and learning; after `warm` seconds of the same."""
    for _ in range(in_flight):
        traffic.decide(time.perf_counter())
    _closed_loop(traffic, warm)
    started = time.perf_counter()
    return _closed_loop(traffic, seconds) / (time.perf_counter() - started)


def _closed_loop(traffic: Traffic, seconds: float) -> int:
    """Each answer to a decision is followed by another decision; how many were answered."""
    end, answered = time.perf_counter() + seconds, 0
    while (now := time.perf_counter()) < end:
        traffic.reward(now)
        heard = traffic.hear(0.01)
        answered += heard
        for _ in range(heard):
            traffic.decide(time.perf_counter())
    return answered
