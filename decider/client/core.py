"""What `Client` and `AsyncClient` have in common: checked settings, failures, outboxes, the steps.

The outboxes' thread has a blocking connection of its own. So what an AsyncClient could not deliver outlives its event
loop.
"""

from __future__ import annotations

import time
from collections import Counter

from decider.channel import Credentials
from decider.client.connection import Sender, check_seconds, check_target
from decider.client.decisions import Decisions
from decider.client.deliveries import Deliveries
from decider.client.failures import Consequence, Failure, Failures, Kind, OnError
from decider.client.outbox import Outbox

SEND_TIMEOUT = 5.0
"""Seconds that sending from an outbox may take: no page waits for it."""


class Core:
    """One client's state. target, timeout, queue_size, queue_age, on_error: see `Client`."""

    def __init__(
        self,
        target: str,
        *,
        timeout: float,
        queue_size: int,
        queue_age: float,
        on_error: OnError | None,
        credentials: Credentials,
    ) -> None:
        self.target, self.timeout = check_target(target), check_seconds("timeout", timeout)
        size, age = _check_size(queue_size), check_seconds("queue_age", queue_age)
        self.failures = Failures(on_error)
        self._sender = Sender(self.target, timeout=SEND_TIMEOUT, credentials=credentials)
        self._outbox = Outbox(self._sender.send, size=size, age=age, lost=self.failures.note)
        # Reports wait apart: thousands of them, from an outage, must not push a reward out.
        self._reports = Outbox(self._sender.send, size=size, age=age, lost=self._note_lost_report)
        self.decisions = Decisions(self.failures, self._reports)
        self.deliveries = Deliveries(self.failures, self._outbox)

    def _note_lost_report(self, failure: Failure) -> None:
        if failure.reason != "DECISION_NOT_FOUND":  # the decision was never committed: there is nothing to correct
            self.failures.note(failure)

    @property
    def fallbacks(self) -> Counter[Kind]:
        """See `Client.fallbacks`."""
        return self.failures.count(Consequence.FALLBACK)

    @property
    def undelivered(self) -> Counter[Kind]:
        """See `Client.undelivered`."""
        return self.failures.count(Consequence.REFUSED) + self.failures.count(Consequence.DROPPED)

    @property
    def waiting(self) -> int:
        """See `Client.waiting`."""
        return len(self._outbox) + len(self._reports)

    def flush(self, timeout: float) -> bool:
        """See `Client.flush`."""
        end = time.monotonic() + timeout
        rewards = self._outbox.flush(timeout)
        return self._reports.flush(max(0.0, end - time.monotonic())) and rewards

    def close(self, timeout: float) -> None:
        """See `Client.close`."""
        end = time.monotonic() + timeout
        for one in (self._outbox, self._reports):
            one.close(max(0.0, end - time.monotonic()))
        self._sender.close()


def _check_size(size: object) -> int:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError("queue_size: give a number of messages, at least 1")
    return size
