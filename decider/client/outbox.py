"""What could not be delivered waits here, and one thread sends it again. Called by `decisions.py` and `deliveries.py`.

Rewards and activations are idempotent, so sending one again does no harm. The thread lives only while something waits.
Both bounds are the caller's; what goes beyond them is dropped, the oldest first, and told.
"""

from __future__ import annotations

import atexit
import random
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import NamedTuple
from weakref import WeakSet

from google.protobuf.message import Message

from decider.client.failures import Consequence, Failure, failure_of
from decider.client.forks import Forkable, watch

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between tries while none succeeds: twice as long each time."""

MOST_ANSWERS = 10
"""Tries of a message that the server answers with an error of its own, which another message need not meet."""

_SLOT = re.compile(r"/1?[0-9]\Z")
"""What the id of a slot's decision has behind that of its slate, which has 20 slots at most."""

ANSWERED = frozenset(("INTERNAL", "UNKNOWN"))

EXIT_PATIENCE = 2.0
"""Seconds that a program that never closed its client waits at its end for what is not delivered yet."""


class Call(NamedTuple):
    """An RPC by its name, and its request."""

    method: str
    request: Message

    @property
    def subject(self) -> str:
        """Messages about the same decision or slate, or about units, are delivered in the order in which they came: the
        first activation of a slot counts, also that of its slate."""
        return _SLOT.sub("", getattr(self.request, "decision_id", "")) or "units"


@dataclass(slots=True)
class _Waiting:
    call: Call
    since: float
    answers: int = 0


class Outbox(Forkable):
    """Messages in the order in which they came. send: one try, which raises. lost: told of each that is given up.

    size: messages. age: seconds.
    """

    def __init__(
        self, send: Callable[[Call], object], *, size: int, age: float, lost: Callable[[Failure], object]
    ) -> None:
        self._send, self._lost = send, lost
        self._size, self._age = size, age
        self.after_fork()
        watch(self)
        _OUTBOXES.add(self)

    def after_fork(self) -> None:
        """Begin empty, with a lock that no thread holds: the parent goes on sending what was there."""
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._subjects = Counter[str]()
        self._thread: threading.Thread | None = None
        self._pause = 0.0
        self._due = 0.0
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def goes_before(self, call: Call) -> bool:
        """Whether what waits has to be delivered before this message: while nothing gets through, since another try
        would only take time, and what is about the same decision."""
        with self._changed:
            return bool(self._waiting) and (self._pause > 0 or self._subjects[call.subject] > 0)

    def put(self, call: Call) -> bool:
        """Whether it waits now; not after `close`."""
        with self._changed:
            if self._closed:
                too_many = [_Waiting(call, 0.0)]
            else:
                self._waiting.append(_Waiting(call, time.monotonic()))
                self._subjects[call.subject] += 1
                too_many = [self._take() for _ in range(len(self._waiting) - self._size)]
                self._start()
        for one in too_many:
            self._drop(one, "CLOSED" if self._closed else "QUEUE_FULL")
        return not self._closed

    def _take(self) -> _Waiting:
        one = self._waiting.popleft()
        self._subjects[one.call.subject] -= 1
        if not self._subjects[one.call.subject]:
            del self._subjects[one.call.subject]
        return one

    def _start(self) -> None:
        if self._thread is None:
            self._postpone()
            thread = threading.Thread(target=self._work, name="decider-client", daemon=True)
            with suppress(RuntimeError):  # no more threads, or the interpreter ends: the next message tries again
                thread.start()
                self._thread = thread

    def _postpone(self) -> None:
        self._pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, 2 * self._pause))
        # Many processes of one page lose the server at the same moment: they should not all come back at one.
        self._due = time.monotonic() + self._pause * random.uniform(0.75, 1.0)

    def _work(self) -> None:
        while (one := self._next()) is not None:
            self._try(one)

    def _next(self) -> _Waiting | None:
        """The oldest, once it is time to try; None, and the thread ends, when there is none."""
        while True:
            with self._changed:
                old = self._take_old()
                if not old:
                    pause = self._due - time.monotonic()
                    if not self._waiting or self._closed:
                        self._thread, self._pause = None, 0.0
                        return None
                    if pause <= 0:
                        return self._waiting[0]
                    self._changed.wait(pause)
            for one in old:
                self._drop(one, "TOO_OLD")

    def _take_old(self) -> list[_Waiting]:
        oldest = time.monotonic() - self._age
        old = []
        while self._waiting and self._waiting[0].since < oldest:
            old.append(self._take())
        if old:
            self._changed.notify_all()
        return old

    def _try(self, one: _Waiting) -> None:
        try:
            self._send(one.call)
        except Exception as error:
            self._after(one, failure_of(*one.call, error))
        else:
            self._settle(one)

    def _after(self, one: _Waiting, failure: Failure) -> None:
        one.answers += failure.code in ANSWERED
        if failure.lasting or one.answers >= MOST_ANSWERS:
            self._settle(one)
            self._lost(replace(failure, consequence=Consequence.REFUSED))
            return
        with self._changed:
            self._postpone()
            if failure.code in ANSWERED and self._waiting and self._waiting[0] is one:
                self._waiting.rotate(-1)  # the others need not wait for it

    def _settle(self, one: _Waiting) -> None:
        with self._changed:
            self._pause = self._due = 0.0
            if self._waiting and self._waiting[0] is one:  # else it was dropped meanwhile, since too many came
                self._take()
            self._changed.notify_all()

    def flush(self, timeout: float) -> bool:
        """Try at once, and wait for so many seconds; whether nothing waits any longer."""
        with self._changed:
            self._due = 0.0
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._waiting, timeout)

    def close(self, timeout: float) -> None:
        """Flush; then what still waits is dropped, and nothing more is taken."""
        self.flush(timeout)
        with self._changed:
            self._closed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._subjects.clear()
            self._changed.notify_all()
        for one in left:
            self._drop(one, "CLOSED")

    def _drop(self, one: _Waiting, reason: str) -> None:
        message = {
            "CLOSED": "the client was closed before it could be sent",
            "QUEUE_FULL": f"more than {self._size} messages wait",
            "TOO_OLD": f"it could not be sent for {self._age:g} s",
        }
        failure = Failure(one.call.method, "UNAVAILABLE", reason, message[reason], Consequence.DROPPED)
        self._lost(replace(failure, decision_id=getattr(one.call.request, "decision_id", "")))


_OUTBOXES: WeakSet[Outbox] = WeakSet()
"""All that are in use."""


@atexit.register
def _close_all() -> None:
    end = time.monotonic() + EXIT_PATIENCE
    for one in list(_OUTBOXES):
        one.close(max(0.0, end - time.monotonic()))
