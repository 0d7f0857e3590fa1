"""A plan -> calls to a live server, by several clients at once, and the ledger of what was answered.

Called by `live.py` and the demo. At a fixed rate every call has its time, whether the one before was answered or not,
and its latency is counted from that time: a server that stalls is charged for everybody who waited (no coordinated
omission). A call without an answer is sent again with the same ids until it has one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from decider.errors import DeciderError
from decider.types import CONTEXT_FIELDS, Context
from decider.v1 import decider_service_pb2 as pb
from simulator.drive import calls
from simulator.drive.calls import Unanswered
from simulator.drive.ledger import Ledger
from simulator.drive.plan import REWARD_ID, Plan, lanes
from simulator.drive.schedule import Schedule
from simulator.drive.target import DriveFailed, connection
from simulator.run.play import Way

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds without an answer after which a drive gives up."""

PAUSE = 0.05
"""Seconds before a call is sent again."""

REWARDS_AT_ONCE = 500
TWICE_AFTER = 0.05
"""Windows between a reward and its duplicate."""


class Drive:
    """One drive: its plan, its ledger, and the threads that carry it out. patience: see PATIENCE."""

    def __init__(self, plan: Plan, target: str, *, patience: float = PATIENCE) -> None:
        self.plan = plan
        self.target = target
        self._patience = patience
        self.ledger = Ledger(plan)
        self.interrupted = False
        self.failure: DeciderError | None = None
        self._way = Way(plan.visits)
        self._rewards = Schedule()
        self._stop = threading.Event()
        self._clients_done = threading.Event()

    def run(
        self,
        *,
        alongside: Sequence[Callable[[Drive], None]] = (),
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> Ledger:
        """Send everything that is planned. Ctrl-C and a failure end it early; `interrupted` and `failure` say so.

        alongside: called each in a thread of its own. on_progress: called with the number of acknowledged decisions.
        """
        clients = [self._thread(self._client, lane) for lane in lanes(self.plan) if lane]
        others = [self._thread(work, self) for work in alongside]
        sender = self._thread(self._sender)
        self.ledger.started = time.monotonic()
        for thread in (*clients, *others, sender):
            thread.start()
        try:
            self._wait_for(clients, on_progress)
            self._clients_done.set()
            self._wait_for(others, on_progress)
            self._rewards.close()
            self._wait_for([sender], on_progress)
        except KeyboardInterrupt:
            self.interrupted = True
            self.stop()
        for thread in (*clients, *others, sender):
            thread.join()
        return self.ledger

    def stop(self) -> None:
        """No further call; what has no answer yet stays so."""
        self._stop.set()
        self._rewards.drop()

    def wait_until(self, seen: Callable[[], bool]) -> bool:
        """Whether it was seen before the clients were done or the drive was stopped."""
        while not (self._stop.is_set() or self._clients_done.is_set()):
            if seen():
                return True
            time.sleep(0.005)
        return seen()

    @property
    def stopped(self) -> bool:
        """Whether it was told to end early."""
        return self._stop.is_set()

    def _thread(self, work: Callable[..., None], *arguments: Any) -> threading.Thread:
        def guarded() -> None:
            try:
                work(*arguments)
            except DeciderError as error:
                self.failure = self.failure or error
                self.stop()
            except BaseException as error:
                self.failure = DriveFailed(f"{type(error).__name__}: {error}")
                self.stop()
                raise

        return threading.Thread(target=guarded, daemon=True)

    def _wait_for(self, threads: Sequence[threading.Thread], on_progress: Callable[[int], None]) -> None:
        while any(thread.is_alive() for thread in threads):
            on_progress(self.ledger.acknowledged)
            time.sleep(0.05)
        on_progress(self.ledger.acknowledged)

    def _client(self, lane: Sequence[tuple[int, ...]]) -> None:
        with connection(self.target) as stub:
            for rounds in lane:
                due = self._its_time(rounds[0])
                if self._stop.is_set() or not self._decide(stub, rounds, due):
                    return

    def _its_time(self, number: int) -> float:
        """When the round is due, once it is; at no fixed rate that is now."""
        if self.plan.rate is None:
            return time.monotonic()
        due = self.ledger.started + self.plan.due(number)
        self._stop.wait(max(0.0, due - time.monotonic()))
        return due

    def _decide(self, stub: Any, rounds: tuple[int, ...], due: float) -> bool:
        """Whether it was answered."""
        cases = [self._way.case(number) for number in rounds]
        requests = [self._request(number, case) for number, case in zip(rounds, cases, strict=True)]
        self.ledger.sent[list(rounds)] = True
        replies = self._call_until_answered(lambda: calls.decide(stub, requests))
        if replies is None:
            return False
        now = time.monotonic()
        self.ledger.calls["decide"].add(now - due)
        for number, case, reply in zip(rounds, cases, replies, strict=True):
            action = self.ledger.decided(number, case, reply)
            self._way.chose(number, action)
            self._reward_later(number, action, now)
        return True

    def _request(self, number: int, case: int) -> pb.DecideRequest:
        plan = self.plan
        return pb.DecideRequest(
            experiment=plan.experiment.id,
            decision_id=plan.decision_id(number),
            unit_id=plan.unit_id(number),
            context=context_message(plan.visits.contexts[case]),
            eligible_actions=plan.eligible(case),
        )

    def _reward_later(self, number: int, action: int, now: float) -> None:
        plan, fates = self.plan, self.plan.fates
        if plan.value(number, action) is None or fates.lost[number]:
            return
        due = now + float(fates.after[number])
        self._rewards.put(due, number)
        if fates.duplicate[number]:
            self._rewards.put(due + TWICE_AFTER * plan.window, number)

    def _sender(self) -> None:
        with connection(self.target) as stub:
            while due := self._rewards.take(REWARDS_AT_ONCE):
                if not self._reward(stub, due):
                    return

    def _reward(self, stub: Any, due: Sequence[tuple[float, int]]) -> bool:
        """Whether they were answered."""
        ledger = self.ledger
        requests = [self._reward_request(number) for _, number in due]

        def attempt() -> list[pb.RewardResponse | None]:
            for _, number in due:
                ledger.tries[number] += 1
                ledger.unanswered[number] += 1
            return calls.reward(stub, requests)

        replies = self._call_until_answered(attempt)
        if replies is None:
            return False
        now = time.monotonic()
        for (at, number), reply in zip(due, replies, strict=True):
            ledger.calls["reward"].add(now - at)
            ledger.rewarded(number, reply)
        return True

    def _reward_request(self, number: int) -> pb.RewardRequest:
        plan, action = self.plan, int(self.ledger.action[number])
        return pb.RewardRequest(
            decision_id=plan.decision_id(number),
            name=plan.name(number, action),
            value=plan.value(number, action),
            reward_id=REWARD_ID,
        )

    def _call_until_answered(self, call: Callable[[], T]) -> T | None:
        """The answer, after as many attempts as it takes; None once the drive is stopped."""
        patient_until = time.monotonic() + self._patience
        while True:
            try:
                return call()
            except Unanswered as failed:
                self.ledger.errors.add(failed.status)
                if not failed.again:
                    raise DriveFailed(f"{self.target}: {failed}") from failed
                if time.monotonic() > patient_until:
                    raise DriveFailed(f"{self.target}: {failed}; no answer for {self._patience:g} s") from failed
            if self._stop.wait(PAUSE):
                return None


def context_message(context: Context) -> pb.Context:
    """As a frontend sends it.

    >>> context_message(Context(segment="vip")).segment
    'vip'
    """
    message = pb.Context(**{name: value for name in CONTEXT_FIELDS if (value := getattr(context, name))})
    if context.features:
        message.features.update(dict(context.features))
    return message
