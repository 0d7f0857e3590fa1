"""The leader: the one process of a log that seals and looks after it, beside what it learns. Called by a thread of the
server.

It holds the log's lease, and is a learner as well. Other learners of the log, where there are some, learn what is not
in its share.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Unpack

from decider.errors import LogError, LogLocked
from decider.learn.learner import Learner, Options, Pace, Progress
from decider.log.protocol import EventLog, Lease, Tick
from decider.serving.follower import Copies
from decider.types import Position, Time

__all__ = ["Leader", "Pace", "Progress"]

logger = logging.getLogger(__name__)


class Leader(Learner):
    """See above. options: see Learner."""

    def __init__(
        self,
        log: EventLog,
        lease: Lease,
        copies: Copies,
        *,
        clock: Callable[[], Time],
        **options: Unpack[Options],
    ) -> None:
        super().__init__(log, log.share(), copies, **options)
        self._lease = lease
        self._clock = clock
        self._next_tick: tuple[Position, Time | None] | None = None
        self._maintained_at = -math.inf
        self._not_maintained = ""

    def step(self) -> bool:
        """One round: seal what is due, then as a learner's.

        Raises LogError if the log cannot be read or written; the next round tries again.
        """
        if not self._lease.held:
            raise LogLocked(f"{self._log.name}: another process leads this log now")
        self._tick_if_due()
        return super().step()

    def _tick_if_due(self) -> None:
        """Append a tick where only time ends a window: replay needs an entry for it."""
        end = self._log.head()
        if self._next_tick is None or self._next_tick[0] != end.position:
            self._next_tick = (end.position, self._log.next_deadline(after=end.time))
        deadline = self._next_tick[1]
        if deadline is not None and deadline <= self._clock():
            self._log.append([Tick()])

    def _look_after_log(self) -> None:
        """At most once per interval: rounds may follow each other without a pause."""
        if time.monotonic() - self._maintained_at >= self._pace.interval:
            self._maintained_at = time.monotonic()
            try:
                self._log.maintain()
            except LogError as error:  # the log goes on without
                if self._not_maintained != str(error):
                    self._not_maintained = str(error)
                    logger.warning("the log is not maintained: %s", error)
            else:
                self._not_maintained = ""

    def finish_learning(self, deadline: float) -> None:
        """At the end: seal, then as a learner's."""
        self._tick_if_due()
        super().finish_learning(deadline)

    def finish(self) -> None:
        """At the end: store the models and release the lease. Raises LogError."""
        try:
            super().finish()
        finally:
            self._lease.release()
